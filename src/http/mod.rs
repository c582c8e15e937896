//! The transport: TLS, HTTP/1.1 message framing, and the states of a connection.

pub(crate) mod answer;
pub(crate) mod body;
pub(crate) mod buffer;
pub(crate) mod connection;
pub(crate) mod conversation;
pub(crate) mod handler;
pub(crate) mod message;
pub(crate) mod tls;
mod transport;
