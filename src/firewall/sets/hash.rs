//! The hash of the tables of [`super::mirror`], which are looked up for each address of a body and of
//! each list: a multiplication a word, where the hash of the standard library takes some 20 ns. Its key
//! is random, so that no list can be made to collide.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};

/// An odd number without a pattern: 2^64 divided by the golden ratio.
const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;

/// What makes hashers of one random key.
#[derive(Debug, Clone, Copy)]
pub(super) struct FastHash {
    key: u64,
    factor: u64,
}

impl Default for FastHash {
    fn default() -> FastHash {
        let random = RandomState::new();
        FastHash { key: random.hash_one(0), factor: random.hash_one(1) | 1 }
    }
}

impl BuildHasher for FastHash {
    type Hasher = FastHasher;

    fn build_hasher(&self) -> FastHasher {
        FastHasher { state: self.key, factor: self.factor }
    }
}

/// The hash of one value.
#[derive(Debug)]
pub(super) struct FastHasher {
    state: u64,
    factor: u64,
}

impl Hasher for FastHasher {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word.iter_mut().zip(chunk).for_each(|(to, from)| *to = *from);
            self.write_u64(u64::from_le_bytes(word));
        }
    }

    fn write_u8(&mut self, number: u8) {
        self.write_u64(u64::from(number));
    }

    fn write_u64(&mut self, number: u64) {
        self.state = fold(self.state ^ number, self.factor);
    }

    fn finish(&self) -> u64 {
        fold(self.state, FACTOR)
    }
}

/// Both halves of a product, one laid over the other: each bit of it depends on all before.
fn fold(one: u64, other: u64) -> u64 {
    let product = u128::from(one) * u128::from(other);
    let half = |bits: u128| u64::try_from(bits & u128::from(u64::MAX)).unwrap_or_default();
    half(product) ^ half(product >> 64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn near_values_are_spread_over_low_and_high_bits() {
        let hash = FastHash::default();
        let hashes: Vec<u64> = (0..65_536_u64).map(|number| hash.hash_one(number << 8 | 32)).collect();
        // As many as of random numbers, a share of 1 - 1/e = 0.63, or more.
        for shift in [0, 48] {
            let places: HashSet<u64> = hashes.iter().map(|hash| hash >> shift & 0xffff).collect();
            assert!(places.len() > 36_000, "{} of bits from {shift}", places.len());
        }
    }

    #[test]
    fn equal_values_of_one_key_have_one_hash_and_others_another() {
        let (one, other) = (FastHash::default(), FastHash::default());
        assert_eq!(one.hash_one("1.2.3.0/24"), one.hash_one("1.2.3.0/24"));
        assert_ne!(one.hash_one("1.2.3.0/24"), one.hash_one("1.2.3.0/25"));
        assert_ne!(one.hash_one("1.2.3.0/24"), other.hash_one("1.2.3.0/24"));
    }
}
