use super::*;
use proptest::prelude::*;

fn bytes(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}

fn header(length: u32, kind: u16, flags: u16, sequence: u32) -> Vec<u8> {
    bytes(&[
        &length.to_ne_bytes(),
        &kind.to_ne_bytes(),
        &flags.to_ne_bytes(),
        &sequence.to_ne_bytes(),
        &[0; 4],
    ])
}

fn attribute(length: u16, kind: u16, value: &[u8]) -> Vec<u8> {
    bytes(&[&length.to_ne_bytes(), &kind.to_ne_bytes(), value])
}

#[test]
fn a_message_is_built_as_the_headers_say() {
    let mut builder = Builder::new();
    builder.begin(0x060d, 5, 7, 2);
    builder.u8(1, 7);
    builder.string(2, "rfw");
    let nest = builder.nest(7);
    builder.u32_be(6, 300);
    assert_eq!(builder.nest_length(&nest), 12);
    builder.end_nest(nest);
    builder.u32(9, 1);
    builder.end();
    let expected = bytes(&[
        &header(60, 0x060d, 5, 7),
        &[2, 0, 0, 0],
        &attribute(5, 1, &[7, 0, 0, 0]),
        &attribute(8, 2, b"rfw\0"),
        &attribute(12, 7 | NLA_F_NESTED, &attribute(8, 6 | NLA_F_NET_BYTEORDER, &[0, 0, 1, 44])),
        &attribute(8, 9, &1_u32.to_ne_bytes()),
    ]);
    let expected_length = expected.len();
    assert_eq!(builder.len(), expected_length);
    let built = builder.finish().unwrap();
    assert_eq!(built[4..], expected[4..]);
    assert_eq!(built[..4], u32::try_from(expected_length).unwrap().to_ne_bytes());
}

#[test]
fn what_is_longer_than_its_length_can_say_is_not_sent() {
    let mut builder = Builder::new();
    builder.begin(1, 1, 1, 0);
    builder.attribute(1, &[0; 65_531]);
    builder.end();
    assert!(builder.finish().is_ok());
    let mut builder = Builder::new();
    builder.begin(1, 1, 1, 0);
    builder.attribute(1, &[0; 65_532]);
    builder.end();
    assert_eq!(builder.finish(), Err(Malformed));
}

#[test]
fn answers_and_ends_are_told_apart() {
    let request = header(20, 0x0609, 5, 3);
    let golden: [(Vec<u8>, Result<Content<'_>, Malformed>); 6] = [
        (bytes(&[&header(20, 3, 2, 1), &[0; 4]]), Ok(Content::Done(0))),
        (header(16, 3, 2, 1), Ok(Content::Done(0))),
        (bytes(&[&header(20, 3, 2, 1), &(-16_i32).to_ne_bytes()]), Ok(Content::Done(-16))),
        (header(16, 2, 0, 1), Err(Malformed)),
        (header(16, 0x0607, 0, 1), Err(Malformed)),
        (bytes(&[&header(20, 0x0607, 0, 1), &[0; 4]]), Ok(Content::Data(attributes(&[])))),
    ];
    for (datagram, expected) in golden {
        let message = messages(&datagram).next().unwrap().unwrap();
        assert_eq!(message.content(), expected, "{datagram:?}");
    }
    let datagram = bytes(&[&header(40, 2, 0, 3), &(-4103_i32).to_ne_bytes(), &request, &[0; 4]]);
    let message = messages(&datagram).next().unwrap().unwrap();
    let Ok(Content::Answer { code: -4103, request: Some(request) }) = message.content() else {
        panic!("{message:?}")
    };
    assert_eq!((request.kind, request.sequence), (0x0609, 3));
}

#[test]
fn what_is_cut_short_is_malformed_and_ends_the_reading() {
    let message = bytes(&[&header(29, 0x0607, 0x10, 1), &[0; 4], &attribute(9, 2, b"name\0")]);
    let whole: Vec<_> = messages(&message).collect();
    assert!(matches!(whole[..], [Ok(message)] if message.is_interrupted()), "{whole:?}");
    for length in 1..message.len() {
        assert_eq!(messages(&message[..length]).collect::<Vec<_>>(), [Err(Malformed)], "{length}");
    }
    let attributes = |bytes| attributes(bytes).map(|item| item.map(|a| a.kind)).collect::<Vec<_>>();
    let value = attribute(9, 2, b"name\0");
    for length in 1..value.len() {
        assert_eq!(attributes(&value[..length]), [Err(Malformed)], "{length}");
    }
    // A length below that of the header would never get on.
    assert_eq!(attributes(&attribute(3, 2, &[])), [Err(Malformed)]);
    assert_eq!(messages(&header(15, 2, 0, 1)).collect::<Vec<_>>(), [Err(Malformed)]);
}

#[test]
fn a_value_has_the_length_of_its_type() {
    let value = |value| Attribute { kind: 1, value };
    assert_eq!(value(&[1]).u8(), Ok(1));
    assert_eq!(value(&[1, 2]).u8(), Err(Malformed));
    assert_eq!(value(&[1, 2]).u16_be(), Ok(0x102));
    assert_eq!(value(&[0, 0, 1, 2]).u32_be(), Ok(0x102));
    assert_eq!(value(&[0, 1, 2]).u32_be(), Err(Malformed));
    assert_eq!(value(&[0, 0, 0, 0, 0, 0, 1, 2]).u64_be(), Ok(0x102));
    let three = 3_u32.to_ne_bytes();
    assert_eq!(value(&three).u32(), Ok(3));
    assert_eq!(value(b"a\0").string(), Ok(&b"a"[..]));
    assert_eq!(value(b"a").string(), Err(Malformed));
    assert_eq!(value(b"").string(), Err(Malformed));
    assert_eq!(value(b"a\0b\0").string(), Err(Malformed));
}

#[test]
fn headers_are_rewritten_in_place() {
    let mut builder = Builder::new();
    for sequence in 0..3 {
        builder.begin(9, 1, sequence, 0);
        builder.string(2, "x");
        builder.end();
    }
    let mut built = builder.finish().unwrap();
    let mut ends = Vec::new();
    rewrite_headers(&mut built, |flags, sequence, end| {
        ends.push(end);
        *sequence += 100;
        *flags |= if end == 84 { NLM_F_ACK } else { 0 };
    })
    .unwrap();
    assert_eq!(ends, [28, 56, 84]);
    let read: Vec<_> = messages(&built).map(|m| m.map(|m| (m.flags, m.sequence))).collect();
    assert_eq!(read, [Ok((1, 100)), Ok((1, 101)), Ok((5, 102))]);
    assert_eq!(rewrite_headers(&mut built[..30], |_, _, _| ()), Err(Malformed));
}

/// Attributes of any depth.
#[derive(Debug, Clone, PartialEq)]
enum Tree {
    Leaf(u16, Vec<u8>),
    Nest(u16, Vec<Tree>),
}

fn trees() -> impl Strategy<Value = Vec<Tree>> {
    let leaf = (0..=NLA_TYPE_MASK, prop::collection::vec(any::<u8>(), 0..40))
        .prop_map(|(kind, value)| Tree::Leaf(kind, value));
    let tree = leaf.prop_recursive(3, 40, 5, |inner| {
        (0..=NLA_TYPE_MASK, prop::collection::vec(inner, 0..5))
            .prop_map(|(kind, children)| Tree::Nest(kind, children))
    });
    prop::collection::vec(tree, 0..5)
}

fn build(builder: &mut Builder, trees: &[Tree]) {
    for tree in trees {
        match tree {
            Tree::Leaf(kind, value) => builder.attribute(*kind, value),
            Tree::Nest(kind, children) => {
                let nest = builder.nest(*kind);
                build(builder, children);
                builder.end_nest(nest);
            }
        }
    }
}

/// Compares what was read with what was built.
fn same(trees: &[Tree], attributes: Attributes<'_>) -> bool {
    let read: Vec<_> = attributes.collect();
    read.len() == trees.len()
        && trees.iter().zip(read).all(|(tree, read)| match (tree, read) {
            (Tree::Leaf(kind, value), Ok(read)) => read.kind == *kind && read.value == value,
            (Tree::Nest(kind, children), Ok(read)) => read.kind == *kind && same(children, read.nested()),
            (_, Err(Malformed)) => false,
        })
}

proptest! {
    #[test]
    fn a_message_built_and_read_again_is_itself(
        kind in 16_u16.., flags: u16, sequence: u32, first in trees(), second in trees()
    ) {
        let mut builder = Builder::new();
        for trees in [&first, &second] {
            builder.begin(kind, flags, sequence, 2);
            build(&mut builder, trees);
            builder.end();
        }
        let built = builder.finish().unwrap();
        let read: Vec<_> = messages(&built).collect::<Result<_, _>>().unwrap();
        prop_assert_eq!(read.len(), 2);
        for (message, trees) in read.iter().zip([&first, &second]) {
            prop_assert_eq!((message.kind, message.flags, message.sequence), (kind, flags, sequence));
            prop_assert!(same(trees, message.attributes().unwrap()));
        }
    }

    #[test]
    fn no_bytes_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..200), length in 0_u32..200) {
        let _ = read_all(&bytes);
        // With a length that may fit, the reading gets further.
        bytes.iter_mut().zip(length.to_ne_bytes()).for_each(|(to, from)| *to = from);
        let _ = read_all(&bytes);
        let _ = rewrite_headers(&mut bytes, |flags, sequence, _| (*flags, *sequence) = (0, 0));
    }
}

/// Reads whatever can be read.
fn read_all(bytes: &[u8]) -> usize {
    let mut count = 0;
    for message in messages(bytes).flatten() {
        count += usize::from(message.content().is_ok());
        for attribute in message.attributes().into_iter().flatten().flatten() {
            count += attribute.nested().count() + usize::from(attribute.string().is_ok());
            count += usize::from(attribute.u64_be().is_ok());
        }
    }
    count
}
