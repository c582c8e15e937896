//! The body of a request (RFC 9112, 6 and 7): read in pieces while the client
//! sends them, never taken for whole when the connection ends too early.

use crate::http::connection::Connection;
use crate::http::message::{Buffer, Framing, HttpError};
use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

/// The largest body in bytes.
const BODY_MAX: u64 = 16 << 20;

/// How long one read or write may take.
const STEP_TIME: Duration = Duration::from_secs(5);

/// How long a whole body may take to come, or an answer to be taken.
const WHOLE_TIME: Duration = Duration::from_secs(60);

/// The longest line before a chunk in bytes, extensions included.
const CHUNK_LINE_MAX: usize = 1 << 10;

/// A connection on which something long has to keep moving.
pub struct Paced<'a> {
    connection: &'a mut Connection,
    until: Instant,
}

impl Paced<'_> {
    /// From now on.
    pub fn new(connection: &mut Connection) -> Paced<'_> {
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

/// A body that is being read.
pub struct Body<'a, S: Read + Write> {
    buffer: &'a mut Buffer,
    stream: S,
    state: State,
    chunked: bool,
    /// Whether the client waits to hear that the body is wanted.
    expects_continue: bool,
    /// What may still come before it is too much.
    room: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// So many bytes of the body or of a chunk are to come.
    Left(u64),
    /// The line before a chunk is to come.
    Between,
    /// The end of the line that a chunk ends with is to come.
    Behind,
    /// All has come.
    Ended,
}

impl<'a, S: Read + Write> Body<'a, S> {
    /// The body behind a head; what the buffer holds of it comes first.
    pub fn new(buffer: &'a mut Buffer, stream: S, framing: Framing, expects_continue: bool) -> Body<'a, S> {
        let state = match framing {
            Framing::Length(0) => State::Ended,
            Framing::Length(length) => State::Left(length),
            Framing::Chunked => State::Between,
        };
        let chunked = framing == Framing::Chunked;
        Body { buffer, stream, state, chunked, expects_continue, room: BODY_MAX }
    }

    /// Whether all of it has been read.
    pub fn is_ended(&self) -> bool {
        self.state == State::Ended
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.state == State::Ended && !self.chunked
    }

    /// Refuses a body that the client says beforehand is too large.
    ///
    /// # Errors
    /// It is.
    pub fn check_length(&self) -> Result<(), HttpError> {
        match self.state {
            State::Left(left) if left > self.room => Err(HttpError::BodyTooLarge(BODY_MAX)),
            _ => Ok(()),
        }
    }

    /// The next line with its end, at most `most` bytes of it; empty at the end.
    ///
    /// # Errors
    /// It does not come, or is framed wrongly.
    pub fn read_line(&mut self, line: &mut Vec<u8>, most: usize) -> Result<(), HttpError> {
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

    /// What is there of the body and not taken, at least one byte; `None` at its end.
    fn fill(&mut self) -> Result<Option<&[u8]>, HttpError> {
        loop {
            match self.state {
                State::Ended => return Ok(None),
                State::Between => self.begin_chunk()?,
                State::Behind => {
                    if self.line()? != b"\r\n" {
                        return Err(malformed("a chunk is longer than it says"));
                    }
                    self.state = State::Between;
                }
                State::Left(left) => {
                    if left > self.room {
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

    /// Marks bytes that [`Body::fill`] gave as read.
    fn take(&mut self, length: usize) {
        self.buffer.consume(length);
        let length = u64::try_from(length).unwrap_or(u64::MAX);
        self.room = self.room.saturating_sub(length);
        if let State::Left(left) = self.state {
            self.state = match left.saturating_sub(length) {
                0 if self.chunked => State::Behind,
                0 => State::Ended,
                left => State::Left(left),
            };
        }
    }

    /// Reads the size of the next chunk; behind the last, an empty one, there may be
    /// trailers, which mean nothing here.
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
                self.state = State::Left(size);
                Ok(())
            }
            _ => Err(malformed("no size of a chunk")),
        }
    }

    /// A line of the framing, its end included.
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

    /// Waits for more; its end is too early whenever it is asked for more.
    fn receive(&mut self) -> Result<(), HttpError> {
        if std::mem::take(&mut self.expects_continue) && self.buffer.bytes().is_empty() {
            let told = self.stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n");
            told.and_then(|()| self.stream.flush()).map_err(HttpError::from_io)?;
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

    /// What a client sends, a few bytes at a time, and what it is told.
    struct Client<'a> {
        sends: &'a [u8],
        told: Vec<u8>,
    }

    impl Read for Client<'_> {
        fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
            let length = bytes.len().min(3);
            self.sends.read(&mut bytes[..length])
        }
    }

    impl Write for Client<'_> {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.told.write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn read(framing: Framing, sent: &str) -> Result<String, HttpError> {
        let mut buffer = Buffer::default();
        let client = Client { sends: sent.as_bytes(), told: Vec::new() };
        let mut body = Body::new(&mut buffer, client, framing, true);
        let (mut text, mut line) = (String::new(), Vec::new());
        loop {
            body.read_line(&mut line, 1000)?;
            if line.is_empty() {
                assert!(body.is_ended());
                let told = if framing == Framing::Length(0) { "" } else { "HTTP/1.1 100 Continue\r\n\r\n" };
                assert_eq!(String::from_utf8_lossy(&body.stream.told), told);
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
        let client = Client { sends: b"0123456789", told: Vec::new() };
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
