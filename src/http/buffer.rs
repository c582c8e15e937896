//! Bytes that come in at one end and are consumed at the other. Of what clients log in with, no copy
//! stays in memory that is freed.

use zeroize::Zeroize;

/// The capacity that an empty buffer may keep, in bytes: a connection that idles is small.
const KEPT: usize = 1 << 10;

/// Bytes, and how many of them at the start are consumed.
#[derive(Debug, Default)]
pub(crate) struct Buffer {
    bytes: Vec<u8>,
    consumed: usize,
    /// Whether what is not consumed may be secret.
    is_secret: bool,
}

impl Buffer {
    /// Whether all bytes are consumed.
    pub(crate) fn is_empty(&self) -> bool {
        self.bytes().is_empty()
    }

    /// The bytes that are not consumed.
    pub(crate) fn bytes(&self) -> &[u8] {
        self.bytes.get(self.consumed..).unwrap_or_default()
    }

    /// Appends bytes.
    pub(crate) fn extend(&mut self, bytes: &[u8]) {
        // Whoever pipelines can keep the buffer from ever being empty: without this,
        // consumed bytes accumulate.
        self.bytes.drain(..self.consumed);
        self.consumed = 0;
        self.bytes.extend_from_slice(bytes);
    }

    /// Appends bytes that may be secret: what is moved for them is wiped where it was.
    pub(crate) fn extend_secret(&mut self, bytes: &[u8]) {
        self.is_secret = true;
        let needed = self.bytes().len().saturating_add(bytes.len());
        if self.consumed == 0 && self.bytes.capacity() >= needed {
            return self.bytes.extend_from_slice(bytes);
        }
        let mut moved = Vec::with_capacity(needed);
        moved.extend_from_slice(self.bytes());
        moved.extend_from_slice(bytes);
        self.wipe();
        (self.bytes, self.consumed) = (moved, 0);
    }

    /// Consumes the first `length` bytes.
    pub(crate) fn consume(&mut self, length: usize) {
        self.consumed = self.consumed.saturating_add(length).min(self.bytes.len());
        if self.consumed == self.bytes.len() {
            self.clear();
        }
    }

    /// Consumes the first `length` bytes and wipes them, since they are secret.
    pub(crate) fn consume_secret(&mut self, length: usize) {
        let end = self.consumed.saturating_add(length).min(self.bytes.len());
        self.bytes.get_mut(self.consumed..end).unwrap_or_default().zeroize();
        self.consume(length);
    }

    /// Drops everything.
    pub(crate) fn clear(&mut self) {
        if self.is_secret {
            self.wipe();
        }
        self.bytes.clear();
        self.consumed = 0;
        if self.bytes.capacity() > KEPT {
            self.bytes = Vec::new();
        }
    }

    /// Wipes what is not consumed; of what is, the secret part was wiped then.
    fn wipe(&mut self) {
        self.bytes.get_mut(self.consumed..).unwrap_or_default().zeroize();
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_consumed_of_secret_bytes_is_gone_and_the_rest_stays() {
        let mut buffer = Buffer::default();
        buffer.extend_secret(b"secret");
        buffer.extend_secret(b" head and");
        assert_eq!(buffer.bytes(), b"secret head and");
        buffer.consume_secret(7);
        assert_eq!((buffer.bytes(), &buffer.bytes[..7]), (&b"head and"[..], &[0; 7][..]));
        buffer.extend_secret(&[b'x'; 100]);
        assert_eq!((buffer.consumed, buffer.bytes().len()), (0, 108));
        assert!(buffer.bytes().starts_with(b"head andxx"));
        buffer.wipe();
        assert_eq!(buffer.bytes(), [0; 108]);
        buffer.clear();
        assert!(buffer.is_empty());
    }
}
