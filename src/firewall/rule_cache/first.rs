//! The option `stay.first`: moving the rules of rfw in a chain in front of those of others again.
//! No I/O.

use super::{Placed, RuleCache};
use crate::kernel::iptables::{Owner, Transaction};
use crate::rule::Target;
use crate::rule::layout::KernelChain;

/// The rules of rfw in a chain where not all of them stand before what could accept.
#[derive(Debug, Clone)]
pub(in crate::firewall) struct Overtaken {
    /// In the order of the table.
    pub own: Vec<Placed>,
    /// Whether rules of others stand before them, and not rfw's own guard alone, which is open for all.
    pub by_others: bool,
}

impl RuleCache {
    /// The chains in which a foreign rule that could accept, or the guard where it is open for all, stands before
    /// one of rfw's, as last read.
    pub(in crate::firewall) fn overtaken(&self) -> impl Iterator<Item = &KernelChain> {
        self.overtaken.keys()
    }

    /// The rules of rfw in such a chain, in the order of the table; none if it is not one.
    pub(in crate::firewall) fn overtaken_in(&self, chain: &KernelChain) -> &[Placed] {
        self.overtaken.get(chain).map_or(&[], |overtaken| overtaken.own.as_slice())
    }

    /// Whether it is rules of others that stand before them.
    pub(in crate::firewall) fn is_overtaken_by_others(&self, chain: &KernelChain) -> bool {
        self.overtaken.get(chain).is_some_and(|overtaken| overtaken.by_others)
    }
}

/// The most rules that iptables-nft-restore is to look at for the deletions of a move, about a second's
/// worth: rather than more, those at the head are moved too, so that each deletion finds its rule there.
const LOOKED_AT_MAX: usize = 1_000_000;

/// Plans to move the rules of rfw to the head of their chain, given in the order of the table: the guard
/// first, then, by precedence, accept, reject and drop. A guard that is open for all comes last, since what is
/// blocked is not to get through it. Of many, only the first `most` that are not at the
/// head yet are moved. Gives whether some are left.
pub(in crate::firewall) fn plan_first(
    placed: &[Placed],
    by_precedence: bool,
    most: usize,
    transaction: &mut Transaction,
) -> bool {
    let mut wanted: Vec<&Placed> = placed.iter().collect();
    let is_open = placed.iter().any(|placed| is_open(&placed.owner));
    // It is stable.
    wanted.sort_by_cached_key(|placed| rank(&placed.owner, by_precedence, is_open));
    let at_head = wanted.iter().zip(1..).take_while(|(placed, number)| placed.number == *number).count();
    // A deletion looks at all rules before the one that goes.
    let is_cheap = at_head.saturating_mul(wanted.len().min(most)) <= LOOKED_AT_MAX;
    let at_head = if is_cheap || wanted.len() > most { at_head } else { 0 };
    let behind = wanted.get(at_head..).unwrap_or_default();
    let mut moved: Vec<&Placed> = behind.iter().take(most).copied().collect();
    let mut by_number = moved.clone();
    by_number.sort_by_cached_key(|placed| placed.number);
    by_number.iter().for_each(|placed| transaction.take(&placed.chain, placed.owner.clone()));
    // Each comes before those that were put in earlier.
    moved.reverse();
    for placed in &moved {
        transaction.put(&placed.chain, placed.owner.clone(), at_head + 1);
    }
    behind.len() > most
}

/// Whether it is a rule of the guard that accepts packets of any address.
pub(super) fn is_open(owner: &Owner) -> bool {
    matches!(owner, Owner::Guard(guard) if guard.is_open())
}

fn rank(owner: &Owner, by_precedence: bool, is_open: bool) -> usize {
    match (owner, owner.scope().map(crate::rule::Scope::target)) {
        (Owner::Guard(_), _) if is_open => 4,
        (Owner::Guard(_), _) => 0,
        (_, Some(Target::Reject)) if by_precedence => 2,
        (_, Some(Target::Drop)) if by_precedence => 3,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::guard::Guard;
    use crate::kernel::iptables::Change;
    use crate::rule::label::Label;
    use crate::rule::rule_of;

    /// A chain in the words of the tests: `g` a guard rule that drops, `o` one that is open for all, `a`, `r` and `d` rules with these
    /// targets, followed by a digit that tells them apart, `F` a foreign one.
    fn own(word: &str) -> Option<Owner> {
        let (kind, number) = word.split_at(1);
        let target = match kind {
            "g" => return Some(Owner::Guard(Guard::all(number.parse().unwrap(), [].iter())[0])),
            "o" => return Some(Owner::Guard(Guard::open(number.parse().unwrap())[2])),
            "F" => return None,
            "a" => "accept",
            "r" => "reject",
            _ => "drop",
        };
        let rule = rule_of(&format!("/{target}/input/any/1.2.3.{number}"));
        Some(Owner::Rfw(rule, Label::from_comment("rfw permanent").unwrap()))
    }

    fn placed(chain: &[&str]) -> Vec<Placed> {
        let numbered = chain.iter().zip(1..);
        let own = numbered.filter_map(|(word, number)| Some((own(word)?, number)));
        own.map(|(owner, number)| Placed { chain: KernelChain::Input, owner, number, position: 0 }).collect()
    }

    /// Moves until nothing is left, and gives the chain and the number of transactions.
    fn moved(text: &str, by_precedence: bool, most: usize) -> (String, usize) {
        let mut chain: Vec<&str> = text.split_whitespace().collect();
        for count in 1.. {
            let mut transaction = Transaction::default();
            let more = plan_first(&placed(&chain), by_precedence, most, &mut transaction);
            for change in transaction.changes() {
                let word = |owner: &Owner| {
                    text.split_whitespace().find(|word| own(word).as_ref() == Some(owner)).unwrap()
                };
                match change {
                    Change::Take(_, owner) => {
                        let at = chain.iter().position(|there| *there == word(owner)).unwrap();
                        chain.remove(at);
                    }
                    Change::Put(_, owner, number) => chain.insert(number - 1, word(owner)),
                    change => panic!("{change:?}"),
                }
            }
            if !more {
                return (chain.join(" "), count);
            }
        }
        unreachable!()
    }

    #[test]
    fn rules_come_to_the_head_in_their_order() {
        for (chain, by_precedence, expected) in [
            ("F1 g1 a1 r1 d1 d2", true, "g1 a1 r1 d1 d2 F1"),
            ("F1 g1 d1 a1 d2", false, "g1 d1 a1 d2 F1"),
            ("a1 F1 g1 F2 d1", true, "g1 a1 d1 F1 F2"),
            ("g1 a1 F1 r1 F2 d1 d2", true, "g1 a1 r1 d1 d2 F1 F2"),
            ("d1 F1 a1", true, "a1 d1 F1"),
            ("d1 F1 a1", false, "d1 a1 F1"),
            ("d1 d2 F1", false, "d1 d2 F1"),
            ("o1 g1 d1 d2 F1", true, "d1 d2 o1 g1 F1"),
            ("F1 d1 o1 g1 a1 d2 F2", true, "a1 d1 d2 o1 g1 F1 F2"),
            ("d1 o1 g1 F1", true, "d1 o1 g1 F1"),
        ] {
            for most in [1, 2, 3, 100] {
                let (after, count) = moved(chain, by_precedence, most);
                assert_eq!(after, expected, "{chain}, {most} at a time");
                assert!(most < 100 || count == 1);
            }
        }
    }
}
