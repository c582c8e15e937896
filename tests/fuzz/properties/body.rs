use super::input::{Input, pieces};
use crate::http::body::{BODY_MAX, Body};
use crate::http::buffer::Buffer;
use crate::http::message::Framing;

/// Input: how long the body is said to be, 0 for chunks; a number for the pieces; what is sent.
pub(super) fn holds(data: &[u8]) {
    let mut input = Input::new(data);
    let framing = match input.u16() {
        0 => Framing::Chunked,
        65_535 => Framing::Length(input.u64()),
        length => Framing::Length(length.into()),
    };
    let seed = input.u32();
    let sent = input.rest();
    let whole = read(framing, [sent].into_iter());
    assert_eq!(read(framing, pieces(sent, seed)), whole);
    assert_eq!(read(framing, sent.chunks(7)), whole);
    let Read { text, left: Some(left), error: None } = whole else { return };
    assert!(text.len() as u64 <= BODY_MAX && text.len() + left.len() <= sent.len());
    assert!(sent.ends_with(&left));
    if framing == Framing::Chunked {
        assert_eq!(decode(sent), Some((text.clone(), left.as_slice())));
        let again = read(framing, [chunks(&text, seed).as_slice()].into_iter());
        assert_eq!((again.text, again.left, again.error), (text, Some(Vec::new()), None));
    }
}

/// What a body was.
#[derive(Debug, PartialEq, Eq)]
struct Read {
    text: Vec<u8>,
    /// What follows it; nothing if it is not whole.
    left: Option<Vec<u8>>,
    error: Option<String>,
}

fn read<'a>(framing: Framing, pieces: impl Iterator<Item = &'a [u8]>) -> Read {
    let (mut body, mut buffer, mut text) = (Body::new(framing), Buffer::default(), Vec::new());
    for piece in pieces {
        buffer.extend(piece);
        loop {
            let length = match body.available(&mut buffer) {
                Ok(0) => break,
                Ok(length) => length,
                Err(error) => return Read { text, left: None, error: Some(error.to_string()) },
            };
            text.extend_from_slice(&buffer.bytes()[..length]);
            body.take(&mut buffer, length);
            assert_eq!(body.taken(), text.len() as u64);
        }
    }
    if let Err(error) = body.available(&mut buffer) {
        return Read { text, left: None, error: Some(error.to_string()) };
    }
    Read { text, left: body.is_ended().then(|| buffer.bytes().to_vec()), error: None }
}

/// What chunks hold of which all have come, and what follows them, read in another way (RFC 9112, 7.1.3).
fn decode(sent: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let (mut text, mut rest) = (Vec::new(), sent);
    loop {
        let digits = rest.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        let size = usize::from_str_radix(str::from_utf8(&rest[..digits]).ok()?, 16).ok()?;
        rest = rest.split_at_checked(rest.iter().position(|byte| *byte == b'\n')? + 1)?.1;
        if size == 0 {
            break;
        }
        let (chunk, behind) = rest.split_at_checked(size)?;
        text.extend_from_slice(chunk);
        rest = behind.strip_prefix(b"\r\n")?;
    }
    while !rest.starts_with(b"\r\n") {
        rest = rest.split_at_checked(rest.iter().position(|byte| *byte == b'\n')? + 1)?.1;
    }
    Some((text, &rest[2..]))
}

/// A text in chunks.
fn chunks(text: &[u8], seed: u32) -> Vec<u8> {
    let mut sent = Vec::new();
    for piece in pieces(text, seed) {
        sent.extend_from_slice(format!("{:X};a=b\r\n", piece.len()).as_bytes());
        sent.extend_from_slice(piece);
        sent.extend_from_slice(b"\r\n");
    }
    sent.extend_from_slice(b"0\r\nTrailer: x\r\n\r\n");
    sent
}
