/// The cases of a table in this folder, each with its file and line.
///
/// A case is a line of fields with bars between them; blanks around a field are not
/// part of it. A line that is empty or begins with `#` is no case. Fields have the
/// escapes of Rust, such as `\n`, `\u{e9}`, and `\x20` for a blank at an end.
#[track_caller]
pub(crate) fn cases<const N: usize>(name: &str) -> Vec<(String, [String; N])> {
    let text = std::fs::read_to_string(format!("{}/tests/golden/{name}", env!("CARGO_MANIFEST_DIR")));
    let text = text.unwrap_or_else(|error| panic!("tests/golden/{name}: {error}"));
    let lines = text.lines().zip(1..).filter(|(line, _)| !line.is_empty() && !line.starts_with('#'));
    let cases = lines.map(|(line, number)| {
        let at = format!("tests/golden/{name}:{number}");
        let wrong = |what: &str| -> ! { panic!("{at}: {what}") };
        let fields = line.split('|').map(|field| unescape(field.trim()));
        let fields: Vec<String> = fields.collect::<Option<_>>().unwrap_or_else(|| wrong("an unknown escape"));
        let fields = fields.try_into().unwrap_or_else(|_| wrong(&format!("expected {N} fields")));
        (at, fields)
    });
    cases.collect()
}

/// A text whose escapes are taken for what they mean.
fn unescape(text: &str) -> Option<String> {
    let (mut plain, mut rest) = (String::new(), text);
    while let Some((before, after)) = rest.split_once('\\') {
        let letter = after.chars().next()?;
        let (code, end) = match letter {
            'x' => (after.get(1..3)?, 3),
            'u' => (after.strip_prefix("u{")?.split('}').next()?, after.find('}')? + 1),
            _ => ("", 1),
        };
        plain += before;
        plain.push(match letter {
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            '0' => '\0',
            '\\' => '\\',
            'x' | 'u' => char::from_u32(u32::from_str_radix(code, 16).ok()?)?,
            _ => return None,
        });
        rest = after.get(end..)?;
    }
    Some(plain + rest)
}
