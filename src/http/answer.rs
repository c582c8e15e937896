//! Answers, printed by tiny_http. Its server is not used: it sets no time-outs, bounds neither
//! headers nor threads, and its TLS feature pins a rustls version with a known vulnerability.

use crate::http::message::Request;
use std::io;
use tiny_http::{HTTPVersion, Header, Method, Response, StatusCode};

/// A response: status code, body, and headers in addition to the fixed ones.
pub(crate) struct Answer {
    /// The status code (RFC 9110, 15).
    pub status: u16,
    /// The media type of the body (RFC 9110, 8.3), as [`JSON`].
    pub media_type: &'static str,
    /// The body: a text that ends with a newline.
    pub body: Content,
    /// Headers that the status code or the body calls for, such as `Allow` with 405.
    pub headers: Vec<(&'static str, String)>,
    /// The code of the error that it tells, which is counted and not sent.
    pub code: Option<&'static str>,
}

/// The media type of JSON (RFC 8259, 11).
pub(crate) const JSON: &str = "application/json";

impl Answer {
    /// An answer in JSON without headers of its own.
    pub(crate) fn json(status: u16, body: Content) -> Answer {
        Answer { status, media_type: JSON, body, headers: Vec::new(), code: None }
    }
}

/// The body of an answer.
pub(crate) enum Content {
    /// A text, sent with `Content-Length`.
    Text(String),
    /// A text of unknown length, made part by part while the client takes it: sent with
    /// chunked transfer coding, or to HTTP/1.0, which has none, until the connection closes.
    Parts(Parts),
}

/// The parts of a long text, none of them empty.
pub(crate) type Parts = Box<dyn Iterator<Item = String>>;

/// How an answer is serialized: HTTP version, without a body for HEAD, `Connection: close`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Delivery {
    minor: u8,
    head_only: bool,
    close: bool,
}

impl Delivery {
    /// For the answer to a request.
    pub(crate) fn to(request: &Request) -> Delivery {
        let head_only = request.method == Method::Head;
        Delivery { minor: request.minor, head_only, close: !request.keep_alive }
    }

    /// For the answer to a request that can't be parsed: HTTP/1.1 with `Connection: close`.
    pub(crate) fn last() -> Delivery {
        Delivery { minor: 1, head_only: false, close: true }
    }

    /// The same with `Connection: close`.
    pub(crate) fn closing(self) -> Delivery {
        Delivery { close: true, ..self }
    }

    /// Whether the connection closes behind the answer.
    pub(crate) fn closes(self) -> bool {
        self.close
    }

    /// Prints the head of an answer, and its body if that is a text; other parts are yet to
    /// be sent, each through [`Delivery::part`].
    ///
    /// # Errors
    /// A header can't be printed.
    pub(crate) fn print(self, answer: Answer) -> io::Result<(Vec<u8>, Option<Parts>)> {
        let own = answer.headers.iter().map(|(name, value)| (*name, value.as_str()));
        let all = [
            ("Content-Type", answer.media_type),
            ("Cache-Control", "no-store"),
            // A web page of others hears nothing of it, not even whether a list that it takes for a script is
            // empty (Fetch standard, 3.6 and 3.7).
            ("X-Content-Type-Options", "nosniff"),
            ("Cross-Origin-Resource-Policy", "same-origin"),
            ("Server", concat!("rfw/", env!("CARGO_PKG_VERSION"))),
        ];
        let headers = all.into_iter().chain(own);
        let headers = headers.filter_map(|(name, value)| Header::from_bytes(name, value).ok()).collect();
        let (text, parts) = match answer.body {
            Content::Text(text) => (text, None),
            Content::Parts(parts) => (String::new(), Some(parts)),
        };
        // tiny_http would gather a text of unknown length for HTTP/1.0.
        let until_closed = parts.is_some() && !self.is_chunked();
        let length = (parts.is_none() || until_closed).then_some(text.len());
        let response = Response::new(StatusCode(answer.status), headers, text.as_bytes(), length, None)
            .with_chunked_threshold(usize::MAX);
        let mut printed = Vec::with_capacity(512 + text.len());
        let without_body = self.head_only || parts.is_some();
        response.raw_print(&mut printed, HTTPVersion(1, self.minor), &[], without_body, None)?;
        if until_closed {
            remove(&mut printed, b"Content-Length: 0\r\n");
        }
        if self.close {
            // tiny_http prints no `Connection` that is set on a response.
            let end = printed.iter().position(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            printed.splice(end..end, *b"Connection: close\r\n");
        }
        Ok((printed, parts.filter(|_| !self.head_only)))
    }

    /// Frames the next part of a text (RFC 9112, 7.1); `None` is its end.
    pub(crate) fn part(self, text: Option<&str>) -> Vec<u8> {
        match text {
            _ if !self.is_chunked() => text.unwrap_or_default().as_bytes().to_vec(),
            None => b"0\r\n\r\n".to_vec(),
            Some(text) => format!("{:x}\r\n{text}\r\n", text.len()).into_bytes(),
        }
    }

    fn is_chunked(self) -> bool {
        self.minor > 0
    }
}

/// Removes the first occurrence of `part`.
fn remove(bytes: &mut Vec<u8>, part: &[u8]) {
    if let Some(at) = bytes.windows(part.len()).position(|window| window == part) {
        bytes.drain(at..at.saturating_add(part.len()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(delivery: Delivery, body: Content) -> String {
        let headers = vec![("Allow", "GET".to_owned())];
        let answer = Answer { headers, ..Answer::json(405, body) };
        let (mut bytes, parts) = delivery.print(answer).unwrap();
        if let Some(parts) = parts {
            parts.for_each(|part| bytes.extend(delivery.part(Some(&part))));
            bytes.extend(delivery.part(None));
        }
        String::from_utf8(bytes).unwrap()
    }

    fn parts() -> Content {
        Content::Parts(Box::new(["[\n".to_owned(), "1234567890abcdef".to_owned()].into_iter()))
    }

    #[test]
    fn an_answer_is_whole_and_says_when_it_is_the_last() {
        let text = printed(Delivery::last(), Content::Text("{}\n".to_owned()));
        assert!(text.starts_with("HTTP/1.1 405 Method Not Allowed\r\nConnection: close\r\n"), "{text}");
        assert!(text.contains("\r\nAllow: GET\r\n") && text.contains("\r\nContent-Length: 3\r\n"), "{text}");
        assert!(text.ends_with("\r\n\r\n{}\n"), "{text}");
        let kept = Delivery { minor: 1, head_only: true, close: false };
        let text = printed(kept, Content::Text("{}\n".to_owned()));
        assert!(!text.contains("Connection") && text.contains("\r\nContent-Length: 3\r\n"), "{text}");
        assert!(text.ends_with("\r\n\r\n"), "{text}");
    }

    #[test]
    fn parts_are_chunks_or_end_with_the_connection() {
        let text = printed(Delivery::last(), parts());
        assert!(text.contains("\r\nTransfer-Encoding: chunked\r\n"), "{text}");
        assert!(text.ends_with("\r\n\r\n2\r\n[\n\r\n10\r\n1234567890abcdef\r\n0\r\n\r\n"), "{text}");
        let text = printed(Delivery { minor: 0, head_only: false, close: true }, parts());
        assert!(text.starts_with("HTTP/1.0 405 Method Not Allowed\r\nConnection: close\r\n"), "{text}");
        assert!(!text.contains("Content-Length") && !text.contains("chunked"), "{text}");
        assert!(text.ends_with("\r\n\r\n[\n1234567890abcdef"), "{text}");
        let head_only = Delivery { minor: 1, head_only: true, close: true };
        assert!(printed(head_only, parts()).ends_with("\r\nTransfer-Encoding: chunked\r\n\r\n"));
    }
}
