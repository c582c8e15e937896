//! Plans over a model of the kernel's tables, which reads what iptables-restore is given and prints what
//! iptables-save would.

use super::*;
use crate::kernel::iptables::{Reading, parse};
use crate::rule::layout::{ChainName, InputTable, TableName};
use crate::rule::network::Family;
use crate::rule::rule_of;
use proptest::prelude::*;

/// The rules of each chain, in the words of iptables-save, by table and chain.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Kernel(BTreeMap<(TableName, String), Vec<String>>);

impl Kernel {
    fn new() -> Kernel {
        let filter = ["INPUT", "FORWARD", "OUTPUT"].map(|chain| (TableName::Filter, chain));
        let raw = ["PREROUTING", "OUTPUT"].map(|chain| (TableName::Raw, chain));
        let chains = filter.into_iter().chain(raw);
        Kernel(chains.map(|(table, chain)| ((table, chain.to_owned()), Vec::new())).collect())
    }

    /// Has iptables-restore read a script.
    fn restore(&mut self, script: &str) {
        let mut table = TableName::Filter;
        for line in script.lines() {
            match line.split_once(' ') {
                None if line == "*raw" => table = TableName::Raw,
                None => table = TableName::Filter,
                Some(("-N", chain)) => {
                    let made = self.0.insert((table, chain.to_owned()), Vec::new());
                    assert_eq!(made, None, "{script}");
                }
                Some(("-X", chain)) => {
                    let chain = self.0.remove(&(table, chain.to_owned()));
                    assert_eq!(chain, Some(Vec::new()), "{script}");
                }
                Some((command, rule)) => self.edit(table, command, rule),
            }
        }
    }

    fn edit(&mut self, table: TableName, command: &str, rule: &str) {
        let (chain, rule) = rule.split_once(' ').unwrap();
        let rules = self.0.get_mut(&(table, chain.to_owned())).unwrap();
        let (number, rule) = match rule.split_once(' ').unwrap() {
            (number, rest) if number.parse::<usize>().is_ok() => (number.parse().unwrap(), rest),
            _ => (1, rule),
        };
        let reject = if rule.ends_with("-j REJECT") { " --reject-with icmp-port-unreachable" } else { "" };
        let rule = format!("{rule}{reject}").replace("\"rfw\"", "rfw");
        match command {
            "-I" => rules.insert(number - 1, rule),
            "-A" => rules.push(rule),
            _ => {
                let at = rules.iter().position(|there| *there == rule);
                rules.remove(at.unwrap_or_else(|| panic!("{chain} {rule}: {rules:?}")));
            }
        }
    }

    fn chain(&mut self, table: TableName, chain: &str) -> &mut Vec<String> {
        self.0.entry((table, chain.to_owned())).or_default()
    }

    /// What a reading tells, while rules are to stand so.
    fn read(&self, layout: &Layout) -> RuleCache {
        let mut reader = CacheReader::new(layout.clone());
        for table in [TableName::Raw, TableName::Filter] {
            let reading = Reading { table, forward: None };
            for ((_, chain), rules) in self.0.iter().filter(|((of, _), _)| *of == table) {
                for rule in rules {
                    reader.line(table, parse(&format!("-A {chain} {rule}"), Family::V4, &reading).unwrap());
                }
                reader.chains(table, std::slice::from_ref(chain));
            }
        }
        reader.end()
    }

    /// Puts all where it belongs, as a table does before a change.
    fn settle(&mut self, layout: &Layout, by_precedence: bool) {
        self.settle_in_parts(layout, by_precedence, usize::MAX);
    }

    fn settle_in_parts(&mut self, layout: &Layout, by_precedence: bool, most: usize) {
        for _ in 0..100 {
            let cache = self.read(layout);
            if !cache.is_astray() {
                return;
            }
            let mut transaction = Transaction::new(cache.layout().clone());
            cache.plan_layout(&mut transaction, by_precedence, most);
            cache.complete(&mut transaction);
            self.restore(&transaction.script());
        }
        panic!("{self:#?}");
    }

    /// Makes a change that is planned from a reading.
    fn change(&mut self, layout: &Layout, plan: impl Fn(&RuleCache, &mut Transaction)) {
        let mut cache = self.read(layout);
        let mut transaction = Transaction::new(cache.layout().clone());
        plan(&cache, &mut transaction);
        cache.complete(&mut transaction);
        self.restore(&transaction.script());
        cache.apply(&transaction);
        assert_eq!(cache.raw, self.read(layout).raw, "{transaction:?}");
    }

    /// Puts a rule in as a request does.
    fn put(&mut self, layout: &Layout, path: &str, by_precedence: bool) {
        self.change(layout, |cache, transaction| {
            let rule = rule_of(path);
            let number = if by_precedence { cache.number_for(rule.scope()) } else { 1 };
            transaction.insert(&rule, &label(), number);
        });
    }

    /// Takes a rule out.
    fn delete(&mut self, layout: &Layout, path: &str) {
        self.change(layout, |_, transaction| transaction.delete(&rule_of(path), &label()));
    }

    /// A chain: of each rule its address and target.
    fn short(&self, table: TableName, chain: &str) -> Vec<String> {
        let rules = self.0.get(&(table, chain.to_owned())).map_or(&[][..], Vec::as_slice);
        let word = |rule: &str, option: &str| {
            rule.split(' ').skip_while(|word| *word != option).nth(1).unwrap_or("any").to_owned()
        };
        rules.iter().map(|rule| format!("{} {}", word(rule, "-s"), word(rule, "-j"))).collect()
    }
}

fn label() -> Label {
    Label::from_comment("rfw permanent").unwrap()
}

fn raw() -> Layout {
    Layout { input: InputTable::Raw, ..Layout::default() }
}

fn docker() -> Layout {
    Layout { forward: "DOCKER-USER".parse().unwrap(), ..Layout::default() }
}

const OTHERS: &str = "-s 9.9.9.9 -j ACCEPT";

#[test]
fn the_chain_in_raw_comes_with_its_first_rule_and_goes_with_its_last() {
    let mut kernel = Kernel::new();
    kernel.put(&raw(), "/reject/input/any/1.2.3.1", true);
    assert_eq!(kernel.short(TableName::Raw, "PREROUTING"), Vec::<String>::new());
    kernel.put(&raw(), "/drop/input/any/1.2.3.4", true);
    kernel.put(&raw(), "/accept/input/any/1.2.3.5", true);
    kernel.put(&raw(), "/drop/input/any/1.2.3.6", true);
    assert_eq!(kernel.short(TableName::Raw, "PREROUTING"), ["any RFW"]);
    assert_eq!(kernel.short(TableName::Raw, "RFW"), ["1.2.3.5 RETURN", "1.2.3.6 DROP", "1.2.3.4 DROP"]);
    assert_eq!(kernel.short(TableName::Filter, "INPUT"), ["1.2.3.5 ACCEPT", "1.2.3.1 REJECT"]);
    for path in ["/drop/input/any/1.2.3.4", "/accept/input/any/1.2.3.5"] {
        kernel.delete(&raw(), path);
    }
    // What others have put into it is not taken away with it, and the jump stays meanwhile.
    kernel.chain(TableName::Raw, "RFW").push(OTHERS.to_owned());
    kernel.delete(&raw(), "/drop/input/any/1.2.3.6");
    assert_eq!(kernel.short(TableName::Raw, "RFW"), ["9.9.9.9 ACCEPT"]);
    assert!(!kernel.read(&raw()).has_foreign_chain());
    kernel.chain(TableName::Raw, "RFW").clear();
    kernel.settle(&raw(), true);
    let mut empty = Kernel::new();
    empty.put(&raw(), "/reject/input/any/1.2.3.1", true);
    assert_eq!(kernel, empty);
}

#[test]
fn a_chain_of_others_of_that_name_is_theirs() {
    let mut kernel = Kernel::new();
    kernel.chain(TableName::Raw, "RFW");
    assert!(!kernel.read(&raw()).has_foreign_chain());
    kernel.chain(TableName::Raw, "RFW").push(OTHERS.to_owned());
    let cache = kernel.read(&raw());
    assert!(cache.has_foreign_chain() && !cache.is_astray());
}

#[test]
fn rules_are_taken_along_in_their_order() {
    let paths = [
        "/drop/input/any/1.2.3.1",
        "/accept/input/any/1.2.3.2",
        "/drop/input/any/1.2.3.3",
        "/reject/input/any/1.2.3.4",
        "/accept/input/any/1.2.3.5",
        "/drop/input/any/1.2.3.6",
    ];
    for by_precedence in [false, true] {
        let [mut filter, mut in_raw] = [Kernel::new(), Kernel::new()];
        for path in paths {
            filter.put(&Layout::default(), path, by_precedence);
            in_raw.put(&raw(), path, by_precedence);
        }
        let before = filter.clone();
        for most in [1, 2, 100] {
            filter = before.clone();
            filter.settle_in_parts(&raw(), by_precedence, most);
            assert_eq!(filter, in_raw, "{by_precedence}, {most} at a time");
        }
        filter.settle(&Layout::default(), by_precedence);
        let order = |kernel: &Kernel| {
            let mut chain = kernel.short(TableName::Filter, "INPUT");
            // In front of what is carried along, or behind it.
            chain.retain(|rule| !rule.ends_with("REJECT"));
            chain
        };
        assert_eq!(order(&filter), order(&before), "{by_precedence}");
        assert_eq!(filter.short(TableName::Filter, "INPUT").len(), paths.len());
        assert_eq!(filter.short(TableName::Raw, "PREROUTING"), Vec::<String>::new());
    }
}

#[test]
fn what_others_have_changed_of_an_exception_is_mended() {
    let mut kernel = Kernel::new();
    for path in ["/drop/input/any/1.2.3.0/24", "/accept/input/any/1.2.3.1", "/accept/input/any/1.2.3.2"] {
        kernel.put(&raw(), path, true);
    }
    let whole = kernel.clone();
    // An exception and the jump, then all of the chain.
    kernel.chain(TableName::Raw, "RFW").remove(1);
    kernel.chain(TableName::Raw, "PREROUTING").clear();
    kernel.settle(&raw(), true);
    let mut expected = whole.clone();
    expected.chain(TableName::Raw, "RFW").swap(0, 1);
    assert_eq!(kernel, expected);
    kernel.chain(TableName::Raw, "RFW").clear();
    kernel.settle(&raw(), true);
    assert_eq!(kernel.short(TableName::Raw, "RFW"), ["1.2.3.2 RETURN", "1.2.3.1 RETURN"]);
    // A doubled jump.
    let mut kernel = whole.clone();
    let jump = kernel.chain(TableName::Raw, "PREROUTING")[0].clone();
    kernel.chain(TableName::Raw, "PREROUTING").push(jump);
    kernel.settle(&raw(), true);
    assert_eq!(kernel, whole);
    // An accept that is gone takes its exception along.
    kernel.chain(TableName::Filter, "INPUT").remove(0);
    kernel.settle(&raw(), true);
    assert_eq!(kernel.short(TableName::Raw, "RFW"), ["1.2.3.1 RETURN", "1.2.3.0/24 DROP"]);
    // A drop that a saved file has brought back to INPUT.
    let mut kernel = whole.clone();
    let drop = kernel.chain(TableName::Raw, "RFW")[2].clone();
    kernel.chain(TableName::Filter, "INPUT").push(drop);
    kernel.settle(&raw(), true);
    assert_eq!(kernel, whole);
}

#[test]
fn rules_of_forward_follow_their_chain() {
    let mut kernel = Kernel::new();
    kernel.put(&docker(), "/drop/forward/any/1.2.3.1", true);
    kernel.put(&docker(), "/accept/forward/any/1.2.3.2", true);
    let in_forward = ["1.2.3.2 ACCEPT", "1.2.3.1 DROP"];
    assert_eq!(kernel.short(TableName::Filter, "FORWARD"), in_forward);
    assert_eq!(kernel.read(&docker()).forward_chain(), ForwardChain::Missing);
    kernel.chain(TableName::Filter, "DOCKER-USER").push("-j RETURN".to_owned());
    assert_eq!(kernel.read(&docker()).forward_chain(), ForwardChain::Unreached);
    kernel.chain(TableName::Filter, "FORWARD").push("-o docker0 -j DOCKER-FORWARD".to_owned());
    kernel.chain(TableName::Filter, "DOCKER-FORWARD").push("-g DOCKER-USER".to_owned());
    assert_eq!(kernel.read(&docker()).forward_chain(), ForwardChain::InUse);
    kernel.settle(&docker(), true);
    let in_chain = ["1.2.3.2 ACCEPT", "1.2.3.1 DROP", "any RETURN"];
    assert_eq!(kernel.short(TableName::Filter, "DOCKER-USER"), in_chain);
    assert_eq!(kernel.short(TableName::Filter, "FORWARD"), ["any DOCKER-FORWARD"]);
    // Of INPUT only if not of FORWARD.
    kernel.chain(TableName::Filter, "INPUT").push("-j DOCKER-USER".to_owned());
    kernel.chain(TableName::Filter, "INPUT").push("-j OTHERS".to_owned());
    let own = kernel.chain(TableName::Filter, "DOCKER-USER")[1].replace("1.2.3.1", "1.2.3.9");
    kernel.chain(TableName::Filter, "OTHERS").push(own);
    kernel.settle(&Layout::default(), true);
    assert_eq!(kernel.short(TableName::Filter, "OTHERS"), ["1.2.3.9 DROP"]);
    assert_eq!(kernel.short(TableName::Filter, "DOCKER-USER"), ["any RETURN"]);
    assert_eq!(kernel.short(TableName::Filter, "FORWARD")[..2], in_forward);
    let other = Layout { forward: "mine".parse::<ChainName>().unwrap(), ..raw() };
    kernel.chain(TableName::Filter, "mine");
    kernel.settle(&other, true);
    assert_eq!(kernel.short(TableName::Filter, "mine"), in_forward);
}

/// The names of the chains in which a rule of others has come before those of rfw.
fn overtaken(kernel: &Kernel, layout: &Layout) -> Vec<String> {
    kernel.read(layout).overtaken().map(ToString::to_string).collect()
}

#[test]
fn rules_of_others_that_could_accept_are_told_from_those_that_can_not() {
    let chains = ["mine", "deep", "empty"];
    for (others, expected) in [
        ("-s 9.9.9.9 -j ACCEPT", true),
        ("-j NFQUEUE --queue-num 1", true),
        ("-j SOMETHING", true),
        ("-s 9.9.9.9 -j DROP", false),
        ("-s 9.9.9.9 -j REJECT", false),
        ("-j RETURN", false),
        ("-j LOG --log-prefix \"-j ACCEPT\"", false),
        ("-j MARK --set-xmark 0x1/0xffffffff", false),
        ("-s 9.9.9.9", false),
        ("-m comment --comment \"-j ACCEPT\"", false),
        ("-j mine", true),
        ("-g mine", true),
        ("-j deep", false),
        ("-j empty", false),
    ] {
        let mut kernel = Kernel::new();
        for chain in chains {
            kernel.chain(TableName::Filter, chain);
        }
        kernel.chain(TableName::Filter, "mine").push("-j deep".to_owned());
        kernel.chain(TableName::Filter, "mine").push(OTHERS.to_owned());
        kernel.chain(TableName::Filter, "deep").push("-j DROP".to_owned());
        // A circle, which iptables does not take, is no endless loop.
        kernel.chain(TableName::Filter, "deep").push("-j deep".to_owned());
        for path in ["/drop/input/any/1.2.3.1", "/drop/input/any/1.2.3.2", "/drop/output/any/1.2.3.1"] {
            kernel.put(&Layout::default(), path, true);
        }
        kernel.chain(TableName::Filter, "OUTPUT").insert(0, others.to_owned());
        kernel.chain(TableName::Filter, "INPUT").push(others.to_owned());
        assert_eq!(overtaken(&kernel, &Layout::default()), [""; 0], "{others}");
        kernel.chain(TableName::Filter, "INPUT").insert(1, others.to_owned());
        let names = overtaken(&kernel, &Layout::default());
        assert_eq!(names, if expected { vec!["INPUT"] } else { vec![] }, "{others}");
    }
}

#[test]
fn rules_come_before_those_of_others_again() {
    let layout = Layout { forward: docker().forward, ..raw() };
    let mut kernel = Kernel::new();
    kernel.chain(TableName::Filter, "DOCKER-USER");
    for path in ["/drop/input/any/1.2.3.1", "/accept/input/any/1.2.3.2", "/drop/forward/any/1.2.3.3"] {
        kernel.put(&layout, path, true);
    }
    let whole = kernel.clone();
    let chains =
        [(TableName::Filter, "INPUT"), (TableName::Filter, "DOCKER-USER"), (TableName::Raw, "PREROUTING")];
    for (table, chain) in chains {
        kernel.chain(table, chain).insert(0, OTHERS.to_owned());
    }
    assert_eq!(overtaken(&kernel, &layout), ["INPUT", "DOCKER-USER", "PREROUTING of the table raw"]);
    let cache = kernel.read(&layout);
    for chain in cache.overtaken() {
        kernel.change(&layout, |_, transaction| {
            assert!(!plan_first(cache.overtaken_in(chain), true, 100, transaction));
        });
    }
    assert_eq!(overtaken(&kernel, &layout), [""; 0]);
    for (table, chain) in chains {
        assert_eq!(kernel.chain(table, chain).pop().as_deref(), Some(OTHERS));
    }
    assert_eq!(kernel, whole);
}

proptest! {
    #[test]
    fn options_turned_over_lose_nothing(
        steps in proptest::collection::vec((0..6u8, 1..4u8, 0..3usize), 1..30),
        by_precedence: bool,
    ) {
        let (mut kernel, mut layout) = (Kernel::new(), Layout::default());
        kernel.chain(TableName::Filter, "DOCKER-USER");
        let mut model = BTreeSet::new();
        for (step, number, target) in steps {
            let target = ["drop", "accept", "reject"][target];
            let chain = if number == 3 { "forward" } else { "input" };
            let path = format!("/{target}/{chain}/any/1.2.3.{number}");
            match step {
                0 => layout.input = if layout == raw() { InputTable::Filter } else { InputTable::Raw },
                1 => layout.forward = docker().forward,
                2 => layout.forward = ChainName::forward(),
                _ => {}
            }
            kernel.settle(&layout, by_precedence);
            if step > 2 {
                match model.remove(&path) {
                    true => kernel.delete(&layout, &path),
                    false => {
                        kernel.put(&layout, &path, by_precedence);
                        model.insert(path);
                    }
                }
            }
            let cache = kernel.read(&layout);
            prop_assert!(!cache.is_astray());
            let there: BTreeSet<Rule> = cache.rules().cloned().collect();
            prop_assert_eq!(there, model.iter().map(|path| rule_of(path)).collect());
            prop_assert_eq!(cache.labelled().count(), model.len());
            for chain in [Chain::Input, Chain::Forward, Chain::Output] {
                prop_assert!(!by_precedence || cache.is_in_order(chain), "{:#?}", kernel);
            }
            let jumps = usize::from(kernel.0.contains_key(&(TableName::Raw, "RFW".to_owned())));
            prop_assert_eq!(kernel.short(TableName::Raw, "PREROUTING").len(), jumps);
        }
    }
}
