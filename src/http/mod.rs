//! Bytes: connections with deadlines, TLS, requests and answers of HTTP/1.1.

pub mod body;
pub mod connection;
pub mod message;
pub mod tls;
