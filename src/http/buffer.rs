//! Bytes that come in at one end and are consumed at the other.

use zeroize::Zeroize;

/// The capacity that an empty buffer may keep, in bytes: a connection that idles is small.
const KEPT: usize = 1 << 10;

/// Bytes, and how many of them at the start are consumed.
#[derive(Debug, Default)]
pub(crate) struct Buffer {
    bytes: Vec<u8>,
    consumed: usize,
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
        self.bytes.clear();
        self.consumed = 0;
        if self.bytes.capacity() > KEPT {
            self.bytes = Vec::new();
        }
    }
}
