//! HTTP/1.1 messages (RFC 9112) within fixed bounds: the request head, parsed by
//! httparse, and the answer, serialized by tiny_http.
//!
//! The server of tiny_http is not used: it sets no time-outs, bounds neither headers
//! nor threads, and its TLS feature pins a rustls version with a known vulnerability.

use std::io::{self, Read, Write};
use tiny_http::{HTTPVersion, Header, Method, Response, StatusCode};

/// Maximum size of the request line and headers together, in bytes.
const HEAD_MAX: usize = 8 << 10;

/// Maximum number of headers of a request.
const HEADERS_MAX: usize = 64;

/// The head of a request: request line and headers.
#[derive(Debug)]
pub(crate) struct Request {
    /// The request method.
    pub method: Method,
    /// The request target as received, not decoded (RFC 9112, 3.2).
    pub target: String,
    /// Host and optional port: those of a target in absolute form, else the value of `Host`
    /// (RFC 9112, 3.3). `None` only with HTTP/1.0, which does not require `Host`.
    pub host: Option<String>,
    /// The value of `Authorization` (RFC 9110, 11.6.2).
    pub authorization: Option<String>,
    /// How the body is framed.
    pub body: Framing,
    /// Whether the connection persists after this request (RFC 9112, 9.3); always `false` with
    /// HTTP/1.0.
    pub keep_alive: bool,
    /// Whether a browser sends it on behalf of a web page: it has `Origin` (Fetch standard), or
    /// `Sec-Fetch-Site` other than `none` (Fetch Metadata Request Headers).
    pub from_web_page: bool,
    /// Whether the client waits for `100 Continue` before it sends the body (RFC 9110, 10.1.1).
    pub expects_continue: bool,
    /// The minor version: 0 or 1.
    minor: u8,
}

/// How the body of a request is framed (RFC 9112, 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// `Content-Length` in bytes; 0 if there is neither header.
    Length(u64),
    /// `Transfer-Encoding: chunked`.
    Chunked,
}

/// Received bytes, and how many of them at the start are consumed.
#[derive(Debug, Default)]
pub(crate) struct Buffer(Vec<u8>, usize);

impl Buffer {
    /// Whether all received bytes are consumed.
    pub(crate) fn is_empty(&self) -> bool {
        self.bytes().is_empty()
    }

    /// The received bytes that are not consumed.
    pub(crate) fn bytes(&self) -> &[u8] {
        self.0.get(self.1..).unwrap_or_default()
    }

    /// Consumes the first `length` bytes.
    pub(crate) fn consume(&mut self, length: usize) {
        self.1 = self.1.saturating_add(length).min(self.0.len());
        if self.1 == self.0.len() {
            self.0.clear();
            self.1 = 0;
        }
    }

    /// Reads once, at most `most` bytes and at most 16 KiB, and returns their number; 0 is
    /// the end of the stream.
    ///
    /// # Errors
    /// The read fails or times out.
    pub(crate) fn receive(&mut self, stream: &mut impl Read, most: usize) -> Result<usize, HttpError> {
        let mut part = [0; 16 << 10];
        let part = part.get_mut(..most.min(16 << 10)).unwrap_or_default();
        let length = stream.read(part).map_err(HttpError::from_io)?;
        // A client that pipelines can keep the buffer from ever being empty: without this,
        // consumed bytes accumulate.
        self.0.drain(..self.1);
        self.1 = 0;
        self.0.extend_from_slice(part.get(..length).unwrap_or_default());
        Ok(length)
    }

    /// Reads the head of the next request; `None` if the stream ends before its first byte.
    ///
    /// # Errors
    /// See [`HttpError`].
    pub(crate) fn read_head(&mut self, stream: &mut impl Read) -> Result<Option<Request>, HttpError> {
        loop {
            if let Some((request, length)) = parse_head(self.bytes())? {
                self.consume(length);
                return Ok(Some(request));
            }
            let left = HEAD_MAX.saturating_sub(self.bytes().len());
            if left == 0 {
                return Err(HttpError::HeadTooLarge);
            }
            match self.receive(stream, left)? {
                0 if self.is_empty() => return Ok(None),
                0 => return Err(HttpError::Io(io::ErrorKind::UnexpectedEof.into())),
                _ => {}
            }
        }
    }
}

/// Parses a head and returns it with its length in bytes; `None` if it is incomplete.
fn parse_head(bytes: &[u8]) -> Result<Option<(Request, usize)>, HttpError> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut parsed = httparse::Request::new(&mut headers);
    let length = match parsed.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => return Err(HttpError::HeadTooLarge),
        Err(httparse::Error::Version) => return Err(HttpError::Version),
        Err(error) => return Err(HttpError::Malformed(error.to_string())),
    };
    let malformed = |what: &str| HttpError::Malformed(what.to_owned());
    let minor = parsed.version.ok_or_else(|| malformed("no version"))?;
    let method = parsed.method.ok_or_else(|| malformed("no method"))?;
    let target = parsed.path.ok_or_else(|| malformed("no target"))?.to_owned();
    let headers = Headers(parsed.headers);
    let host = headers.text("Host")?;
    if minor > 0 && host.as_ref().is_none_or(String::is_empty) {
        return Err(malformed("expected one header Host"));
    }
    let host = authority(&target).map(str::to_owned).or(host);
    let request = Request {
        method: method.parse().map_err(|()| malformed("not a method"))?,
        target,
        host,
        authorization: headers.text("Authorization")?,
        body: headers.framing()?,
        keep_alive: minor > 0 && !headers.list("Connection").any(|word| word.eq_ignore_ascii_case("close")),
        from_web_page: headers.all("Origin").next().is_some()
            || headers.all("Sec-Fetch-Site").any(|site| site != b"none"),
        expects_continue: minor > 0
            && headers.list("Expect").any(|word| word.eq_ignore_ascii_case("100-continue")),
        minor,
    };
    Ok(Some((request, length)))
}

/// The authority of a target in absolute form (RFC 9112, 3.2.2).
fn authority(target: &str) -> Option<&str> {
    let (scheme, rest) = target.split_once("://")?;
    let rest = ["http", "https"].iter().any(|known| scheme.eq_ignore_ascii_case(known)).then_some(rest)?;
    rest.split(['/', '?']).next()
}

struct Headers<'a>(&'a [httparse::Header<'a>]);

impl<'a> Headers<'a> {
    fn all(&self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        self.0.iter().filter(move |header| header.name.eq_ignore_ascii_case(name)).map(|header| header.value)
    }

    /// The value of a header that may occur at most once.
    fn text(&self, name: &'a str) -> Result<Option<String>, HttpError> {
        let mut values = self.all(name).map(|value| String::from_utf8_lossy(value).trim().to_owned());
        let value = values.next();
        match values.next() {
            Some(_) => Err(HttpError::Malformed(format!("expected one header {name}"))),
            None => Ok(value),
        }
    }

    /// The elements of a header whose value is a comma-separated list (RFC 9110, 5.6.1).
    fn list(&self, name: &'a str) -> impl Iterator<Item = &'a str> {
        let texts = self.all(name).filter_map(|value| str::from_utf8(value).ok());
        texts.flat_map(|text| text.split(',').map(str::trim))
    }

    /// Rejects a request with both framing headers or a repeated one, which allow request
    /// smuggling (RFC 9112, 6.3 and 11.2).
    fn framing(&self) -> Result<Framing, HttpError> {
        let length = self.text("Content-Length")?;
        let encoding = self.text("Transfer-Encoding")?;
        match (length, encoding) {
            (None, None) => Ok(Framing::Length(0)),
            (Some(text), None) => {
                let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
                // A number that overflows u64 exceeds any bound on the body too.
                let length = digits.then(|| text.parse().unwrap_or(u64::MAX));
                length.map(Framing::Length).ok_or_else(|| {
                    HttpError::Malformed(format!(
                        "Content-Length: \"{}\" is not a number",
                        text.escape_debug()
                    ))
                })
            }
            (None, Some(text)) if text.eq_ignore_ascii_case("chunked") => Ok(Framing::Chunked),
            (None, Some(text)) => Err(HttpError::Coding(text)),
            (Some(_), Some(_)) => {
                Err(HttpError::Malformed("Content-Length and Transfer-Encoding at once".to_owned()))
            }
        }
    }
}

/// Error in reading a request.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HttpError {
    /// The deadline is exceeded.
    #[error("the request took too long")]
    Slow,
    /// The request line and headers exceed [`HEAD_MAX`] or [`HEADERS_MAX`].
    #[error(
        "the request line and headers are too large: expected {HEAD_MAX} bytes and {HEADERS_MAX} headers at most"
    )]
    HeadTooLarge,
    /// Not a valid HTTP request, with the reason.
    #[error("malformed request: {0}")]
    Malformed(String),
    /// Neither HTTP/1.0 nor HTTP/1.1.
    #[error("unknown version: expected HTTP/1.1 or HTTP/1.0")]
    Version,
    /// A transfer coding other than `chunked`.
    #[error("unknown transfer coding \"{}\": expected chunked", .0.escape_debug())]
    Coding(String),
    /// The body exceeds this many bytes.
    #[error("the body is too large: expected at most {0} bytes")]
    BodyTooLarge(u64),
    /// The connection is broken or closed before the end of the request.
    #[error(transparent)]
    Io(io::Error),
}

impl HttpError {
    /// Separates a time-out, which is answered with 408, from other errors, after which no
    /// answer can be delivered.
    pub(crate) fn from_io(error: io::Error) -> HttpError {
        match error.kind() {
            io::ErrorKind::TimedOut => HttpError::Slow,
            _ => HttpError::Io(error),
        }
    }

    /// The status code (RFC 9110, 15; RFC 6585 for 431); `None` if the connection is broken.
    pub(crate) fn status(&self) -> Option<u16> {
        match self {
            HttpError::Slow => Some(408),
            HttpError::HeadTooLarge => Some(431),
            HttpError::BodyTooLarge(_) => Some(413),
            HttpError::Malformed(_) => Some(400),
            HttpError::Version => Some(505),
            HttpError::Coding(_) => Some(501),
            HttpError::Io(_) => None,
        }
    }
}

/// A response: status code, JSON body, and at most one header in addition to the fixed ones.
pub(crate) struct Answer {
    /// The status code (RFC 9110, 15).
    pub status: u16,
    /// The body: JSON that ends with a newline.
    pub body: Content,
    /// A header that the status code calls for, such as `Allow` with 405.
    pub header: Option<(&'static str, String)>,
}

/// The body of an answer.
pub(crate) enum Content {
    /// A text, sent with `Content-Length`.
    Text(String),
    /// A stream of unknown length, sent with chunked transfer coding; for HTTP/1.0, which
    /// has none, tiny_http reads it whole into memory first.
    Stream(Box<dyn Read>),
}

/// How an answer is serialized: HTTP version, without a body for HEAD, `Connection: close`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Delivery {
    minor: u8,
    head_only: bool,
    close: bool,
}

impl Delivery {
    /// For the answer to a request; `close` adds `Connection: close`.
    pub(crate) fn to(request: &Request, close: bool) -> Delivery {
        Delivery { minor: request.minor, head_only: request.method == Method::Head, close }
    }

    /// For the answer to a request that can't be parsed: HTTP/1.1 with `Connection: close`.
    pub(crate) fn last() -> Delivery {
        Delivery { minor: 1, head_only: false, close: true }
    }
}

impl Answer {
    /// Serializes the answer to a stream and flushes it.
    ///
    /// # Errors
    /// The write, or the read of a [`Content::Stream`], fails or times out.
    pub(crate) fn write(self, stream: &mut impl Write, delivery: Delivery) -> io::Result<()> {
        let own = self.header.iter().map(|(name, value)| (*name, value.as_str()));
        let all = [
            ("Content-Type", "application/json"),
            ("Cache-Control", "no-store"),
            ("Server", concat!("rfw/", env!("CARGO_PKG_VERSION"))),
        ];
        let headers = all.into_iter().chain(own);
        let headers = headers.filter_map(|(name, value)| Header::from_bytes(name, value).ok()).collect();
        let (body, length): (Box<dyn Read>, _) = match self.body {
            Content::Text(text) => {
                let length = text.len();
                (Box::new(io::Cursor::new(text)), Some(length))
            }
            Content::Stream(stream) => (stream, None),
        };
        let response = Response::new(StatusCode(self.status), headers, body, length, None)
            .with_chunked_threshold(usize::MAX);
        let connection = if delivery.close { "Connection: close\r\n" } else { "" };
        let mut stream =
            HeaderInserter { stream: io::BufWriter::with_capacity(16 << 10, stream), header: connection };
        let version = HTTPVersion(1, delivery.minor);
        response.raw_print(&mut stream, version, &[], delivery.head_only, None)?;
        stream.flush()
    }
}

/// A writer that inserts a header field after the status line. tiny_http does not print
/// `Connection` headers that are set on a response.
struct HeaderInserter<'a, W: Write> {
    stream: W,
    header: &'a str,
}

impl<W: Write> Write for HeaderInserter<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let line_end = bytes.iter().position(|byte| *byte == b'\n').map(|at| at.saturating_add(1));
        match line_end {
            Some(end) if !self.header.is_empty() => {
                self.stream.write_all(bytes.get(..end).unwrap_or_default())?;
                self.stream.write_all(self.header.as_bytes())?;
                self.header = "";
                Ok(end)
            }
            _ => self.stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    use crate::golden::cases;

    fn read(text: &str) -> Result<Option<Request>, HttpError> {
        Buffer::default().read_head(&mut text.as_bytes())
    }

    #[test]
    fn what_a_head_says_is_read() {
        let text = "PUT /drop/input/any/1.2.3.4 HTTP/1.1\r\nhost: x\r\nAUTHORIZATION: Basic abc\r\n\r\n";
        let request = read(text).unwrap().unwrap();
        assert_eq!((request.method, request.target.as_str()), (Method::Put, "/drop/input/any/1.2.3.4"));
        assert_eq!(request.authorization.as_deref(), Some("Basic abc"));
        assert!(request.keep_alive && request.body == Framing::Length(0));
    }

    #[test]
    fn the_host_is_that_of_the_target_or_the_header() {
        let golden = [
            ("GET / HTTP/1.1\r\nHost: a:1\r\n\r\n", Some("a:1")),
            ("GET http://b:2/x HTTP/1.1\r\nHost: a\r\n\r\n", Some("b:2")),
            ("GET HTTPS://b?x HTTP/1.1\r\nHost: a\r\n\r\n", Some("b")),
            ("GET http:// HTTP/1.1\r\nHost: a\r\n\r\n", Some("")),
            ("GET / HTTP/1.0\r\n\r\n", None),
            ("GET / HTTP/1.0\r\nHost: a\r\n\r\n", Some("a")),
        ];
        for (text, expected) in golden {
            assert_eq!(read(text).unwrap().unwrap().host.as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn requests_of_web_pages_are_known() {
        let golden = [
            ("", false),
            ("Origin: https://example.org\r\n", true),
            ("Origin: null\r\n", true),
            ("Sec-Fetch-Site: cross-site\r\n", true),
            ("Sec-Fetch-Site: same-origin\r\n", true),
            ("Sec-Fetch-Site: none\r\n", false),
        ];
        for (header, expected) in golden {
            let text = format!("PUT / HTTP/1.1\r\nHost: x\r\n{header}\r\n");
            assert_eq!(read(&text).unwrap().unwrap().from_web_page, expected, "{header}");
        }
    }

    #[test]
    fn connections_are_kept_as_the_client_asks() {
        let golden = [
            ("GET / HTTP/1.1\r\nHost: x\r\n\r\n", true),
            ("GET / HTTP/1.1\r\nHost: x\r\nConnection: Close\r\n\r\n", false),
            ("GET / HTTP/1.1\r\nHost: x\r\nConnection: x, close\r\n\r\n", false),
            ("GET / HTTP/1.0\r\n\r\n", false),
        ];
        for (text, expected) in golden {
            assert_eq!(read(text).unwrap().unwrap().keep_alive, expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_request_has_a_status() {
        let many = "a: b\r\n".repeat(65);
        let long = "x".repeat(9000);
        for (at, [text, status]) in cases("head-refused.txt") {
            let answer = read(&text).unwrap_err().status();
            assert_eq!(answer.map_or("-".to_owned(), |answer| answer.to_string()), status, "{at}");
        }
        let many = format!("GET / HTTP/1.1\r\nHost: x\r\n{many}\r\n");
        let long = format!("GET /{long} HTTP/1.1\r\nHost: x\r\n\r\n");
        for text in [many, long] {
            assert_eq!(read(&text).unwrap_err().status(), Some(431), "{text}");
        }
        assert!(read("").unwrap().is_none());
    }

    #[test]
    fn requests_may_come_one_behind_the_other() {
        let mut buffer = Buffer::default();
        let mut stream = "GET /1 HTTP/1.1\r\nHost: x\r\n\r\nGET /2 HTTP/1.1\r\nHost: x\r\n\r\n".as_bytes();
        for target in ["/1", "/2"] {
            assert_eq!(buffer.read_head(&mut stream).unwrap().unwrap().target, target);
        }
        assert!(buffer.is_empty());
    }

    #[test]
    fn an_answer_is_whole_and_says_when_it_is_the_last() {
        let mut out = Vec::new();
        let answer = Answer {
            status: 405,
            body: Content::Text("{}\n".to_owned()),
            header: Some(("Allow", "GET".to_owned())),
        };
        answer.write(&mut out, Delivery::last()).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.starts_with("HTTP/1.1 405 Method Not Allowed\r\nConnection: close\r\n"), "{text}");
        assert!(text.contains("\r\nAllow: GET\r\n") && text.contains("\r\nContent-Length: 3\r\n"), "{text}");
        assert!(text.ends_with("\r\n\r\n{}\n"), "{text}");
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes: Vec<u8>, tail in "[A-Za-z :/.\r\n0-9]*") {
            let _ = Buffer::default().read_head(&mut bytes.as_slice());
            let _ = Buffer::default().read_head(&mut format!("GET / HTTP/1.1\r\n{tail}").as_bytes());
        }
    }
}
