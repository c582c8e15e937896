//! The head of a request in HTTP/1.1 (RFC 9112), within fixed bounds, parsed by httparse.

use std::fmt;
use std::io;
use tiny_http::Method;
use zeroize::Zeroizing;

/// Maximum size of the request line and headers together, in bytes.
pub(crate) const HEAD_MAX: usize = 8 << 10;

/// Maximum number of headers of a request.
const HEADERS_MAX: usize = 64;

/// The media type of a form.
const FORM: &[u8] = b"application/x-www-form-urlencoded";

/// The head of a request: request line and headers.
pub(crate) struct Request {
    /// The request method.
    pub method: Method,
    /// The request target as received, not decoded (RFC 9112, 3.2).
    pub target: String,
    /// Host and optional port: those of a target in absolute form, else the value of `Host`
    /// (RFC 9112, 3.3). `None` only with HTTP/1.0, which does not require `Host`.
    pub host: Option<String>,
    /// The value of `Authorization` (RFC 9110, 11.6.2), which is wiped when it is dropped.
    pub authorization: Option<Zeroizing<String>>,
    /// How the body is framed.
    pub body: Framing,
    /// Whether the connection persists after this request (RFC 9112, 9.3); always `false` with
    /// HTTP/1.0.
    pub keep_alive: bool,
    /// Whether a browser sends it on behalf of a web page of others: it has `Origin` (Fetch standard), or
    /// `Sec-Fetch-Site` other than `none` (Fetch Metadata Request Headers), but for `same-origin` with an
    /// `Origin` that is the host of the request.
    pub from_other_page: bool,
    /// The value of `Accept` (RFC 9110, 12.5.1), where there are several, joined by commas; empty for none.
    pub accept: String,
    /// The value of `Content-Encoding` (RFC 9110, 8.4), if it is any but `identity`.
    pub content_coding: Option<String>,
    /// Whether the body is said to be a form (`application/x-www-form-urlencoded`), as `curl -d` says it.
    pub is_form: bool,
    /// Whether the client waits for `100 Continue` before it sends the body (RFC 9110, 10.1.1).
    pub expects_continue: bool,
    /// The minor version: 0 or 1.
    pub minor: u8,
}

/// Omits what the client logs in with, so that it never reaches a log.
impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Request { method, target, authorization, .. } = self;
        write!(f, "Request({method} {target:?}, ")?;
        f.write_str(if authorization.is_some() { "with Authorization, …)" } else { "…)" })
    }
}

/// How the body of a request is framed (RFC 9112, 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// `Content-Length` in bytes; 0 if there is neither header.
    Length(u64),
    /// `Transfer-Encoding: chunked`.
    Chunked,
}

/// Parses a head and returns it with its length in bytes; `None` if it is incomplete.
///
/// # Errors
/// See [`HttpError`].
pub(crate) fn parse_head(bytes: &[u8]) -> Result<Option<(Request, usize)>, HttpError> {
    let parsed = parse_headers(bytes.get(..HEAD_MAX).unwrap_or(bytes))?;
    match parsed {
        None if bytes.len() >= HEAD_MAX => Err(HttpError::HeadTooLarge),
        parsed => Ok(parsed),
    }
}

fn parse_headers(bytes: &[u8]) -> Result<Option<(Request, usize)>, HttpError> {
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
    // It would be told, in the log too (RFC 9110, 4.2.4).
    if host.as_ref().is_some_and(|host| host.contains('@')) {
        return Err(malformed("expected no name and password before the host"));
    }
    let request = Request {
        method: method.parse().map_err(|()| malformed("not a method"))?,
        from_other_page: headers.is_from_other_page(host.as_deref()),
        target,
        host,
        authorization: headers.text("Authorization")?.map(Zeroizing::new),
        body: headers.framing(minor)?,
        keep_alive: minor > 0 && !headers.list("Connection").any(|word| word.eq_ignore_ascii_case("close")),
        accept: headers.list("Accept").collect::<Vec<&str>>().join(","),
        content_coding: headers.content_coding(),
        is_form: headers.all("Content-Type").any(|kind| kind.eq_ignore_ascii_case(FORM)),
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

/// Whether an origin (RFC 6454, 6.1) is a host and port, by whichever scheme: a browser that says `same-origin`
/// has compared that.
fn is_origin_of(origin: &[u8], host: &str) -> bool {
    let authority = [&b"https://"[..], b"http://"].iter().find_map(|scheme| origin.strip_prefix(*scheme));
    authority.is_some_and(|authority| authority.eq_ignore_ascii_case(host.as_bytes()))
}

struct Headers<'a>(&'a [httparse::Header<'a>]);

impl<'a> Headers<'a> {
    fn all(&self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        self.0.iter().filter(move |header| header.name.eq_ignore_ascii_case(name)).map(|header| header.value)
    }

    /// The value of a header that may occur at most once. httparse has stripped what is white
    /// space in HTTP (RFC 9110, 5.6.3); what others may take for it stays.
    fn text(&self, name: &'a str) -> Result<Option<String>, HttpError> {
        let mut values = self.all(name).map(|value| String::from_utf8_lossy(value).into_owned());
        let value = values.next();
        match values.next() {
            Some(_) => Err(HttpError::Malformed(format!("expected one header {name}"))),
            None => Ok(value),
        }
    }

    /// The elements of a header whose value is a comma-separated list (RFC 9110, 5.6.1), without the
    /// white space of HTTP around them.
    fn list(&self, name: &'a str) -> impl Iterator<Item = &'a str> {
        let texts = self.all(name).filter_map(|value| str::from_utf8(value).ok());
        texts.flat_map(|text| text.split(',').map(|word| word.trim_matches([' ', '\t'])))
    }

    /// Whether a browser sends it for a page of another origin: one that it does not say to be of this one,
    /// or whose `Origin` is not `host`.
    fn is_from_other_page(&self, host: Option<&str>) -> bool {
        let (mut origins, mut sites) = (self.all("Origin"), self.all("Sec-Fetch-Site"));
        match (origins.next(), sites.next()) {
            (None, None) => false,
            (None, Some(b"none")) => sites.next().is_some(),
            (Some(origin), Some(b"same-origin")) => {
                let is_host = |host: &str| is_origin_of(origin, host);
                !host.is_some_and(is_host) || origins.next().is_some() || sites.next().is_some()
            }
            _ => true,
        }
    }

    /// How the body is encoded beyond its framing.
    fn content_coding(&self) -> Option<String> {
        let mut values =
            self.all("Content-Encoding").map(|value| String::from_utf8_lossy(value).into_owned());
        values.find(|value| !value.eq_ignore_ascii_case("identity"))
    }

    /// Rejects a request with both framing headers or a repeated one, which allow request
    /// smuggling (RFC 9112, 6.3 and 11.2), and one with a transfer coding by HTTP/1.0, which has
    /// none: a server before rfw may have taken its body for the next request (RFC 9112, 6.1).
    fn framing(&self, minor: u8) -> Result<Framing, HttpError> {
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
            (_, Some(_)) if minor == 0 => {
                Err(HttpError::Malformed("HTTP/1.0 has no Transfer-Encoding".to_owned()))
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
    /// The TLS handshake fails or is not made in time.
    #[error("no TLS handshake: {0}")]
    Tls(io::Error),
    /// The connection is broken or closed before the end of the request.
    #[error(transparent)]
    Io(io::Error),
}

impl HttpError {
    /// The connection has ended where more was to come.
    pub(crate) fn cut_off() -> HttpError {
        HttpError::Io(io::ErrorKind::UnexpectedEof.into())
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
            HttpError::Tls(_) | HttpError::Io(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    use crate::golden::cases;

    fn read(text: &str) -> Result<Option<Request>, HttpError> {
        parse_head(text.as_bytes()).map(|parsed| parsed.map(|(request, _)| request))
    }

    #[test]
    fn what_a_head_says_is_read() {
        let text = "PUT /drop/input/any/1.2.3.4 HTTP/1.1\r\nhost: x\r\nAUTHORIZATION: Basic abc\r\n\r\n";
        let request = read(text).unwrap().unwrap();
        assert_eq!((request.method, request.target.as_str()), (Method::Put, "/drop/input/any/1.2.3.4"));
        assert_eq!(request.authorization.as_ref().map(|text| text.as_str()), Some("Basic abc"));
        assert!(request.keep_alive && request.body == Framing::Length(0));
    }

    #[test]
    fn what_a_client_logs_in_with_is_not_shown() {
        let text = "GET / HTTP/1.1\r\nHost: x\r\nAuthorization: Basic bWU6c2VjcmV0\r\n\r\n";
        let request = read(text).unwrap().unwrap();
        let shown = format!("{request:?}");
        assert!(shown.contains("/") && !shown.contains("bWU6c2VjcmV0"), "{shown}");
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
        let (same, other) = ("Sec-Fetch-Site: same-origin\r\n", "Sec-Fetch-Site: same-site\r\n");
        let golden = [
            (String::new(), false),
            ("Origin: https://example.org\r\n".to_owned(), true),
            ("Origin: https://x:7393\r\n".to_owned(), true),
            ("Origin: null\r\n".to_owned(), true),
            ("Sec-Fetch-Site: cross-site\r\n".to_owned(), true),
            ("Sec-Fetch-Site: none\r\n".to_owned(), false),
            ("Sec-Fetch-Site: none\r\nSec-Fetch-Site: cross-site\r\n".to_owned(), true),
            (same.to_owned(), true),
            (format!("{same}Origin: https://x:7393\r\n"), false),
            (format!("{same}Origin: http://X:7393\r\n"), false),
            (format!("{other}Origin: https://x:7393\r\n"), true),
            (format!("{same}{same}Origin: https://x:7393\r\n"), true),
            (format!("{same}Origin: https://x:7393\r\nOrigin: https://x:7393\r\n"), true),
            (format!("{same}Origin: https://x\r\n"), true),
            (format!("{same}Origin: https://x:7393.example.org\r\n"), true),
            (format!("{same}Origin: https://x:7393/\r\n"), true),
            (format!("{same}Origin: ftp://x:7393\r\n"), true),
            (format!("{same}Origin: x:7393\r\n"), true),
            (format!("{same}Origin: null\r\n"), true),
        ];
        for (header, expected) in golden {
            let text = format!("PUT / HTTP/1.1\r\nHost: x:7393\r\n{header}\r\n");
            assert_eq!(read(&text).unwrap().unwrap().from_other_page, expected, "{header}");
        }
        let without_host = format!("PUT / HTTP/1.0\r\n{same}Origin: https://\r\n\r\n");
        assert!(read(&without_host).unwrap().unwrap().from_other_page);
    }

    #[test]
    fn connections_are_kept_as_the_client_asks() {
        let golden = [
            ("GET / HTTP/1.1\r\nHost: x\r\n\r\n", true),
            ("GET / HTTP/1.1\r\nHost: x\r\nConnection: Close\r\n\r\n", false),
            ("GET / HTTP/1.1\r\nHost: x\r\nConnection: x, close\r\n\r\n", false),
            ("GET / HTTP/1.1\r\nHost: x\r\nConnection: x,\tclose \r\n\r\n", false),
            // White space elsewhere, but not in HTTP.
            ("GET / HTTP/1.1\r\nHost: x\r\nConnection: \u{a0}close\r\n\r\n", true),
            ("GET / HTTP/1.1\r\nHost: x\r\nConnection: x,\u{2003}close\r\n\r\n", true),
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
            let answer = match read(&text) {
                Ok(request) => request.map(|_| 200),
                Err(error) => error.status(),
            };
            assert_eq!(answer.map_or("-".to_owned(), |answer| answer.to_string()), status, "{at}");
        }
        let many = format!("GET / HTTP/1.1\r\nHost: x\r\n{many}\r\n");
        let long = format!("GET /{long} HTTP/1.1\r\nHost: x\r\n\r\n");
        for text in [many, long] {
            assert_eq!(read(&text).unwrap_err().status(), Some(431), "{text}");
        }
        assert!(read("").unwrap().is_none());
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes: Vec<u8>, tail in "[A-Za-z :/.\r\n0-9]*") {
            let _ = parse_head(&bytes);
            let _ = parse_head(format!("GET / HTTP/1.1\r\n{tail}").as_bytes());
        }
    }
}
