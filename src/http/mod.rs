//! Bytes: connections with deadlines, TLS, requests and answers of HTTP/1.1, and how
//! often a stranger may cause a line of the log.

pub mod body;
pub mod connection;
pub mod message;
pub mod rate_limit;
pub mod tls;
