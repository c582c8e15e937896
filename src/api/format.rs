//! The form of a listing: JSON, CSV for programs that read tables, or the bare addresses. A request
//! names it by the parameter `format`, or by the header `Accept` (RFC 9110, 12.5.1).

use crate::api::media;
use crate::http::answer::JSON;

/// The form of a listing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Format {
    /// An array of objects (RFC 8259), one a line.
    #[default]
    Json,
    /// A table with a row of names first (RFC 4180), whose lines end as those of other tools do.
    Csv,
    /// An address or network a line, as the body of a PUT has them.
    Plain,
}

impl Format {
    /// The forms of a listing of rows.
    pub(crate) const OF_ROWS: &[Format] = &[Format::Json, Format::Csv, Format::Plain];
    /// The forms of a listing of lists.
    pub(crate) const OF_LISTS: &[Format] = &[Format::Json, Format::Csv];

    /// As the parameter `format` names it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Format::Json => "json",
            Format::Csv => "csv",
            Format::Plain => "plain",
        }
    }

    /// The format of these that has that name.
    pub(super) fn parse(name: &str, of: &[Format]) -> Option<Format> {
        of.iter().copied().find(|format| format.name().eq_ignore_ascii_case(name))
    }

    /// The media type of an answer.
    pub(super) fn media_type(self) -> &'static str {
        match self {
            Format::Json => JSON,
            Format::Csv => "text/csv; charset=utf-8; header=present",
            Format::Plain => "text/plain; charset=utf-8",
        }
    }

    /// As the header `Accept` names it.
    fn range(self) -> &'static str {
        match self {
            Format::Json => JSON,
            Format::Csv => "text/csv",
            Format::Plain => "text/plain",
        }
    }

    /// The format of these that a header `Accept` prefers; JSON, if none.
    pub(super) fn accepted(accept: &str, of: &[Format]) -> Format {
        let others = of.iter().map(|format| format.range()).filter(|range| *range != JSON);
        let preferred = media::preferred(accept, JSON, others);
        of.iter().copied().find(|format| format.range() == preferred).unwrap_or_default()
    }
}

/// Appends a field of CSV, in quotation marks where it needs them (RFC 4180, 2).
pub(super) fn push_csv(text: &mut String, field: &str) {
    if field.contains([',', '"', '\r', '\n']) {
        text.push('"');
        text.push_str(&field.replace('"', "\"\""));
        text.push('"');
    } else {
        text.push_str(field);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_gets_the_form_that_it_prefers() {
        let browser = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
        let golden = [
            ("", Format::Json),
            ("*/*", Format::Json),
            ("text/csv", Format::Csv),
            ("text/plain; charset=utf-8, */*;q=0.1", Format::Plain),
            ("text/*", Format::Csv),
            ("image/png", Format::Json),
            (browser, Format::Json),
        ];
        for (accept, expected) in golden {
            assert_eq!(Format::accepted(accept, Format::OF_ROWS), expected, "{accept}");
        }
        assert_eq!(Format::accepted("text/plain", Format::OF_LISTS), Format::Json);
    }

    #[test]
    fn a_field_is_quoted_where_it_has_to_be() {
        let golden = [
            ("", ""),
            ("port scan", "port scan"),
            ("a,b", "\"a,b\""),
            ("say \"hi\"", "\"say \"\"hi\"\"\""),
            ("a\nb", "\"a\nb\""),
            ("=1+1;k\u{e4}se", "=1+1;k\u{e4}se"),
        ];
        for (field, expected) in golden {
            let mut text = String::new();
            push_csv(&mut text, field);
            assert_eq!(text, expected);
        }
    }

    #[test]
    fn a_format_has_a_name() {
        let named = |name| Format::parse(name, Format::OF_ROWS);
        assert_eq!(["json", "CSV", "Plain"].map(named), [Format::Json, Format::Csv, Format::Plain].map(Some));
        assert_eq!(["", "xml", "text/csv"].map(named), [None; 3]);
        assert_eq!(Format::parse("plain", Format::OF_LISTS), None);
    }
}
