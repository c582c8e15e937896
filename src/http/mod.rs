//! The transport: connections with deadlines, TLS, and HTTP/1.1 message framing.

pub mod body;
pub mod connection;
pub mod message;
pub mod tls;
