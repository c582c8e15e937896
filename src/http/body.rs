//! Framing of a request body, by `Content-Length` or chunked transfer coding (RFC 9112, 6
//! and 7), taken from the bytes that have come so far. It does no I/O.

use crate::http::buffer::Buffer;
use crate::http::message::{Framing, HttpError};

/// Maximum size of a body in bytes, chunk framing excluded.
pub(crate) const BODY_MAX: u64 = 16 << 20;

/// Maximum length in bytes of a chunk-size line, extensions included, and of a trailer
/// line, without the LF.
const CHUNK_LINE_MAX: usize = 1 << 10;

/// Maximum number of lines of the trailer section, the empty one included.
const TRAILERS_MAX: u8 = 16;

/// How far a body has been taken.
#[derive(Debug)]
pub(crate) struct Body {
    state: State,
    chunked: bool,
    /// Bytes of the body that have been taken.
    taken: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Expects this many bytes of the body or of the current chunk.
    Data(u64),
    /// Expects a chunk-size line.
    ChunkSize,
    /// Expects the CRLF after the data of a chunk.
    ChunkEnd,
    /// Expects a line of the trailer section, after so many (RFC 9112, 7.1.2).
    Trailer(u8),
    /// The body is complete.
    Ended,
}

impl Body {
    /// A body that has not been begun.
    pub(crate) fn new(framing: Framing) -> Body {
        let state = match framing {
            Framing::Length(0) => State::Ended,
            Framing::Length(length) => State::Data(length),
            Framing::Chunked => State::ChunkSize,
        };
        Body { state, chunked: framing == Framing::Chunked, taken: 0 }
    }

    /// Whether the body has been taken to its end.
    pub(crate) fn is_ended(&self) -> bool {
        self.state == State::Ended
    }

    /// Whether the request has no body; an empty chunked body counts as one.
    pub(crate) fn is_empty(&self) -> bool {
        self.is_ended() && !self.chunked
    }

    /// Bytes of the body that have been taken.
    pub(crate) fn taken(&self) -> u64 {
        self.taken
    }

    /// Checks a declared `Content-Length` against [`BODY_MAX`], before any of the body is read.
    ///
    /// # Errors
    /// [`HttpError::BodyTooLarge`].
    pub(crate) fn check_length(&self) -> Result<(), HttpError> {
        match self.state {
            State::Data(left) if left > BODY_MAX.saturating_sub(self.taken) => {
                Err(HttpError::BodyTooLarge(BODY_MAX))
            }
            _ => Ok(()),
        }
    }

    /// How many bytes at the start of the buffer are of the body, after the framing before
    /// them is consumed; 0 means that more has to come, or that the body has ended.
    ///
    /// # Errors
    /// The body is too large, or its framing is malformed.
    pub(crate) fn available(&mut self, buffer: &mut Buffer) -> Result<usize, HttpError> {
        loop {
            if let State::Data(left) = self.state {
                self.check_length()?;
                let left = usize::try_from(left).unwrap_or(usize::MAX);
                return Ok(left.min(buffer.bytes().len()));
            }
            if self.is_ended() {
                return Ok(0);
            }
            let Some(line) = take_line(buffer)? else { return Ok(0) };
            self.state = self.after_line(&line)?;
        }
    }

    /// Consumes bytes of the body that [`Body::available`] has counted.
    pub(crate) fn take(&mut self, buffer: &mut Buffer, length: usize) {
        buffer.consume(length);
        let length = u64::try_from(length).unwrap_or(u64::MAX);
        self.taken = self.taken.saturating_add(length);
        if let State::Data(left) = self.state {
            self.state = match left.saturating_sub(length) {
                0 if self.chunked => State::ChunkEnd,
                0 => State::Ended,
                left => State::Data(left),
            };
        }
    }

    /// The state after a line of the framing.
    fn after_line(&self, line: &[u8]) -> Result<State, HttpError> {
        match self.state {
            State::ChunkEnd if line == b"\r\n" => Ok(State::ChunkSize),
            State::ChunkEnd => Err(malformed("a chunk is longer than it says")),
            State::Trailer(_) if line == b"\r\n" => Ok(State::Ended),
            State::Trailer(count) if count + 1 >= TRAILERS_MAX => Err(malformed("too many trailers")),
            State::Trailer(count) => Ok(State::Trailer(count + 1)),
            // httparse takes no digits at all for 0.
            State::ChunkSize if !line.first().is_some_and(u8::is_ascii_hexdigit) => {
                Err(malformed("no size of a chunk"))
            }
            State::ChunkSize => match httparse::parse_chunk_size(line) {
                Ok(httparse::Status::Complete((_, 0))) => Ok(State::Trailer(0)),
                Ok(httparse::Status::Complete((_, size))) => Ok(State::Data(size)),
                _ => Err(malformed("no size of a chunk")),
            },
            State::Data(_) | State::Ended => Ok(self.state),
        }
    }
}

/// Takes a line of the chunk framing, its line end included; `None` if it has not all come.
fn take_line(buffer: &mut Buffer) -> Result<Option<Vec<u8>>, HttpError> {
    let bytes = buffer.bytes();
    let end = bytes.iter().position(|byte| *byte == b'\n');
    if end.unwrap_or(bytes.len()) > CHUNK_LINE_MAX {
        return Err(malformed("a line before a chunk is too long"));
    }
    let Some(end) = end else { return Ok(None) };
    let line = bytes.get(..=end).unwrap_or_default().to_vec();
    buffer.consume(line.len());
    Ok(Some(line))
}

fn malformed(what: &str) -> HttpError {
    HttpError::Malformed(what.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Reads a body that comes in pieces of that length; `None` if it is cut off.
    fn read(framing: Framing, sent: &str, piece: usize) -> Result<Option<String>, HttpError> {
        let (mut body, mut buffer, mut text) = (Body::new(framing), Buffer::default(), Vec::new());
        for piece in sent.as_bytes().chunks(piece) {
            buffer.extend(piece);
            loop {
                let length = body.available(&mut buffer)?;
                if length == 0 {
                    break;
                }
                text.extend_from_slice(&buffer.bytes()[..length]);
                body.take(&mut buffer, length);
            }
        }
        body.available(&mut buffer)?;
        assert_eq!(body.taken(), text.len() as u64);
        Ok(body.is_ended().then(|| String::from_utf8_lossy(&text).into_owned()))
    }

    #[test]
    fn bodies_are_read_as_they_are_framed_in_whatever_pieces_they_come() {
        let golden = [
            (Framing::Length(0), "GET", ""),
            (Framing::Length(8), "1.2.3.4\nGET", "1.2.3.4\n"),
            (Framing::Length(7), "1.2.3.4", "1.2.3.4"),
            (Framing::Chunked, "0\r\n\r\n", ""),
            (Framing::Chunked, "5\r\n1.2.3\r\n3;x=y\r\n.4\n\r\n0\r\nTrailer: x\r\n\r\nGET", "1.2.3.4\n"),
            (Framing::Chunked, "A\r\n0123456789\r\n00\r\n\r\n", "0123456789"),
        ];
        for (framing, sent, expected) in golden {
            for piece in 1..=sent.len() {
                let text = read(framing, sent, piece).unwrap_or_else(|e| panic!("{sent:?}: {e}"));
                assert_eq!(text.as_deref(), Some(expected), "{sent:?} by {piece}");
            }
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
            (Framing::Chunked, "\r\n\r\n", Some(400)),
            (Framing::Chunked, ";x\r\n\r\n", Some(400)),
            (Framing::Chunked, " 5\r\n1.2.3\r\n0\r\n\r\n", Some(400)),
            (Framing::Chunked, "+5\r\n1.2.3\r\n0\r\n\r\n", Some(400)),
            (Framing::Chunked, "-1\r\n", Some(400)),
            (Framing::Chunked, "fffffffffffffffff\r\n", Some(400)),
            (Framing::Chunked, "1000001\r\n", Some(413)),
            (Framing::Length(BODY_MAX + 1), "x", Some(413)),
        ];
        for (framing, sent, status) in golden {
            for piece in 1..=sent.len().max(1) {
                match read(framing, sent, piece) {
                    Ok(text) => assert_eq!((text, status), (None, None), "{framing:?} {sent:?}"),
                    Err(error) => assert_eq!(error.status(), status, "{framing:?} {sent:?}"),
                }
            }
        }
        assert_eq!(read(Framing::Chunked, &"1".repeat(2000), 7).unwrap_err().status(), Some(400));
        for (length, status) in [(CHUNK_LINE_MAX, None), (CHUNK_LINE_MAX + 1, Some(400))] {
            let text = length - 1;
            for line in [format!("{:x<text$}\r\n", "0;"), format!("0\r\n{:x<text$}\r\n", "X:")] {
                for piece in [1, 7, line.len()] {
                    let error = read(Framing::Chunked, &line, piece).err();
                    assert_eq!(error.and_then(|error| error.status()), status, "{length} by {piece}");
                }
            }
        }
        let trailers = format!("0\r\n{}\r\n", "X: y\r\n".repeat(16));
        assert_eq!(read(Framing::Chunked, &trailers, 7).unwrap_err().status(), Some(400));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in "[0-9a-f;\r\nx]*", length in 0u64..40, piece in 1usize..9) {
            let _ = read(Framing::Chunked, &bytes, piece);
            let _ = read(Framing::Length(length), &bytes, piece);
        }
    }
}
