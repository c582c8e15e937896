//! A listing as a JSON array (RFC 8259), one row a line, generated while it is sent so that
//! memory is bounded. The columns are those of `iptables -nvxL`, under the keys of the
//! original rfw, in alphabetical order.

use crate::firewall::listing::{Listing, Row};
use crate::firewall::{self, FirewallError};
use crate::rule::Target;
use crate::rule::lease::Moment;
use crate::rule::network::Family;
use serde_json::json;
use std::fmt::Write;
use std::io::{self, Read};

/// Generated text in bytes, at least, before it is handed on.
const PART: usize = 16 << 10;

/// The rows of a listing.
pub(super) struct Rows {
    listing: Option<Listing>,
    writer: RowWriter,
    /// Generated text that is not yet read.
    text: io::Cursor<Vec<u8>>,
}

impl Rows {
    /// Generates the first row, so that an error up to there still gets its own status code.
    ///
    /// # Errors
    /// A table or a set can't be read.
    pub(super) fn begin(mut listing: Listing) -> Result<Rows, FirewallError> {
        let (mut writer, mut text) = (RowWriter::default(), String::new());
        let listing = match listing.next_row()? {
            Some(first) => {
                text.push_str("[\n");
                writer.write(&mut text, &first);
                Some(listing)
            }
            None => {
                text.push_str("[]\n");
                None
            }
        };
        Ok(Rows { listing, writer, text: io::Cursor::new(text.into_bytes()) })
    }

    /// Generates the next rows; nothing after the last. After an error the array stays
    /// unclosed, so that the JSON is invalid: the status code is already sent.
    fn generate(&mut self) -> Option<String> {
        let mut text = String::with_capacity(PART.saturating_mul(2));
        while text.len() < PART {
            let Some(listing) = self.listing.as_mut() else { break };
            match listing.next_row() {
                Ok(Some(next)) => {
                    text.push_str(",\n");
                    self.writer.write(&mut text, &next);
                }
                Ok(None) => {
                    self.listing = None;
                    text.push_str("\n]\n");
                }
                Err(error) => {
                    self.listing = None;
                    log::error!("a list ends too early: {error}");
                    // Writing to a string can't fail.
                    let _ = writeln!(text, "\n{}", json!({ "error": error.to_string() }));
                }
            }
        }
        Some(text).filter(|text| !text.is_empty())
    }
}

impl Read for Rows {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        loop {
            let length = self.text.read(bytes)?;
            if length > 0 || bytes.is_empty() {
                return Ok(length);
            }
            match self.generate() {
                Some(text) => self.text = io::Cursor::new(text.into_bytes()),
                None => return Ok(0),
            }
        }
    }
}

/// Writes rows. No value has a character that JSON escapes: numbers, addresses, names of
/// chains and targets, and interfaces, which consist of letters, digits and `.-_@:+`.
#[derive(Default)]
struct RowWriter {
    /// The last end and its text, since the entries of a list end together.
    end: Option<(Moment, String)>,
}

impl RowWriter {
    fn write(&mut self, text: &mut String, row: &Row) {
        let (scope, family) = (row.rule.scope(), row.rule.family());
        let reject = match (scope.target(), family) {
            (Target::Reject, Family::V4) => " reject-with icmp-port-unreachable",
            (Target::Reject, Family::V6) => " reject-with icmp6-port-unreachable",
            (Target::Accept | Target::Drop, _) => "",
        };
        let pattern = |interface: Option<&crate::rule::Interface>| {
            interface.map_or_else(|| "*".to_owned(), crate::rule::Interface::pattern)
        };
        let (input, output) = (pattern(scope.input_interface()), pattern(scope.output_interface()));
        let source = firewall::printed(row.rule.source(), family);
        let destination = firewall::printed(row.rule.destination(), family);
        let (chain, target) = (scope.chain().name(), scope.target().name());
        let (packets, bytes, number) = (row.counters.packets, row.counters.bytes, row.number);
        // Writing to a string can't fail.
        let _ =
            write!(text, "{{\"bytes\":\"{bytes}\",\"chain\":\"{chain}\",\"destination\":\"{destination}\",");
        text.push_str("\"expires\":");
        match row.lease.end() {
            Some(end) => drop(write!(text, "\"{}\"", self.end_text(end))),
            None => text.push_str("null"),
        }
        let _ = match &row.set {
            Some(set) => write!(text, ",\"extra\":\"match-set {set}{reject}\""),
            None => write!(text, ",\"extra\":\"/* {} */{reject}\"", row.lease),
        };
        let _ = write!(
            text,
            ",\"inp\":\"{input}\",\"num\":\"{number}\",\"opt\":\"--\",\"out\":\"{output}\",\
             \"pkts\":\"{packets}\",\"prot\":\"all\",\"source\":\"{source}\",\"target\":\"{target}\"}}"
        );
    }

    fn end_text(&mut self, end: Moment) -> &str {
        if self.end.as_ref().is_none_or(|(last, _)| *last != end) {
            self.end = Some((end, end.to_string()));
        }
        self.end.as_ref().map_or("", |(_, text)| text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::Counters;
    use crate::rule::lease::{Interval, Lease};
    use crate::rule::rule_of;

    #[test]
    fn rows_are_json_with_the_keys_in_order() {
        let counters = Counters { packets: 7, bytes: 420 };
        let until = Interval::of_seconds(60).from(std::time::UNIX_EPOCH);
        let golden = [
            (
                Row {
                    number: 3,
                    counters,
                    rule: rule_of("/drop/input/eth/1.2.3.4"),
                    lease: until,
                    set: None,
                },
                r#"{"bytes":"420","chain":"INPUT","destination":"0.0.0.0/0","expires":"1970-01-01T00:01:00Z","extra":"/* rfw until 1970-01-01T00:01:00Z */","inp":"eth+","num":"3","opt":"--","out":"*","pkts":"7","prot":"all","source":"1.2.3.4","target":"DROP"}"#,
            ),
            (
                Row {
                    number: 1,
                    counters,
                    rule: rule_of("/reject/output/any/2001:db8::/32"),
                    lease: Lease::Permanent,
                    set: Some("rfw6-ord".to_owned()),
                },
                r#"{"bytes":"420","chain":"OUTPUT","destination":"2001:db8::/32","expires":null,"extra":"match-set rfw6-ord reject-with icmp6-port-unreachable","inp":"*","num":"1","opt":"--","out":"*","pkts":"7","prot":"all","source":"::/0","target":"REJECT"}"#,
            ),
        ];
        for (row, expected) in golden {
            let mut text = String::new();
            RowWriter::default().write(&mut text, &row);
            assert_eq!(text, expected);
            assert!(serde_json::from_str::<serde_json::Value>(&text).is_ok());
        }
    }
}
