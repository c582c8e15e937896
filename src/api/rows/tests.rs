//! Rows, packed and as text.

use super::text::{push_network, push_number};
use super::*;
use crate::rule::label::Label;
use crate::rule::lease::Interval;
use crate::rule::note::Reason;
use crate::rule::rule_of;
use proptest::prelude::*;

#[test]
fn rows_are_json_with_the_keys_in_order() {
    let counters = Counters { packets: 7, bytes: 420 };
    let until = Interval::of_seconds(60).from(UNIX_EPOCH);
    let golden = [
        (
            Row {
                number: 3,
                counters,
                rule: rule_of("/drop/input/eth/1.2.3.4"),
                label: Label::new(until, ListName::UNNAMED),
                set: None,
            },
            r#"{"bytes":"420","chain":"INPUT","destination":"0.0.0.0/0","expires":"1970-01-01T00:01:00Z","extra":"/* rfw until 1970-01-01T00:01:00Z */","inp":"eth+","list":"","num":"3","opt":"--","out":"*","pkts":"7","prot":"all","source":"1.2.3.4","target":"DROP"}"#,
        ),
        (
            Row {
                number: 1,
                counters,
                rule: rule_of("/reject/output/any/2001:db8::/32"),
                label: Label::new(Lease::Permanent, "tor".parse().unwrap()),
                set: Some("rfw6-ord".into()),
            },
            r#"{"bytes":"420","chain":"OUTPUT","destination":"2001:db8::/32","expires":null,"extra":"match-set rfw6-ord reject-with icmp6-port-unreachable","inp":"*","list":"tor","num":"1","opt":"--","out":"*","pkts":"7","prot":"all","source":"::/0","target":"REJECT"}"#,
        ),
    ];
    let note = |by, reason| Some(Box::new(Note::new(by, Reason::parse(reason).unwrap().unwrap())));
    let noted = [
        (
            Row {
                number: 3,
                counters,
                rule: rule_of("/reject/input/any/1.2.3.4"),
                label: Label {
                    note: note("a\\b", "käse \\ 'x'"),
                    ..Label::new(until, "tor".parse().unwrap())
                },
                set: None,
            },
            r#"{"by":"a\\b","bytes":"420","chain":"INPUT","destination":"0.0.0.0/0","expires":"1970-01-01T00:01:00Z","extra":"/* rfw until 1970-01-01T00:01:00Z list tor by a\\b: käse \\ 'x' */ reject-with icmp-port-unreachable","inp":"*","list":"tor","num":"3","opt":"--","out":"*","pkts":"7","prot":"all","reason":"käse \\ 'x'","source":"1.2.3.4","target":"REJECT"}"#,
        ),
        (
            Row {
                number: 1,
                counters,
                rule: rule_of("/drop/input/any/1.2.3.4"),
                label: Label { note: note("me", "scan"), ..Label::new(Lease::Permanent, ListName::UNNAMED) },
                set: Some("rfw4-isd".into()),
            },
            r#"{"by":"me","bytes":"420","chain":"INPUT","destination":"0.0.0.0/0","expires":null,"extra":"match-set rfw4-isd","inp":"*","list":"","num":"1","opt":"--","out":"*","pkts":"7","prot":"all","reason":"scan","source":"1.2.3.4","target":"DROP"}"#,
        ),
    ];
    for (row, expected) in golden.into_iter().chain(noted) {
        let mut rows = Rows::default();
        rows.push(&row);
        let text: String = rows.into_text(Format::Json).collect();
        assert_eq!(text, format!("[\n{expected}\n]\n"));
        assert!(serde_json::from_str::<serde_json::Value>(&text).is_ok());
    }
    assert_eq!(Rows::default().into_text(Format::Json).collect::<String>(), "[]\n");
}

#[test]
fn many_rows_are_small_and_come_back_in_their_order() {
    let until = Interval::of_seconds(60).from(UNIX_EPOCH + Duration::from_secs(2_000_000_000));
    let mut rows = Rows::default();
    let row = |n: u32| Row {
        number: 3,
        counters: Counters { packets: u64::from(n), bytes: u64::from(n) * 60 },
        rule: rule_of(&format!("/drop/input/any/{}", Ipv4Addr::from(0x0b00_0000 + n))),
        label: Label::new(until, ListName::UNNAMED),
        set: Some("rfw4-isd".into()),
    };
    (0..10_000).for_each(|n| rows.push(&row(n)));
    let memory: usize = rows.chunks.iter().map(Vec::capacity).sum();
    assert!(memory < 10_000 * 24, "{memory}");
    let parts: Vec<String> = rows.into_text(Format::Json).collect();
    assert!(parts.iter().all(|part| part.len() < 16 << 10) && parts.len() > 100);
    let list: serde_json::Value = serde_json::from_str(&parts.concat()).unwrap();
    let list = list.as_array().unwrap();
    assert_eq!(list.len(), 10_000);
    assert_eq!((&list[9_999]["source"], &list[9_999]["pkts"]), (&"11.0.39.15".into(), &"9999".into()));
}

#[test]
fn rows_are_a_table_or_the_bare_addresses() {
    let counters = Counters { packets: 7, bytes: 420 };
    let until = Interval::of_seconds(60).from(UNIX_EPOCH);
    let note = |by, reason| Some(Box::new(Note::new(by, Reason::parse(reason).unwrap().unwrap())));
    let row = |path, label| Row { number: 1, counters, rule: rule_of(path), label, set: None };
    let tor = "tor".parse().unwrap();
    let golden = [
        (
            row("/drop/input/eth/1.2.3.4", Label::new(until, ListName::UNNAMED)),
            ",INPUT,DROP,eth+,*,1.2.3.4,0.0.0.0/0,1970-01-01T00:01:00Z,,,7,420",
            "1.2.3.4\n",
        ),
        (
            row(
                "/reject/output/any/2001:db8::/32",
                Label { note: note("me", "käse, \\ 'x'"), ..Label::new(Lease::Permanent, tor) },
            ),
            "tor,OUTPUT,REJECT,*,*,::/0,2001:db8::/32,,\"käse, \\ 'x'\",me,7,420",
            "2001:db8::/32\n",
        ),
        (
            row("/accept/forward/any/0.0.0.0/ppp0/5.6.7.0/24", Label::new(until, tor)),
            "tor,FORWARD,ACCEPT,*,ppp0,0.0.0.0/0,5.6.7.0/24,1970-01-01T00:01:00Z,,,7,420",
            "5.6.7.0/24\n",
        ),
        // It is none of an address alone.
        (
            row("/accept/forward/any/1.2.3.4/ppp0/5.6.7.8", Label::new(until, tor)),
            "tor,FORWARD,ACCEPT,*,ppp0,1.2.3.4,5.6.7.8,1970-01-01T00:01:00Z,,,7,420",
            "",
        ),
    ];
    let text = |row: Option<&Row>, format| {
        let mut rows = Rows::default();
        row.into_iter().for_each(|row| rows.push(row));
        let parts: Vec<String> = rows.into_text(format).collect();
        assert!(parts.iter().all(|part| !part.is_empty()));
        parts.concat()
    };
    let header = "list,chain,target,inp,out,source,destination,expires,reason,by,packets,bytes\n";
    for (row, csv, plain) in golden {
        assert_eq!(text(Some(&row), Format::Csv), format!("{header}{csv}\n"));
        assert_eq!(text(Some(&row), Format::Plain), plain);
    }
    assert_eq!(text(None, Format::Csv), header);
    assert_eq!(text(None, Format::Plain), "");
}

proptest! {
    #[test]
    fn numbers_and_networks_are_printed_as_display_prints_them(number: u64, bits: u128, v4: bool, prefix in 0u8..=128) {
        let network = match v4 {
            true => Network::new(Ipv4Addr::from_bits(bits as u32).into(), prefix % 33),
            false => Network::new(Ipv6Addr::from_bits(bits).into(), prefix),
        };
        let mut text = String::new();
        push_number(&mut text, number);
        prop_assert_eq!(&text, &number.to_string());
        if let Ok(network) = network {
            text.clear();
            push_network(&mut text, Some(&network), "any");
            prop_assert_eq!(text, network.to_string());
        }
    }


    #[test]
    fn what_is_packed_comes_back(
        (v6, source, destination) in (any::<bool>(), any::<Option<(u128, u8)>>(), any::<Option<(u128, u8)>>()),
        (group, number, packets, bytes, end) in (any::<u32>(), any::<u32>(), any::<u64>(), any::<u64>(), any::<Option<u32>>()),
        note in proptest::option::of(("\\PC{0,70}", "\\PC{0,130}")),
    ) {
        let network = |(bits, prefix): (u128, u8)| match v6 {
            true => Network::new(Ipv6Addr::from_bits(bits | 1 << 127).into(), prefix % 129),
            false => Network::new(Ipv4Addr::from_bits(bits as u32).into(), prefix % 33),
        };
        let packed = Packed {
            group: group as usize,
            number: number as usize,
            source: source.map(|part| network(part).unwrap()),
            destination: destination.map(|part| network(part).unwrap()),
            counters: Counters { packets, bytes },
            lease: match end {
                Some(end) => Lease::Until(Moment::at_or_after(UNIX_EPOCH + Duration::from_secs(end.into()))),
                None => Lease::Permanent,
            },
            note: note.and_then(|(by, reason)| Some(Box::new(Note::new(&by, Reason::cut(&reason)?)))),
        };
        let mut written = Vec::new();
        packed.write(&mut written);
        prop_assert!(written.len() <= ROW_MAX);
        let mut rest = written.as_slice();
        prop_assert_eq!(Packed::read(&mut rest), Some(packed));
        prop_assert!(rest.is_empty());
    }

    #[test]
    fn no_bytes_panic(bytes: Vec<u8>) {
        let _ = Packed::read(&mut bytes.as_slice());
    }
}
