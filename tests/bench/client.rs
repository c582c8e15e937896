//! A client that speaks TLS and HTTP itself, for the bench and for crowds.

use rustix::net::{AddressFamily, SocketType, bind, connect, socket};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::path::Path;
use std::sync::Arc;

/// Where rfw serves HTTPS.
pub const PORT: u16 = 7393;

/// TLS that trusts an authority and resumes no session.
pub fn trust(authority: &Path) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(authority).unwrap()).unwrap();
    let mut tls = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    tls.resumption = rustls::client::Resumption::disabled();
    tls
}

/// Connects from an address of this host.
pub fn connect_from(source: Ipv4Addr, port: u16) -> io::Result<TcpStream> {
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None)?;
    bind(&socket, &SocketAddrV4::new(source, 0))?;
    connect(&socket, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, port))?;
    let stream = TcpStream::from(socket);
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Begins TLS on a connection.
pub fn secure(tls: &Arc<ClientConfig>, socket: TcpStream) -> StreamOwned<ClientConnection, TcpStream> {
    let name = ServerName::try_from("127.0.0.1").unwrap();
    StreamOwned::new(ClientConnection::new(Arc::clone(tls), name).unwrap(), socket)
}

/// The head of a request, with credentials.
pub fn head(method: &str, path: &str, length: usize) -> String {
    format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Basic bWU6c2VjcmV0\r\n\
         Content-Length: {length}\r\n\r\n"
    )
}

/// A connection to rfw that is kept.
pub struct Client {
    stream: BufReader<StreamOwned<ClientConnection, TcpStream>>,
    /// The body of the last answer.
    pub body: Vec<u8>,
}

impl Client {
    pub fn new(tls: &Arc<ClientConfig>) -> Client {
        let socket = TcpStream::connect((Ipv4Addr::LOCALHOST, PORT)).unwrap();
        socket.set_nodelay(true).unwrap();
        Client { stream: BufReader::new(secure(tls, socket)), body: Vec::new() }
    }

    pub fn put(&mut self, address: &str) {
        self.request("PUT", &format!("/drop/input/any/{address}?expire=1h"), "");
        assert!(self.body.starts_with(b"{\"expires\""), "{}", String::from_utf8_lossy(&self.body));
    }

    /// Sends a request, reads the answer and gives the length of its body.
    pub fn request(&mut self, method: &str, path: &str, body: &str) -> usize {
        let head = head(method, path, body.len());
        let stream = self.stream.get_mut();
        stream.write_all((head + body).as_bytes()).unwrap();
        stream.flush().unwrap();
        let (mut length, mut chunked, mut line) = (0, false, String::new());
        self.stream.read_line(&mut line).unwrap();
        let status = line.clone();
        while line != "\r\n" {
            line.clear();
            assert!(self.stream.read_line(&mut line).unwrap() > 0, "{method} {path}: cut off");
            let lower = line.to_ascii_lowercase();
            chunked |= lower.starts_with("transfer-encoding: chunked");
            if let Some(value) = lower.strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
        }
        let length = if chunked { self.read_chunks() } else { self.read_body(length) };
        assert!(
            status.contains(" 200 "),
            "{method} {path}: {status} {}",
            String::from_utf8_lossy(&self.body)
        );
        length
    }

    fn read_body(&mut self, length: usize) -> usize {
        self.body.resize(length, 0);
        self.stream.read_exact(&mut self.body).unwrap();
        length
    }

    fn read_chunks(&mut self) -> usize {
        let mut total = 0;
        loop {
            let mut line = String::new();
            self.stream.read_line(&mut line).unwrap();
            let length = usize::from_str_radix(line.trim(), 16).unwrap();
            self.body.resize(length + 2, 0);
            self.stream.read_exact(&mut self.body).unwrap();
            total += length;
            if length == 0 {
                return total;
            }
        }
    }
}
