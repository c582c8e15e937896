use super::Input;
use crate::kernel::netlink::{Attribute, Attributes, Builder, Content, messages, rewrite_headers};

/// Input: a byte whose upper bit tells that messages are to be built from the rest; else a datagram.
pub(super) fn holds(data: &[u8]) {
    let Some((choice, data)) = data.split_first() else { return };
    if choice & 0x80 == 0 {
        return datagram(data);
    }
    let mut input = Input::new(data);
    let mut builder = Builder::new();
    let mut told = Vec::new();
    while !input.is_empty() && told.len() < 50 {
        let header = (input.u16() | 16, input.u16(), input.u32());
        builder.begin(header.0, header.1, header.2, 2);
        let mut attributes = String::new();
        build(&mut input, &mut builder, &mut attributes, 0);
        builder.end();
        told.push((header, attributes));
    }
    // An attribute can be too long.
    let length = builder.len();
    let Ok(built) = builder.finish() else { return };
    assert_eq!(built.len(), length);
    let read: Vec<_> = messages(&built).map(|message| message.expect("a message")).collect();
    assert_eq!(read.len(), told.len());
    for (message, (header, attributes)) in read.iter().zip(&told) {
        assert_eq!((message.kind, message.flags, message.sequence), *header);
        assert_eq!(tell(message.attributes().expect("attributes"), &mut attributes.chars()), *attributes);
    }
    datagram(&built);
}

/// Builds attributes, and tells what they are.
fn build(input: &mut Input<'_>, builder: &mut Builder, told: &mut String, depth: u8) {
    for _ in 0..input.byte() % 8 {
        let kind = input.u16() & 0x3fff;
        match input.byte() % 6 {
            0 => {
                let value = input.byte();
                builder.u8(kind, value);
                *told += &format!("b{kind}={value},");
            }
            1 => {
                let value = input.u16();
                builder.u16_be(kind, value);
                *told += &format!("h{kind}={value},");
            }
            2 => {
                let value = input.u32();
                builder.u32_be(kind, value);
                *told += &format!("w{kind}={value},");
            }
            3 => {
                let value = input.u64();
                builder.u64_be(kind, value);
                *told += &format!("q{kind}={value},");
            }
            4 if depth < 5 => {
                let nest = builder.nest(kind);
                *told += &format!("n{kind}(");
                build(input, builder, told, depth + 1);
                *told += "),";
                builder.end_nest(nest);
            }
            _ => {
                let length = input.byte();
                let value = input.text(length.into()).replace(['\0', '(', ')', ',', '='], "");
                builder.string(kind, &value);
                *told += &format!("s{kind}={value},");
            }
        }
    }
}

/// Tells what attributes are, of the kinds that are expected.
fn tell(attributes: Attributes<'_>, expected: &mut std::str::Chars<'_>) -> String {
    let mut told = String::new();
    for attribute in attributes {
        let attribute = attribute.expect("an attribute");
        let kind = attribute.kind;
        let letter = expected.next().unwrap_or('?');
        told += &match letter {
            'b' => format!("b{kind}={},", attribute.u8().expect("a byte")),
            'h' => format!("h{kind}={},", attribute.u16_be().expect("16 bits")),
            'w' => format!("w{kind}={},", attribute.u32_be().expect("32 bits")),
            'q' => format!("q{kind}={},", attribute.u64_be().expect("64 bits")),
            'n' => {
                expected.find(|c| *c == '(');
                format!("n{kind}({}),", tell(attribute.nested(), expected))
            }
            _ => format!("s{kind}={},", String::from_utf8_lossy(attribute.string().expect("a string"))),
        };
        expected.find(|c| *c == ',');
    }
    // The end of a nest.
    if expected.as_str().starts_with(')') {
        expected.next();
    }
    told
}

/// Whatever comes is read to an end within it.
fn datagram(data: &[u8]) {
    let read: Vec<_> = messages(data).collect();
    assert!(read.len() <= data.len() / 16 + 1);
    assert!(read.iter().rev().skip(1).all(Result::is_ok), "nothing after what is no message");
    for message in read.iter().flatten() {
        match message.content() {
            Ok(Content::Data(attributes)) => assert!(count(attributes, 4) <= data.len()),
            Ok(Content::Answer { request: Some(request), .. }) => drop(request.content()),
            _ => {}
        }
    }
    let mut rewritten = data.to_vec();
    let mut ends = Vec::new();
    let complete = rewrite_headers(&mut rewritten, |flags, sequence, end| {
        ends.push(end);
        (*flags, *sequence) = (!*flags, *sequence ^ 7);
    });
    assert!(ends.is_sorted_by(|before, next| before < next));
    if complete.is_ok() && read.iter().all(Result::is_ok) {
        assert_eq!((ends.len(), ends.last().copied().unwrap_or(0)), (read.len(), data.len()));
        for (before, after) in read.iter().flatten().zip(messages(&rewritten).flatten()) {
            assert_eq!(
                (before.kind, !before.flags, before.sequence ^ 7),
                (after.kind, after.flags, after.sequence)
            );
            assert_eq!(before.content().is_ok(), after.content().is_ok());
        }
        let _ = rewrite_headers(&mut rewritten, |flags, sequence, _| {
            (*flags, *sequence) = (!*flags, *sequence ^ 7);
        });
        assert_eq!(rewritten, data);
    }
}

/// Counts attributes, and those in them.
fn count(attributes: Attributes<'_>, depth: u8) -> usize {
    attributes.flatten().map(|attribute| 1 + read(&attribute) + nested(&attribute, depth)).sum()
}

fn nested(attribute: &Attribute<'_>, depth: u8) -> usize {
    if depth == 0 { 0 } else { count(attribute.nested(), depth - 1) }
}

/// No value is of two lengths.
fn read(attribute: &Attribute<'_>) -> usize {
    let lengths = [
        attribute.u8().is_ok(),
        attribute.u16_be().is_ok(),
        attribute.u32().is_ok(),
        attribute.u64_be().is_ok(),
    ];
    assert!(lengths.iter().filter(|fits| **fits).count() <= 1);
    if let Ok(text) = attribute.string() {
        assert!(!text.contains(&0));
    }
    0
}
