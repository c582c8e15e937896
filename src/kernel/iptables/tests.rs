use super::*;
use crate::golden::cases;
use crate::rule::layout::InputTable;
use crate::rule::lease::Interval;
use crate::rule::list_name::ListName;
use crate::rule::note::{Note, Reason};
use crate::rule::rule_of;
use proptest::prelude::*;

fn read(line: &str, family: Family) -> String {
    read_in(line, family, &Reading::default())
}

fn read_in(line: &str, family: Family, reading: &Reading) -> String {
    match parse(line, family, reading) {
        None => "none".to_owned(),
        Some(Line { chain, counters, owner, target }) => {
            let Counters { packets, bytes } = counters;
            match owner {
                Owner::Rfw(rule, label) => format!("{packets}:{bytes} {rule}, {label}"),
                Owner::Set(set) => format!("{packets}:{bytes} set {}", set.name()),
                Owner::Return(rule, label) => format!("exception of {rule}, {label}"),
                Owner::ReturnSet(set) => format!("exception of set {}", set.name()),
                Owner::Jump => "jump".to_owned(),
                Owner::Guard(text) => format!("guard {text}"),
                Owner::Other if reading.table == TableName::Raw => {
                    format!("other in {chain}, {}", target.as_deref().unwrap_or("no target"))
                }
                Owner::Other => format!("other in {chain}"),
            }
        }
    }
}

#[test]
fn lines_of_iptables_save_are_read() {
    for (at, [line, expected]) in cases("iptables-save.txt") {
        assert_eq!(read(&line, Family::V4), expected, "{at}");
    }
    assert_eq!(read("", Family::V4), "none");
    let line = "[0:0] -A INPUT -s 2001:db8::/48 -m comment --comment \"rfw permanent\" -j REJECT --reject-with icmp6-port-unreachable";
    assert_eq!(read(line, Family::V6), "0:0 INPUT -s 2001:db8::/48 -j REJECT, rfw permanent");
}

#[test]
fn lines_of_the_table_raw_are_read() {
    let raw = Reading { table: TableName::Raw, forward: None };
    for (at, [line, expected]) in cases("iptables-save-raw.txt") {
        assert_eq!(read_in(&line, Family::V4, &raw), expected, "{at}");
    }
}

#[test]
fn rules_of_forward_are_read_where_they_may_stand() {
    let line =
        |chain: &str| format!("-A {chain} -s 1.2.3.4/32 -m comment --comment \"rfw permanent\" -j DROP");
    let docker: ChainName = "DOCKER-USER".parse().unwrap();
    for (forward, chain, is_own) in [
        (Some(ChainName::forward()), "DOCKER-USER", false),
        (Some(ChainName::forward()), "FORWARD", true),
        (Some(docker.clone()), "DOCKER-USER", true),
        (Some(docker.clone()), "FORWARD", true),
        (Some(docker), "mine", false),
        (None, "mine", true),
        (None, "forward", true),
        (Some(ChainName::forward()), "forward", false),
    ] {
        let reading = Reading { table: TableName::Filter, forward };
        let expected = if is_own { "0:0 FORWARD -s 1.2.3.4 -j DROP, rfw permanent" } else { "other in " };
        let read = read_in(&line(chain), Family::V4, &reading);
        assert!(read.starts_with(expected), "{chain}: {read}");
    }
}

#[test]
fn a_transaction_of_two_tables_changes_one_after_the_other() {
    let layout = Layout { input: InputTable::Raw, forward: "DOCKER-USER".parse().unwrap() };
    let mut transaction = Transaction::new(layout);
    let permanent = Label::from_comment("rfw permanent").unwrap();
    let accept = rule_of("/accept/input/eth0/1.2.3.4");
    transaction.insert(&accept, &permanent, 1);
    transaction.insert(&rule_of("/drop/input/any/1.2.3.0/24"), &permanent, 2);
    transaction.insert(&rule_of("/drop/forward/any/1.2.3.4"), &permanent, 1);
    transaction.delete_set(&SetKey::of(&accept));
    transaction.take(&KernelChain::Input, Owner::Rfw(rule_of("/drop/input/any/1.2.3.4"), permanent));
    transaction.put(&KernelChain::Prerouting, Owner::Jump, 1);
    transaction.make_chain();
    assert_eq!(transaction.in_raw(), (2, 1));
    let raw = "*raw\n\
         -N RFW\n\
         -I RFW -s 1.2.3.4 -i eth0 -m comment --comment \"rfw permanent\" -j RETURN\n\
         -I RFW 2 -s 1.2.3.0/24 -m comment --comment \"rfw permanent\" -j DROP\n\
         -D RFW -m set --match-set rfw4-ias-eth0 src -i eth0 -m comment --comment \"rfw set\" -j RETURN\n\
         -I PREROUTING -m comment --comment \"rfw\" -j RFW\n\
         COMMIT\n";
    let filter = "*filter\n\
         -I INPUT -s 1.2.3.4 -i eth0 -m comment --comment \"rfw permanent\" -j ACCEPT\n\
         -I DOCKER-USER -s 1.2.3.4 -m comment --comment \"rfw permanent\" -j DROP\n\
         -D INPUT -m set --match-set rfw4-ias-eth0 src -i eth0 -m comment --comment \"rfw set\" -j ACCEPT\n\
         -D INPUT -s 1.2.3.4 -m comment --comment \"rfw permanent\" -j DROP\n\
         COMMIT\n";
    assert_eq!(transaction.script(), format!("{raw}{filter}"));
    transaction.filter_first();
    assert_eq!(transaction.script(), format!("{filter}{raw}"));
}

#[test]
fn a_transaction_is_a_script_of_iptables_restore() {
    let rule = Scope::input(Target::Drop, None).rule("11.22.33.44".parse().unwrap()).unwrap();
    let set = SetKey::of(&rule);
    let mut transaction = Transaction::default();
    assert!(transaction.changes().is_empty());
    let label = |comment: &str| Label::from_comment(comment).unwrap();
    let permanent = label("rfw permanent");
    transaction.delete(&rule, &permanent);
    transaction.insert(&rule, &label("rfw until 2026-11-22T10:05:00Z"), 1);
    transaction.insert(&rule, &label("rfw permanent list tor by me: it's \\"), 3);
    transaction.insert_set(&set, 2);
    transaction.check_set(&set);
    transaction.delete_set(&set);
    let guards = Guard::all(7393, ["10.0.0.0/8".parse().unwrap()].iter());
    transaction.insert_guards(&guards);
    transaction.delete_guard(guards[0]);
    let mut first = transaction.clone();
    first.truncate(1);
    assert_eq!(first.changes(), [Change::Delete(rule, permanent)]);
    assert_eq!(
        transaction.script(),
        "*filter\n\
         -D INPUT -s 11.22.33.44 -m comment --comment \"rfw permanent\" -j DROP\n\
         -I INPUT -s 11.22.33.44 -m comment --comment \"rfw until 2026-11-22T10:05:00Z\" -j DROP\n\
         -I INPUT 3 -s 11.22.33.44 -m comment --comment \"rfw permanent list tor by me: it's \\\\\" -j DROP\n\
         -I INPUT 2 -m set --match-set rfw4-ids src -m comment --comment \"rfw set\" -j DROP\n\
         -C INPUT -m set --match-set rfw4-ids src -m comment --comment \"rfw set\" -j DROP\n\
         -D INPUT -m set --match-set rfw4-ids src -m comment --comment \"rfw set\" -j DROP\n\
         -I INPUT -p tcp -m tcp --dport 7393 -m comment --comment \"rfw guard\" -j DROP\n\
         -I OUTPUT -p tcp -m tcp --sport 7393 -m comment --comment \"rfw guard\" -j DROP\n\
         -I INPUT -s 10.0.0.0/8 -p tcp -m tcp --dport 7393 -m comment --comment \"rfw guard\" -j ACCEPT\n\
         -I OUTPUT -d 10.0.0.0/8 -p tcp -m tcp --sport 7393 -m comment --comment \"rfw guard\" -j ACCEPT\n\
         -D INPUT -p tcp -m tcp --dport 7393 -m comment --comment \"rfw guard\" -j DROP\n\
         COMMIT\n"
    );
}

fn rules() -> impl Strategy<Value = Rule> {
    let network = |v4: bool| {
        (any::<u128>(), 9u8..=32).prop_map(move |(bits, prefix)| match v4 {
            true => Network::new(
                std::net::Ipv4Addr::from_bits((bits % (1 << 32)).try_into().unwrap_or(0u32)).into(),
                prefix,
            )
            .unwrap(),
            false => Network::host(std::net::Ipv6Addr::from_bits(bits | 1 << 127).into()),
        })
    };
    let interface = || {
        let name = "[a-zA-Z][a-zA-Z0-9._@:]{3,13}";
        // Such a name may be an address, as B6:: is.
        proptest::option::of(name.prop_filter_map("a name", |text| text.parse::<Interface>().ok()))
    };
    let target = prop_oneof![Just(Target::Accept), Just(Target::Drop), Just(Target::Reject)];
    let networks = any::<bool>().prop_flat_map(move |v4| (network(v4), proptest::option::of(network(v4))));
    (target, networks, interface(), interface(), 0..3).prop_filter_map(
        "unspecified address",
        |(target, (a, b), i, o, chain)| match chain {
            0 => Scope::input(target, i).rule(a).ok(),
            1 => Scope::output(target, o).rule(a).ok(),
            _ => Rule::new(Scope::forward(target, i, o), b, Some(a)).ok(),
        },
    )
}

#[test]
fn any_other_rule_is_not_a_guard() {
    for (at, [line, owner]) in cases("guards.txt") {
        let chain = line.split(' ').next().unwrap();
        let expected = match owner.as_str() {
            "guard" => format!("guard {line}"),
            _ => format!("other in {chain}"),
        };
        assert_eq!(read(&format!("-A {line}"), Family::V4), expected, "{at}");
    }
}

proptest! {
    #[test]
    fn a_rule_printed_and_read_again_is_itself(
        rule in rules(),
        seconds in 0u64..4_000_000_000,
        list in proptest::option::of("[a-z0-9][a-z0-9._-]{0,15}"),
        given in proptest::option::of(("\\PC{0,90}", "[\\\\' a-z]{0,40}\\PC*")),
    ) {
        let note = |(by, reason): (String, String)| Some(Box::new(Note::new(&by, Reason::cut(&reason)?)));
        let label = Label {
            lease: Interval::parse(&format!("{}", seconds % 1_000_000)).unwrap()
                .from(std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds)),
            list: list.map_or(ListName::UNNAMED, |name| name.parse().unwrap()),
            note: given.and_then(note),
        };
        let chain = Layout::default().chain(rule.scope());
        let mut line = format!("-A {}", specification(&chain, rule.scope().target().name(), &rule, &label));
        if rule.scope().target() == Target::Reject {
            line = format!("{line} --reject-with {}", reject_with(rule.family()));
        }
        prop_assert_eq!(parse(&line, rule.family(), &Reading::default()).map(|line| line.owner), Some(Owner::Rfw(rule.clone(), label.clone())));
        // As iptables-save prints it.
        let line = line.replace('\'', "\\'");
        prop_assert_eq!(parse(&line, rule.family(), &Reading::default()).map(|line| line.owner), Some(Owner::Rfw(rule, label)));
    }

    #[test]
    fn no_line_panics(line in "\\PC*", tail in "[-a-z\" \\\\0-9./]{0,60}") {
        let _ = parse(&line, Family::V4, &Reading::default());
        let _ = parse(&format!("[0:0] -A INPUT {tail}"), Family::V6, &Reading::default());
        let raw = Reading { table: TableName::Raw, forward: None };
        let _ = parse(&format!("[0:0] -A RFW {tail}"), Family::V6, &raw);
    }
}
