use crate::firewall::state::entries::{read_header, read_lines};
use crate::firewall::state::format::{HEADER_LENGTH, Header, Line};

/// Input: a state file.
pub(super) fn holds(data: &[u8]) {
    let mut from = data;
    if let Ok(Ok(header)) = read_header(&mut from) {
        let printed = header.to_string();
        assert_eq!(printed.len(), HEADER_LENGTH);
        assert_eq!(Header::parse(printed.trim_end_matches('\n')), Ok(header));
    }
    let mut lines = data;
    let (entries, damage) = read_lines(&mut lines).expect("memory can be read");
    // What is quoted of a line is bounded, and has no control characters.
    let told = damage.to_string();
    assert!(told.len() < 8_192 && !told.contains(char::is_control), "{told}");
    let number = entries.len();
    let mut text = String::new();
    for (rule, label) in entries.into_rules() {
        let line = Line::Put(rule, label);
        assert_eq!(Line::parse(&line.to_string()).as_ref(), Ok(&line));
        text += &format!("{line}\n");
    }
    // What was read is read again, whole.
    let (again, damage) = read_lines(&mut text.as_bytes()).expect("memory can be read");
    assert!(!damage.is_some() && again.len() == number, "{damage}");
}
