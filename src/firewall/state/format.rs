//! The lines of the state file, printed and parsed. Pure; rfw(8) documents them.
//!
//! The first line tells whose file it is and in which boot and network namespace it was written. It
//! always has the same length, so that it can be written anew in its place. Each further line is a
//! change: an address put into a list, one taken out (`-`), or the beginning and end of all that a
//! list has in one place from then on. Of two lines about the same address and list, the later counts.

use crate::firewall::sets::NONCE;
use crate::kernel::set_key::SetKey;
use crate::rule::Rule;
use crate::rule::label::Label;
use crate::rule::lease::Moment;
use crate::rule::list_name::ListName;
use crate::rule::words::{self, Words, WordsError};
use std::fmt;

/// What the first line of every version begins with.
const KIND: &str = "rfw state ";

/// The version that this program writes and reads.
const VERSION: &str = "1";

/// The length of the first line in bytes, its line feed included.
pub(crate) const HEADER_LENGTH: usize = 128;

/// The boot and network namespace that a file was written in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Header {
    /// The kernel's number of the boot.
    pub boot: BootId,
    /// The nonce of the registry of sets; `None` where there is none.
    pub nonce: Option<Nonce>,
    /// When the file was written as a whole, or last taken over by a boot.
    pub written: Moment,
}

impl Header {
    /// Parses a first line, without its line feed.
    ///
    /// # Errors
    /// It is another program's, another version's, or not as rfw writes it.
    pub(crate) fn parse(line: &str) -> Result<Header, HeaderError> {
        let rest = line.strip_prefix(KIND).ok_or(HeaderError::Foreign)?;
        let mut words = rest.trim_end_matches(' ').split(' ');
        let version = words.next().unwrap_or_default();
        if version != VERSION {
            return Err(HeaderError::Version(version.chars().take(16).collect()));
        }
        let mut value = |name: &str| words.next()?.strip_prefix(name)?.strip_prefix('=');
        let malformed = HeaderError::Malformed;
        let boot = value("boot").and_then(BootId::parse).ok_or(malformed("boot"))?;
        let nonce = match value("nonce").ok_or(malformed("nonce"))? {
            "-" => None,
            name => Some(Nonce::parse(name).ok_or(malformed("nonce"))?),
        };
        let written = value("written").and_then(Moment::parse).ok_or(malformed("written"))?;
        match words.next() {
            None => Ok(Header { boot, nonce, written }),
            Some(_) => Err(malformed("end")),
        }
    }

    /// Whether both are of the same boot and network namespace.
    pub(crate) fn is_of_place(&self, other: &Header) -> bool {
        (&self.boot, &self.nonce) == (&other.boot, &other.nonce)
    }
}

impl fmt::Display for Header {
    /// The first line with its line feed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nonce = self.nonce.as_ref().map_or("-", |nonce| &nonce.0);
        let line = format!("{KIND}{VERSION} boot={} nonce={nonce} written={}", self.boot.0, self.written);
        writeln!(f, "{line:<width$}", width = HEADER_LENGTH - 1)
    }
}

/// The kernel's number of a boot (`/proc/sys/kernel/random/boot_id`, random(4)): 36 bytes of lower-case
/// hexadecimal digits and `-`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BootId(String);

impl BootId {
    /// Parses the number, without a line feed.
    pub(crate) fn parse(text: &str) -> Option<BootId> {
        let is_plain = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f' | b'-');
        (text.len() == 36 && text.bytes().all(is_plain)).then(|| BootId(text.to_owned()))
    }
}

/// The name of the registry's nonce.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Nonce(String);

impl Nonce {
    /// Parses the name of a member of the registry.
    pub(crate) fn parse(name: &str) -> Option<Nonce> {
        let digits = name.strip_prefix(NONCE)?;
        let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        (digits.len() == 16 && digits.bytes().all(is_digit)).then(|| Nonce(name.to_owned()))
    }
}

/// A line after the first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Line {
    /// An address is in a list: `drop input any 1.2.3.4 until 2026-11-27T07:00:00Z list tor by me: why`.
    Put(Rule, Label),
    /// It is not: `- drop input any 1.2.3.4 list tor`.
    Gone(Rule, ListName),
    /// Here begins all that a list has in one place: `begin inet drop input any any src list tor`.
    Begin(SetKey),
    /// There it ends: `end`.
    End,
}

impl Line {
    /// Parses a line, without its line feed.
    ///
    /// # Errors
    /// It is not as rfw writes it.
    pub(crate) fn parse(text: &str) -> Result<Line, LineError> {
        if text == "end" {
            return Ok(Line::End);
        }
        if let Some(place) = text.strip_prefix("begin ") {
            let section = SetKey::described(place).filter(|set| set.list().is_some());
            return section.map(Line::Begin).ok_or_else(|| LineError::Place(place.to_owned()));
        }
        match text.strip_prefix("- ") {
            Some(text) => {
                let (rule, rest) = words::parse(text)?;
                Ok(Line::Gone(rule, list_of(rest)?))
            }
            None => {
                let (rule, rest) = words::parse(text)?;
                Ok(Line::Put(rule, label_of(rest.unwrap_or_default())?))
            }
        }
    }
}

fn list_of(rest: Option<&str>) -> Result<ListName, LineError> {
    let Some(rest) = rest else { return Ok(ListName::UNNAMED) };
    let list = rest.strip_prefix("list ").and_then(|name| name.parse().ok());
    list.ok_or_else(|| LineError::Label(rest.to_owned()))
}

/// What an address has beside it, as in the comment of its rule.
fn label_of(rest: &str) -> Result<Label, LineError> {
    Label::from_comment(&format!("rfw {rest}")).ok_or_else(|| LineError::Label(rest.to_owned()))
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Line::Put(rule, label) => Put(rule, label).fmt(f),
            Line::Gone(rule, list) => Gone(rule, *list).fmt(f),
            Line::Begin(section) => Begin(section).fmt(f),
            Line::End => f.write_str("end"),
        }
    }
}

/// Prints [`Line::Put`].
pub(crate) struct Put<'a>(pub &'a Rule, pub &'a Label);

impl fmt::Display for Put<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let label = self.1.to_string();
        write!(f, "{} {}", Words(self.0), label.strip_prefix("rfw ").unwrap_or(&label))
    }
}

/// Prints [`Line::Gone`].
pub(crate) struct Gone<'a>(pub &'a Rule, pub ListName);

impl fmt::Display for Gone<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "- {}", Words(self.0))?;
        if self.1.is_named() { write!(f, " list {}", self.1) } else { Ok(()) }
    }
}

/// Prints [`Line::Begin`] of the section of a list.
pub(crate) struct Begin<'a>(pub &'a SetKey);

impl fmt::Display for Begin<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "begin {}", self.0.description())
    }
}

/// Why a first line is not one of this program's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HeaderError {
    /// It does not say that it is rfw's.
    #[error("its first line is not \"{KIND}{VERSION} ...\": it is not rfw's, or damaged")]
    Foreign,
    /// Another version.
    #[error("it has the version \"{}\": expected {VERSION}", .0.escape_debug())]
    Version(String),
    /// A part is missing, or not as it should be.
    #[error("its first line is damaged: \"{0}\" is not as rfw writes it")]
    Malformed(&'static str),
}

/// Why a line is not one of this program's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LineError {
    /// Not the words of a rule.
    #[error(transparent)]
    Words(#[from] WordsError),
    /// What stands behind the words of the rule.
    #[error("\"{}\" is not an end with list and reason", .0.escape_debug())]
    Label(String),
    /// Not the place of a list.
    #[error("\"{}\" is not the place of a list", .0.escape_debug())]
    Place(String),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden::cases;

    #[test]
    fn a_first_line_tells_boot_and_namespace() {
        for (at, [line, expected]) in cases("state-header.txt") {
            let read = match Header::parse(&line) {
                Ok(header) => {
                    let printed = header.to_string();
                    assert_eq!(printed.len(), HEADER_LENGTH, "{at}");
                    assert_eq!(Header::parse(printed.trim_end_matches('\n')), Ok(header.clone()), "{at}");
                    format!("{} {:?}", header.written.seconds(), header.nonce.map(|nonce| nonce.0))
                }
                Err(error) => error.to_string(),
            };
            assert_eq!(read, expected, "{at}");
        }
    }

    #[test]
    fn a_line_is_read_as_it_is_printed() {
        for (at, [line, expected]) in cases("state.txt") {
            match Line::parse(&line) {
                Ok(parsed) => {
                    assert_eq!(parsed.to_string(), line, "{at}");
                    assert_eq!(expected, "ok", "{at}");
                }
                Err(error) => assert_eq!(error.to_string(), expected, "{at}"),
            }
        }
    }
}
