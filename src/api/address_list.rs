//! An address list in a request body, in the formats in which block lists are published:
//! one address or network a line, with comments.

use crate::http::message::HttpError;
use crate::rule::network::{Network, NetworkError};
use crate::rule::note::Reason;
use crate::rule::rights::MissingRight;
use std::collections::{HashMap, HashSet};

/// Maximum length of a line in bytes, line end included.
const LINE_MAX: usize = 1 << 10;

/// Maximum number of skipped lines that an answer lists; further ones are only counted.
const SKIPPED_MAX: usize = 100;

/// The addresses of a list, in ascending order and without duplicates.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct List {
    /// The networks to insert or delete.
    pub networks: Vec<Network>,
    /// The reasons of those whose lines have one, where reasons are asked for; of an address that comes
    /// several times, what its last line has.
    pub reasons: HashMap<Network, Reason>,
    /// The first [`SKIPPED_MAX`] that may not be changed.
    pub skipped: Vec<Skipped>,
    /// The number of all that may not be changed.
    pub skipped_total: usize,
}

/// A line whose address may not be changed: white-listed, or not valid in the scope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Skipped {
    /// The line number, counted from 1.
    pub line: usize,
    /// The address.
    pub address: Network,
    /// The reason, as the answer gives it.
    pub reason: String,
}

/// Why an address of a list does not go in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Forbidden {
    /// It is passed over, for that reason.
    Skipped(String),
    /// The client lacks a right, and nothing of the list goes in.
    Refused(MissingRight),
}

/// A list that is read as it comes.
#[derive(Debug, Default)]
pub(crate) struct ListReader {
    /// Whether the comments of lines are reasons.
    keeps_reasons: bool,
    /// Whether a list of which all is skipped is refused.
    is_replacement: bool,
    /// Whether it is sent as a form.
    is_form: bool,
    list: List,
    /// Addresses that are skipped.
    skipped: HashSet<Network>,
    /// The number of lines that are read.
    lines: usize,
    /// Whether the first line has no end, so that it is all there is.
    lacks_ends: bool,
    /// The beginning of the next one.
    line: Vec<u8>,
}

impl ListReader {
    /// A reader of a list of which nothing has come. It may keep the comments of lines as reasons; of a
    /// list that takes the place of another, something has to be left.
    pub(crate) fn new(keeps_reasons: bool, is_replacement: bool) -> ListReader {
        ListReader { keeps_reasons, is_replacement, ..ListReader::default() }
    }

    /// Says whether the list is sent as a form, whose line ends may have been taken away.
    pub(crate) fn set_form(&mut self, is_form: bool) {
        self.is_form = is_form;
    }

    /// Reads the next bytes; `forbidden` returns why an address does not go in.
    ///
    /// # Errors
    /// The first line that is not an address, or that the client has no right to. The list is then
    /// rejected as a whole.
    pub(crate) fn take(
        &mut self,
        bytes: &[u8],
        forbidden: impl Fn(&Network) -> Option<Forbidden>,
    ) -> Result<(), ListError> {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            let whole = part.ends_with(b"\n");
            if whole && self.line.is_empty() {
                self.read_line(part, &forbidden)?;
                continue;
            }
            let room = LINE_MAX.saturating_sub(self.line.len());
            self.line.extend_from_slice(part.get(..room).unwrap_or(part));
            if whole || self.line.len() >= LINE_MAX {
                let line = std::mem::take(&mut self.line);
                self.read_line(&line, &forbidden)?;
            }
        }
        Ok(())
    }

    /// Reads what is left at the end.
    ///
    /// # Errors
    /// As with [`ListReader::take`], or a list without any address; of a replacement, without one that
    /// is not skipped.
    pub(crate) fn end(&mut self, forbidden: impl Fn(&Network) -> Option<Forbidden>) -> Result<(), ListError> {
        let line = std::mem::take(&mut self.line);
        if !line.is_empty() {
            self.read_line(&line, &forbidden)?;
        }
        self.list.sort();
        match (self.list.networks.is_empty(), self.skipped.is_empty()) {
            (true, true) => Err(self.with_hint(ListError::Empty)),
            (true, false) if self.is_replacement => Err(ListError::AllSkipped(self.list.skipped_total)),
            _ => Ok(()),
        }
    }

    /// The list that has been read.
    pub(crate) fn into_list(self) -> List {
        self.list
    }

    fn read_line(
        &mut self,
        line: &[u8],
        forbidden: &impl Fn(&Network) -> Option<Forbidden>,
    ) -> Result<(), ListError> {
        self.lines = self.lines.saturating_add(1);
        // Of a longer line the rest may not have come yet.
        self.lacks_ends = self.lines == 1 && !line.get(..LINE_MAX).unwrap_or(line).ends_with(b"\n");
        let whole = line.len() < LINE_MAX || line.len() == LINE_MAX && line.ends_with(b"\n");
        let text = str::from_utf8(line).ok().filter(|_| whole);
        let address = text.ok_or(NOT_AN_ADDRESS).and_then(parse_line);
        let address =
            address.map_err(|what| self.with_hint(ListError::Line(self.lines, quoted(line), what)))?;
        let Some((address, comment)) = address else { return Ok(()) };
        match forbidden(&address) {
            None => {
                self.list.take(address);
                if self.keeps_reasons {
                    self.list.take_reason(address, comment.and_then(Reason::cut));
                }
            }
            Some(Forbidden::Refused(right)) => return Err(ListError::Right(self.lines, right)),
            Some(Forbidden::Skipped(reason)) if self.skipped.insert(address) => {
                self.list.skip(self.lines, address, reason);
            }
            Some(_) => {}
        }
        Ok(())
    }

    /// An error, with what is likely to be its cause where a form has one line.
    fn with_hint(&self, error: ListError) -> ListError {
        if self.is_form && self.lacks_ends { ListError::Glued(Box::new(error)) } else { error }
    }
}

impl List {
    /// Takes an address. Where there is no room for it, duplicates go first: a list takes no more
    /// memory than its distinct addresses need.
    fn take(&mut self, address: Network) {
        if self.networks.len() == self.networks.capacity() {
            self.sort();
        }
        self.networks.push(address);
    }

    fn take_reason(&mut self, address: Network, reason: Option<Reason>) {
        match reason {
            Some(reason) => drop(self.reasons.insert(address, reason)),
            None => drop(self.reasons.remove(&address)),
        }
    }

    fn sort(&mut self) {
        self.networks.sort_unstable();
        self.networks.dedup();
    }

    fn skip(&mut self, line: usize, address: Network, reason: String) {
        self.skipped_total += 1;
        if self.skipped.len() < SKIPPED_MAX {
            self.skipped.push(Skipped { line, address, reason });
        }
    }
}

/// The common reason to reject a line.
const NOT_AN_ADDRESS: &str = "is not an address or network";

/// Parses a line: an address or network, an optional number (ipsum lists have a count there),
/// and an optional comment from `#` or `;`; `None` if it has no address. White space is that of ASCII. The
/// error is a predicate for [`ListError::Line`].
fn parse_line(line: &str) -> Result<Option<(Network, Option<&str>)>, &'static str> {
    let (text, comment) = match line.split_once(['#', ';']) {
        Some((text, comment)) => (text, Some(comment)),
        None => (line, None),
    };
    let mut words = text.split_ascii_whitespace();
    let Some(address) = words.next() else { return Ok(None) };
    let network = address.parse().map_err(|error| match error {
        NetworkError::Prefix(..) | NetworkError::Mapped(_) => "has no proper mask",
        NetworkError::Address(_) | NetworkError::Range(_) => NOT_AN_ADDRESS,
    })?;
    let number = |word: &str| word.bytes().all(|byte| byte.is_ascii_digit());
    match (words.next(), words.next()) {
        (None, _) => Ok(Some((network, comment))),
        (Some(word), None) if number(word) => Ok(Some((network, comment))),
        _ => Err(NOT_AN_ADDRESS),
    }
}

/// A line as an error quotes it: at most 80 characters, `…` if shortened.
fn quoted(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    let text = text.trim_end_matches(['\r', '\n']);
    let start: String = text.chars().take(80).collect();
    if start.len() < text.len() { start + "…" } else { start }
}

/// Error in reading an address list.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ListError {
    /// An invalid line: its number, its text, and why it is rejected.
    #[error("line {0}: \"{text}\" {2}; nothing was changed", text = .1.escape_debug())]
    Line(usize, String, &'static str),
    /// The client has no right to a line of that number.
    #[error("line {0}: {1}; nothing was changed")]
    Right(usize, MissingRight),
    /// The list has no address.
    #[error("no address: expected one in the path, or a body with one address or network a line")]
    Empty,
    /// An error of a list that was sent as a form without any line end, as `curl -d @list` does.
    #[error("{0}: curl -d takes line ends away, --data-binary and -T keep them")]
    Glued(Box<ListError>),
    /// All addresses of a list that is to take the place of another are skipped: their number.
    #[error("none of the {0} addresses can be used, so that nothing would be left: nothing was changed")]
    AllSkipped(usize),
    /// The body can't be read.
    #[error(transparent)]
    Http(#[from] HttpError),
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    use crate::golden::cases;

    /// Reads a list as a whole, and in pieces of some lengths, which is to be the same.
    fn read(text: &[u8]) -> Result<List, ListError> {
        let whole = read_by(text, text.len().max(1));
        for length in [1, 2, 3, 7, 1000] {
            let in_pieces = read_by(text, length);
            assert_eq!(format!("{in_pieces:?}"), format!("{whole:?}"), "by {length}");
        }
        whole
    }

    fn read_by(text: &[u8], length: usize) -> Result<List, ListError> {
        let wide =
            |network: &Network| (network.prefix() < 9).then(|| Forbidden::Skipped("too wide".to_owned()));
        let mut reader = ListReader::default();
        text.chunks(length).try_for_each(|piece| reader.take(piece, wide))?;
        reader.end(wide)?;
        Ok(reader.into_list())
    }

    #[test]
    fn lines_are_read_as_feeds_have_them() {
        let golden = [
            ("1.2.3.4", "1.2.3.4"),
            ("1.2.3.4\n", "1.2.3.4"),
            ("1.2.3.4\r\n5.6.7.0/24\r\n", "1.2.3.4 5.6.7.0/24"),
            ("# ipsum\n#\n\n1.2.3.4\t10\n5.6.7.8 3\n", "1.2.3.4 5.6.7.8"),
            ("1.10.16.0/20 ; SBL256894\n; end", "1.10.16.0/20"),
            ("  1.2.3.4  # why\n", "1.2.3.4"),
            ("1.2.3.4\n1.2.3.4/32\n::ffff:1.2.3.4\n", "1.2.3.4"),
            ("2001:db8::1\n1.2.3.4\n2001:db8::/32", "1.2.3.4 2001:db8::/32 2001:db8::1"),
            ("1.2.3.77/24", "1.2.3.0/24"),
        ];
        for (text, expected) in golden {
            let list = read(text.as_bytes()).unwrap_or_else(|error| panic!("{text:?}: {error}"));
            let networks: Vec<String> = list.networks.iter().map(Network::to_string).collect();
            assert_eq!(networks.join(" "), expected, "{text:?}");
        }
    }

    #[test]
    fn a_line_that_is_no_address_refuses_the_list() {
        let long = format!("1.2.3.4\n{}", "x".repeat(2000));
        for (at, [text, message]) in cases("list-refused.txt") {
            assert_eq!(read(text.as_bytes()).unwrap_err().to_string(), message, "{at}");
        }
        // Not UTF-8, or longer than a line of the golden table.
        let no_text = b"1.2.3.4\n\xff\xfe\n".as_slice();
        for (text, shown) in
            [(no_text, "\u{fffd}\u{fffd}".to_owned()), (long.as_bytes(), "x".repeat(80) + "…")]
        {
            let message = format!("line 2: \"{shown}\" is not an address or network; nothing was changed");
            assert_eq!(read(text).unwrap_err().to_string(), message);
        }
    }

    #[test]
    fn a_hint_is_the_same_in_whatever_pieces_a_form_comes() {
        let text = format!("1.2.3.4{}\n1.2.3.5\n", " ".repeat(LINE_MAX));
        let read = |length: usize| {
            let mut reader = ListReader::default();
            reader.set_form(true);
            let error = text.as_bytes().chunks(length).try_for_each(|piece| reader.take(piece, |_| None));
            error.unwrap_err().to_string()
        };
        assert_eq!(read(text.len()), read(7));
        assert!(read(7).contains("curl -d"));
    }

    #[test]
    fn what_policy_forbids_is_passed_over_and_told() {
        let list = read(b"0.0.0.0/8\n1.2.3.4\n127.0.0.0/8\n").unwrap();
        assert_eq!(list.networks.len(), 1);
        let skipped: Vec<_> =
            list.skipped.iter().map(|s| (s.line, s.address.to_string(), s.reason.as_str())).collect();
        assert_eq!(
            skipped,
            [(1, "0.0.0.0/8".to_owned(), "too wide"), (3, "127.0.0.0/8".to_owned(), "too wide")]
        );
        let many: String = (0..150).map(|n| format!("{n}.0.0.0/8\n")).collect();
        let list = read(many.as_bytes()).unwrap();
        assert_eq!((list.networks.len(), list.skipped.len(), list.skipped_total), (0, 100, 150));
    }

    #[test]
    fn comments_are_reasons_where_they_are_asked_for() {
        let text = "1.2.3.4 # lfd: (sshd) \"root\"\r\n1.2.3.5 2;SBL1 # x\n1.2.3.6 #\n1.2.3.7\n# none\n\
            1.2.3.8 # first\n1.2.3.8 # last\n1.2.3.9 # first\n1.2.3.9\n0.0.0.0/8 # skipped\n";
        let expected = [("1.2.3.4", "lfd: (sshd) 'root'"), ("1.2.3.5", "SBL1 # x"), ("1.2.3.8", "last")];
        let reasons = |keeps: bool| {
            let wide =
                |network: &Network| (network.prefix() < 9).then(|| Forbidden::Skipped("too wide".to_owned()));
            let mut reader = ListReader::new(keeps, false);
            text.as_bytes().chunks(5).try_for_each(|piece| reader.take(piece, wide)).unwrap();
            reader.end(wide).unwrap();
            let list = reader.into_list();
            assert_eq!((list.networks.len(), list.skipped_total), (6, 1));
            list.reasons
        };
        let expected =
            expected.map(|(address, reason)| (address.parse().unwrap(), Reason::cut(reason).unwrap()));
        assert_eq!(reasons(true), HashMap::from(expected));
        assert_eq!(reasons(false), HashMap::new());
    }

    #[test]
    fn of_a_replacement_something_has_to_be_left() {
        let read = |text: &str| {
            let wide =
                |network: &Network| (network.prefix() < 9).then(|| Forbidden::Skipped("too wide".to_owned()));
            let mut reader = ListReader::new(false, true);
            reader.take(text.as_bytes(), wide)?;
            reader.end(wide)
        };
        let message =
            "none of the 2 addresses can be used, so that nothing would be left: nothing was changed";
        assert_eq!(read("0.0.0.0/8\n10.0.0.0/8\n").unwrap_err().to_string(), message);
        assert!(matches!(read("# none\n"), Err(ListError::Empty)));
        assert!(read("0.0.0.0/8\n1.2.3.4\n").is_ok());
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes: Vec<u8>, text in "[0-9a-f.:/#; \t\r\n]*") {
            let _ = read(&bytes);
            let _ = read(text.as_bytes());
        }
    }
}
