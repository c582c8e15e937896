//! The transport: connections with deadlines, TLS, and HTTP/1.1 message framing.

pub(crate) mod body;
pub(crate) mod connection;
pub(crate) mod message;
pub(crate) mod tls;
