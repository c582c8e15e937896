use crate::kernel::iptables::{Line, Owner, Reading, Transaction, parse};
use crate::kernel::save_reader::{End, SaveReader};
use crate::rule::Target;
use crate::rule::network::Family;

/// What the table of every host begins with.
const HEAD: &str = "*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n";

/// Input: a byte, whose bits tell the family, whether the head of a table goes before and whether all
/// but text is left out; what iptables-save prints.
pub(super) fn holds(data: &[u8]) {
    let Some((choice, output)) = data.split_first() else { return };
    let family = if choice & 1 == 0 { Family::V4 } else { Family::V6 };
    let output = String::from_utf8_lossy(output);
    let text = if choice & 2 == 0 { output.into_owned() } else { format!("{HEAD}{output}") };
    let mut reader = SaveReader::new(family, Reading::default());
    let (mut rules, mut committed) = (0, false);
    for line in text.lines() {
        // Whatever is cut off before its last line is not taken for a whole table.
        assert!(committed || reader.end() != Ok(End::Whole), "{line:?}");
        committed |= line == "COMMIT";
        match reader.line(line) {
            Ok(None) => {}
            Ok(Some(rule)) => {
                rules += 1;
                check(&rule, family);
            }
            Err(told) => {
                assert!(!told.contains(char::is_control) && told.len() < 3_000, "{told:?}");
                return;
            }
        }
    }
    let begun = text.lines().any(|line| line == "*filter");
    match reader.end() {
        Ok(End::Whole) => {
            assert!(begun && committed);
            let defined = |chain: &str| text.lines().any(|line| line.starts_with(&format!(":{chain}")));
            assert!(["INPUT", "FORWARD", "OUTPUT"].into_iter().all(defined));
        }
        Ok(End::Empty) => assert!(rules == 0 && !begun),
        Err(told) => assert!(!told.is_empty()),
    }
}

/// A rule of rfw is written as it was read; with anything else in it, it is not rfw's.
fn check(line: &Line, family: Family) {
    let mut transaction = Transaction::default();
    let mut reject = "";
    match &line.owner {
        Owner::Other => return,
        Owner::Return(..) | Owner::ReturnSet(_) | Owner::Jump => panic!("{line:?} is of the table raw"),
        Owner::Rfw(rule, label) => {
            assert_eq!((rule.family(), rule.scope().chain().name()), (family, line.chain.as_str()));
            transaction.insert(rule, label, 1);
            reject = reject_with(rule.scope().target(), family);
        }
        Owner::Set(set) => {
            assert_eq!((set.family(), set.scope().chain().name()), (family, line.chain.as_str()));
            transaction.insert_set(set, 1);
            reject = reject_with(set.scope().target(), family);
        }
        Owner::Guard(guard) => {
            assert_eq!(if guard.is_output() { "OUTPUT" } else { "INPUT" }, line.chain);
            transaction.insert_guards(&[*guard]);
        }
    }
    let script = transaction.script();
    let rule = script.strip_prefix("*filter\n-I ").and_then(|rest| rest.strip_suffix("\nCOMMIT\n"));
    let rule = rule.expect("one line");
    assert!(!rule.contains('\n'));
    let written = format!("[{}:{}] -A {rule}{reject}", line.counters.packets, line.counters.bytes);
    assert_eq!(parse(&written, family, &Reading::default()).as_ref(), Some(line), "{written}");
    for foreign in [" -m tcp", " -p udp", " ! -f", " -s 1.2.3.4 -s 1.2.3.4"] {
        let (before, target) = written.rsplit_once(" -j ").expect("a target");
        for foreign in [format!("{written}{foreign}"), format!("{before}{foreign} -j {target}")] {
            let read = parse(&foreign, family, &Reading::default());
            assert!(read.is_none_or(|line| line.owner == Owner::Other), "{foreign}");
        }
    }
}

fn reject_with(target: Target, family: Family) -> &'static str {
    match (target, family) {
        (Target::Reject, Family::V4) => " --reject-with icmp-port-unreachable",
        (Target::Reject, Family::V6) => " --reject-with icmp6-port-unreachable",
        _ => "",
    }
}
