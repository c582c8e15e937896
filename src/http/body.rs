//! Incremental reader of a request body, by `Content-Length` or chunked transfer coding
//! (RFC 9112, 6 and 7). A connection that is closed before the end of the body is an
//! error (RFC 9112, 8): an incomplete body is never processed as a complete one.

use crate::http::connection::Connection;
use crate::http::message::{Buffer, Framing, HttpError};
use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

/// Maximum size of a body in bytes, chunk framing excluded.
const BODY_MAX: u64 = 16 << 20;

/// Until rewritten: maximum duration of one read or write.
const STEP_TIME: Duration = Duration::from_secs(5);

/// Until rewritten: maximum duration of receiving a whole body, or of sending a whole
/// answer.
const WHOLE_TIME: Duration = Duration::from_secs(60);

/// Maximum length in bytes of a chunk-size line, extensions included, and of a trailer
/// line.
const CHUNK_LINE_MAX: usize = 1 << 10;

/// A connection with a deadline for each read or write ([`STEP_TIME`]) and one for the
/// whole transfer ([`WHOLE_TIME`]).
pub(crate) struct Paced<'a> {
    connection: &'a mut Connection,
    until: Instant,
}

impl Paced<'_> {
    /// Starts the transfer's [`WHOLE_TIME`] now.
    pub(crate) fn new(connection: &mut Connection) -> Paced<'_> {
        Paced { connection, until: Instant::now() + WHOLE_TIME }
    }

    fn step(&mut self) -> &mut Connection {
        self.connection.set_deadline(self.until.min(Instant::now() + STEP_TIME));
        self.connection
    }
}

impl Read for Paced<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.step().read(bytes)
    }
}

impl Write for Paced<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.step().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.step().flush()
    }
}

/// Reader of a request body.
pub(crate) struct Body<'a, S: Read + Write> {
    buffer: &'a mut Buffer,
    stream: S,
    state: State,
    chunked: bool,
    /// Whether `100 Continue` is to be sent before the first read (RFC 9110, 10.1.1).
    expects_continue: bool,
    /// Bytes left of [`BODY_MAX`].
    quota: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Expects this many bytes of the body or of the current chunk.
    Data(u64),
    /// Expects a chunk-size line.
    ChunkSize,
    /// Expects the CRLF after the data of a chunk.
    ChunkEnd,
    /// The body is complete.
    Ended,
}

impl<'a, S: Read + Write> Body<'a, S> {
    /// A reader for the body that follows a request head, starting with what the buffer
    /// already holds of it.
    pub(crate) fn new(
        buffer: &'a mut Buffer,
        stream: S,
        framing: Framing,
        expects_continue: bool,
    ) -> Body<'a, S> {
        let state = match framing {
            Framing::Length(0) => State::Ended,
            Framing::Length(length) => State::Data(length),
            Framing::Chunked => State::ChunkSize,
        };
        let chunked = framing == Framing::Chunked;
        Body { buffer, stream, state, chunked, expects_continue, quota: BODY_MAX }
    }

    /// Whether the body has been read to its end.
    pub(crate) fn is_ended(&self) -> bool {
        self.state == State::Ended
    }

    /// Whether the request has no body; an empty chunked body counts as one.
    pub(crate) fn is_empty(&self) -> bool {
        self.state == State::Ended && !self.chunked
    }

    /// Checks a declared `Content-Length` against [`BODY_MAX`], before any of the body is read.
    ///
    /// # Errors
    /// [`HttpError::BodyTooLarge`].
    pub(crate) fn check_length(&self) -> Result<(), HttpError> {
        match self.state {
            State::Data(left) if left > self.quota => Err(HttpError::BodyTooLarge(BODY_MAX)),
            _ => Ok(()),
        }
    }

    /// Reads the next line into `line`, its line end included, and stops after `most`
    /// bytes; `line` is empty at the end of the body.
    ///
    /// # Errors
    /// The connection fails or times out, the body is too large, or its framing is malformed.
    pub(crate) fn read_line(&mut self, line: &mut Vec<u8>, most: usize) -> Result<(), HttpError> {
        line.clear();
        while line.len() < most && line.last() != Some(&b'\n') {
            let Some(bytes) = self.fill()? else { return Ok(()) };
            let end = bytes.iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |at| at + 1);
            let end = end.min(most - line.len());
            line.extend_from_slice(bytes.get(..end).unwrap_or_default());
            self.take(end);
        }
        Ok(())
    }

    /// Buffered bytes of the body, at least one, received if necessary; `None` at its end.
    fn fill(&mut self) -> Result<Option<&[u8]>, HttpError> {
        loop {
            match self.state {
                State::Ended => return Ok(None),
                State::ChunkSize => self.begin_chunk()?,
                State::ChunkEnd => {
                    if self.line()? != b"\r\n" {
                        return Err(malformed("a chunk is longer than it says"));
                    }
                    self.state = State::ChunkSize;
                }
                State::Data(left) => {
                    if left > self.quota {
                        return Err(HttpError::BodyTooLarge(BODY_MAX));
                    }
                    if self.buffer.bytes().is_empty() {
                        self.receive()?;
                    }
                    let left = usize::try_from(left).unwrap_or(usize::MAX);
                    let bytes = self.buffer.bytes();
                    return Ok(bytes.get(..left.min(bytes.len())));
                }
            }
        }
    }

    /// Consumes bytes returned by [`Body::fill`].
    fn take(&mut self, length: usize) {
        self.buffer.consume(length);
        let length = u64::try_from(length).unwrap_or(u64::MAX);
        self.quota = self.quota.saturating_sub(length);
        if let State::Data(left) = self.state {
            self.state = match left.saturating_sub(length) {
                0 if self.chunked => State::ChunkEnd,
                0 => State::Ended,
                left => State::Data(left),
            };
        }
    }

    /// Reads a chunk-size line. After the last chunk, of size 0, reads and discards the
    /// trailer section (RFC 9112, 7.1.2), of at most 15 fields.
    fn begin_chunk(&mut self) -> Result<(), HttpError> {
        let line = self.line()?;
        match httparse::parse_chunk_size(&line) {
            Ok(httparse::Status::Complete((_, 0))) => {
                for _ in 0..16 {
                    if self.line()? == b"\r\n" {
                        self.state = State::Ended;
                        return Ok(());
                    }
                }
                Err(malformed("too many trailers"))
            }
            Ok(httparse::Status::Complete((_, size))) => {
                self.state = State::Data(size);
                Ok(())
            }
            _ => Err(malformed("no size of a chunk")),
        }
    }

    /// Reads a line of the chunk framing, its line end included.
    fn line(&mut self) -> Result<Vec<u8>, HttpError> {
        loop {
            let bytes = self.buffer.bytes();
            if let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
                let line = bytes.get(..=end).unwrap_or_default().to_vec();
                self.buffer.consume(line.len());
                return Ok(line);
            }
            if bytes.len() > CHUNK_LINE_MAX {
                return Err(malformed("a line before a chunk is too long"));
            }
            self.receive()?;
        }
    }

    /// Receives at least one byte, after sending a due `100 Continue`. It is called only
    /// where more input is required, so the end of the stream is an error.
    fn receive(&mut self) -> Result<(), HttpError> {
        if std::mem::take(&mut self.expects_continue) && self.buffer.bytes().is_empty() {
            let sent = self.stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n");
            sent.and_then(|()| self.stream.flush()).map_err(HttpError::from_io)?;
        }
        match self.buffer.receive(&mut self.stream, 16 << 10)? {
            0 => Err(HttpError::Io(io::ErrorKind::UnexpectedEof.into())),
            _ => Ok(()),
        }
    }
}

fn malformed(what: &str) -> HttpError {
    HttpError::Malformed(what.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A stream that gives `sends` in reads of at most 3 bytes and records what is written.
    struct Client<'a> {
        sends: &'a [u8],
        received: Vec<u8>,
    }

    impl Read for Client<'_> {
        fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
            let length = bytes.len().min(3);
            self.sends.read(&mut bytes[..length])
        }
    }

    impl Write for Client<'_> {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.received.write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn read(framing: Framing, sent: &str) -> Result<String, HttpError> {
        let mut buffer = Buffer::default();
        let client = Client { sends: sent.as_bytes(), received: Vec::new() };
        let mut body = Body::new(&mut buffer, client, framing, true);
        let (mut text, mut line) = (String::new(), Vec::new());
        loop {
            body.read_line(&mut line, 1000)?;
            if line.is_empty() {
                assert!(body.is_ended());
                let expected =
                    if framing == Framing::Length(0) { "" } else { "HTTP/1.1 100 Continue\r\n\r\n" };
                assert_eq!(String::from_utf8_lossy(&body.stream.received), expected);
                return Ok(text);
            }
            text += &String::from_utf8_lossy(&line);
        }
    }

    #[test]
    fn bodies_are_read_as_they_are_framed() {
        let golden = [
            (Framing::Length(0), "GET", ""),
            (Framing::Length(8), "1.2.3.4\nGET", "1.2.3.4\n"),
            (Framing::Length(7), "1.2.3.4", "1.2.3.4"),
            (Framing::Chunked, "0\r\n\r\n", ""),
            (Framing::Chunked, "5\r\n1.2.3\r\n3;x=y\r\n.4\n\r\n0\r\nTrailer: x\r\n\r\nGET", "1.2.3.4\n"),
            (Framing::Chunked, "A\r\n0123456789\r\n00\r\n\r\n", "0123456789"),
        ];
        for (framing, sent, expected) in golden {
            assert_eq!(read(framing, sent).unwrap_or_else(|e| panic!("{sent:?}: {e}")), expected, "{sent:?}");
        }
    }

    #[test]
    fn a_body_that_ends_too_early_or_is_framed_wrongly_is_none() {
        let golden = [
            (Framing::Length(8), "1.2.3.4", None),
            (Framing::Chunked, "", None),
            (Framing::Chunked, "5\r\n1.2", None),
            (Framing::Chunked, "5\r\n1.2.3\r\n", None),
            (Framing::Chunked, "5\r\n1.2.3\r\n0\r\n", None),
            (Framing::Chunked, "3\r\n1.2.3\r\n0\r\n\r\n", Some(400)),
            (Framing::Chunked, "x\r\n", Some(400)),
            (Framing::Chunked, "+5\r\n1.2.3\r\n0\r\n\r\n", Some(400)),
            (Framing::Chunked, "-1\r\n", Some(400)),
            (Framing::Chunked, "fffffffffffffffff\r\n", Some(400)),
            (Framing::Chunked, "1000001\r\n", Some(413)),
            (Framing::Length(BODY_MAX + 1), "x", Some(413)),
        ];
        for (framing, sent, status) in golden {
            assert_eq!(read(framing, sent).unwrap_err().status(), status, "{framing:?} {sent:?}");
        }
        assert_eq!(read(Framing::Chunked, &"1".repeat(2000)).unwrap_err().status(), Some(400));
    }

    #[test]
    fn a_line_is_given_in_parts_where_it_is_too_long() {
        let mut buffer = Buffer::default();
        let client = Client { sends: b"0123456789", received: Vec::new() };
        let mut body = Body::new(&mut buffer, client, Framing::Length(10), false);
        let mut line = Vec::new();
        body.read_line(&mut line, 7).unwrap();
        assert_eq!(line, b"0123456");
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in "[0-9a-f;\r\nx]*", length in 0u64..40) {
            let _ = read(Framing::Chunked, &bytes);
            let _ = read(Framing::Length(length), &bytes);
        }
    }
}
