//! What saved rules say of sets: the formats of iptables-save(8), ipset(8) save and nft(8). No I/O.

use std::collections::BTreeSet;

/// The options of iptables-extensions(8) that name a set.
const SET_OPTIONS: [&str; 4] = ["--match-set", "--add-set", "--del-set", "--map-set"];

/// What nft(8) prints of rules that iptables has made and that it can't read itself.
const FOREIGN_TO_NFT: [&str; 3] = ["xt match ", "xt target ", "xt watcher "];

/// The lines of saved rules that name sets of rfw.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct SetLines<'a> {
    /// The number of the first, from 1.
    pub first: usize,
    /// The set that it names.
    pub set: &'a str,
    /// How many there are.
    pub count: usize,
}

/// The lines of an iptables-save(8) that name sets of rfw, without those that are loaded before.
pub(super) fn set_lines<'a>(text: &'a str, loaded: &BTreeSet<String>) -> Option<SetLines<'a>> {
    let named = (1..).zip(text.lines()).filter_map(|(number, line)| Some((number, own_set(line, loaded)?)));
    let mut named = named.peekable();
    let (first, set) = *named.peek()?;
    Some(SetLines { first, set, count: named.count() })
}

fn own_set<'a>(line: &'a str, loaded: &BTreeSet<String>) -> Option<&'a str> {
    let mut words = line.split_ascii_whitespace();
    if line.starts_with('#') || !words.any(|word| SET_OPTIONS.contains(&word)) {
        return None;
    }
    words.next().filter(|name| is_own(name) && !loaded.contains(*name))
}

/// Whether it is the name of a set of rfw, or that of the list of these sets.
fn is_own(name: &str) -> bool {
    name == "rfw" || name.starts_with("rfw4-") || name.starts_with("rfw6-")
}

/// The sets that an ipset(8) save makes.
pub(super) fn sets_made(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter_map(|line| line.strip_prefix("create ")?.split(' ').next())
}

/// The first line of a ruleset that nft(8) has printed and can't read itself.
pub(super) fn foreign_to_nft(text: &str) -> Option<usize> {
    let is_foreign = |line: &str| {
        let line = line.trim_start();
        !line.starts_with('#') && FOREIGN_TO_NFT.iter().any(|words| line.contains(words))
    };
    (1..).zip(text.lines()).find(|(_, line)| is_foreign(line)).map(|(number, _)| number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_name_sets_of_rfw_are_found() {
        let own = "-A INPUT -m set --match-set rfw4-ids src -m comment --comment \"rfw set\" -j DROP";
        let counted = format!("[12:34] {own}");
        let guard = "-A INPUT -m set ! --match-set rfw6-guard src -j DROP";
        let target = "-A INPUT -j SET --add-set rfw4-ids/tor src --exist";
        type Found = (usize, &'static str, usize);
        let golden: Vec<(Vec<&str>, Option<Found>)> = vec![
            (vec![], None),
            (vec!["*filter", ":INPUT ACCEPT [0:0]", own, "COMMIT"], Some((3, "rfw4-ids", 1))),
            (vec!["*filter", &counted, own, guard, "COMMIT"], Some((2, "rfw4-ids", 3))),
            (vec![guard], Some((1, "rfw6-guard", 1))),
            (vec![target], Some((1, "rfw4-ids/tor", 1))),
            (vec!["-A INPUT -m set --match-set blocked src -j DROP"], None),
            (vec!["-A INPUT -s 1.2.3.4/32 -m comment --comment \"rfw permanent\" -j DROP"], None),
            (vec!["# -A INPUT -m set --match-set rfw4-ids src -j DROP"], None),
            (vec!["-A INPUT -m set --match-set"], None),
        ];
        for (lines, expected) in golden {
            let text = lines.join("\n");
            let found = set_lines(&text, &BTreeSet::new()).map(|found| (found.first, found.set, found.count));
            assert_eq!(found, expected, "{text}");
        }
    }

    #[test]
    fn a_set_that_is_loaded_before_the_rules_is_there() {
        let text = "-A INPUT -m set --match-set rfw4-ids src -j DROP\n\
                    -A OUTPUT -m set --match-set rfw4-oas dst -j ACCEPT";
        let saved = "create rfw4-ids hash:net family inet timeout 0\nadd rfw4-ids 1.2.3.4 timeout 9\n";
        let loaded: BTreeSet<String> = sets_made(saved).map(str::to_owned).collect();
        assert_eq!(loaded.len(), 1);
        let found = set_lines(text, &loaded).unwrap();
        assert_eq!((found.first, found.set, found.count), (2, "rfw4-oas", 1));
    }

    #[test]
    fn what_nft_prints_and_does_not_read_is_found() {
        let golden = [
            (
                "table ip filter {\n\tchain INPUT {\n\t\txt match set  counter packets 0 bytes 0 drop\n",
                Some(3),
            ),
            ("\t\txt match \"set\" counter packets 0 bytes 0 drop", Some(1)),
            ("\t\tip saddr 1.2.3.4 counter xt target \"SET\"", Some(1)),
            ("# xt match \"set\"\ntable inet filter {\n\tchain xt { }\n}\n", None),
            ("", None),
        ];
        for (text, expected) in golden {
            assert_eq!(foreign_to_nft(text), expected, "{text}");
        }
    }
}
