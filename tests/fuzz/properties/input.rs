/// The bytes of an input, taken from the front; where there are none left, zeros.
pub(crate) struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    pub(crate) fn new(data: &'a [u8]) -> Input<'a> {
        Input(data)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn byte(&mut self) -> u8 {
        self.bytes(1).first().copied().unwrap_or(0)
    }

    pub(crate) fn u16(&mut self) -> u16 {
        u16::from_be_bytes([self.byte(), self.byte()])
    }

    pub(crate) fn u32(&mut self) -> u32 {
        u32::from(self.u16()) << 16 | u32::from(self.u16())
    }

    pub(crate) fn u64(&mut self) -> u64 {
        u64::from(self.u32()) << 32 | u64::from(self.u32())
    }

    /// The next bytes, at most so many.
    pub(crate) fn bytes(&mut self, length: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(length.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// The next bytes as text, at most so many.
    pub(crate) fn text(&mut self, length: usize) -> String {
        String::from_utf8_lossy(self.bytes(length)).into_owned()
    }

    /// All that is left.
    pub(crate) fn rest(self) -> &'a [u8] {
        self.0
    }
}

/// Bytes in pieces whose lengths follow from a number: the same number gives the same pieces.
pub(crate) fn pieces(mut bytes: &[u8], mut seed: u32) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        // A linear congruential generator; its upper bits are the better ones.
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let longest = [1, 4, 64, 4096][(seed >> 30) as usize];
        let length = ((seed >> 8) as usize % longest + 1).min(bytes.len());
        let (piece, rest) = bytes.split_at(length);
        bytes = rest;
        (!piece.is_empty()).then_some(piece)
    })
}
