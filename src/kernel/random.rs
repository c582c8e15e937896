//! Random numbers of the kernel (getrandom(2)).

use rustix::rand::{GetRandomFlags, getrandom};
use std::io;

/// A random number, fit for a name that nobody else has.
///
/// # Errors
/// The kernel has no randomness yet, which some moments after boot it has.
pub(crate) fn number() -> io::Result<u64> {
    let mut bytes = [0; 8];
    let length = getrandom(&mut bytes[..], GetRandomFlags::empty())?;
    match length == bytes.len() {
        true => Ok(u64::from_ne_bytes(bytes)),
        false => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn numbers_differ() {
        assert_ne!(super::number().unwrap(), super::number().unwrap());
    }
}
