//! Which of several media types a client prefers: content negotiation by the header `Accept` (RFC 9110,
//! 12.5.1).

/// How much a client wants something, in thousandths.
type Quality = u16;

/// Of the types that are offered, the one that `accept` prefers; of those it likes alike the first, which is
/// also the answer to who accepts none, as to one who says nothing.
pub(super) fn preferred<'a>(
    accept: &str,
    first: &'a str,
    others: impl IntoIterator<Item = &'a str>,
) -> &'a str {
    let mut best = (first, quality(accept, first));
    for other in others {
        let quality = quality(accept, other);
        if quality > best.1 {
            best = (other, quality);
        }
    }
    best.0
}

/// How much a type is wanted: the most specific range that holds it decides.
fn quality(accept: &str, offered: &str) -> Quality {
    let ranges = accept.split(',').filter_map(|range| {
        let mut words = range.split(';').map(str::trim);
        let specific = specificity(words.next()?, offered)?;
        let quality = words.find_map(|word| word.strip_prefix("q=").or_else(|| word.strip_prefix("Q=")));
        Some((specific, quality.map_or(Some(1_000), thousandths)?))
    });
    ranges.max_by_key(|(specific, _)| *specific).map_or(0, |(_, quality)| quality)
}

/// How exactly a media range names a type, if it holds it.
fn specificity(range: &str, offered: &str) -> Option<u8> {
    let group = offered.split('/').next().unwrap_or_default();
    match range {
        "*/*" => Some(0),
        range if range.eq_ignore_ascii_case(offered) => Some(2),
        range => range.strip_suffix("/*").filter(|range| range.eq_ignore_ascii_case(group)).map(|_| 1),
    }
}

/// Reads a weight of up to three decimals (RFC 9110, 12.4.2).
fn thousandths(text: &str) -> Option<Quality> {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
    let is_number = decimals.len() <= 3 && decimals.bytes().all(|byte| byte.is_ascii_digit());
    match whole {
        "0" if is_number => format!("{decimals:0<3}").parse().ok(),
        "1" if is_number && decimals.bytes().all(|byte| byte == b'0') => Some(1_000),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_client_prefers_is_told_by_weight_and_by_how_exactly_it_is_named() {
        const BROWSER: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8";
        let golden = [
            ("", "application/json"),
            ("*/*", "application/json"),
            (BROWSER, "text/html"),
            ("text/html", "text/html"),
            ("TEXT/HTML", "text/html"),
            ("application/json, text/html", "application/json"),
            ("text/html;q=0.5, application/json;q=0.501", "application/json"),
            ("text/html;q=0.5, application/json;q=0.499", "text/html"),
            ("text/html; charset=utf-8; q=0.9, */*;q=0.1", "text/html"),
            ("text/*, application/json;q=0.9", "text/html"),
            ("text/*;q=0.1, text/csv, */*;q=0.2", "text/csv"),
            ("text/html;q=0, */*;q=0.1", "application/json"),
            ("text/html;q=2, text/csv;q=x, text/*;q=0.1234", "application/json"),
            ("image/png", "application/json"),
            (",;,/,*,text", "application/json"),
        ];
        for (accept, expected) in golden {
            let preferred = preferred(accept, "application/json", ["text/html", "text/csv"]);
            assert_eq!(preferred, expected, "{accept}");
        }
    }
}
