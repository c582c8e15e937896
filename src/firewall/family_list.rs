//! The networks of one family in a list, and the rules that stand for them.

use super::ListResult;
use crate::firewall::rule_cache::RuleCache;
use crate::kernel::iptables::Transaction;
use crate::kernel::set_key::{SetKey, Side};
use crate::rule::lease::Lease;
use crate::rule::network::{Family, Network};
use crate::rule::{Chain, Rule, Scope};
use std::collections::HashSet;

/// The networks of one family in a list.
pub(super) struct FamilyList {
    /// The key of their set; without sets it stands for family and scope.
    pub(super) set: SetKey,
    /// In ascending order and without doubles.
    pub(super) networks: Vec<Network>,
}

impl FamilyList {
    pub(super) fn new(scope: &Scope, family: Family, mut networks: Vec<Network>) -> FamilyList {
        networks.sort_unstable();
        networks.dedup();
        let side = match scope.chain() {
            Chain::Output => Side::Destination,
            Chain::Input | Chain::Forward => Side::Source,
        };
        FamilyList { set: SetKey::new(family, scope.clone(), side), networks }
    }

    /// The rules of these networks.
    pub(super) fn rules(&self) -> impl Iterator<Item = Rule> {
        self.networks.iter().filter_map(|network| self.set.scope().clone().rule(*network).ok())
    }

    /// Those of the rules that exist.
    pub(super) fn present<'a>(&self, cache: &'a RuleCache) -> Vec<(&'a Rule, Lease)> {
        cache.find(|rule, _| {
            rule.scope() == self.set.scope()
                && rule.networks().all(|network| self.networks.binary_search(network).is_ok())
                && SetKey::of(rule) == self.set
        })
    }

    /// Plans to delete the rules that exist. Returns their networks.
    pub(super) fn delete_present(
        &self,
        cache: &RuleCache,
        transaction: &mut Transaction,
    ) -> HashSet<Network> {
        let present = self.present(cache);
        present.iter().for_each(|(rule, lease)| transaction.delete(rule, *lease));
        present.iter().flat_map(|(rule, _)| rule.networks().copied()).collect()
    }

    pub(super) fn count(&self, present: usize) -> ListResult {
        ListResult { present, absent: self.networks.len().saturating_sub(present), removed: 0 }
    }
}
