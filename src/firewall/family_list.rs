//! The networks of one family in a list, and the rules that stand for them.

use super::ListResult;
use crate::firewall::rule_cache::{CachedRule, RuleCache};
use crate::kernel::set_key::{SetKey, Side};
use crate::rule::list_name::ListName;
use crate::rule::network::{Family, Network};
use crate::rule::{Chain, Rule, Scope};

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
        FamilyList { set: FamilyList::key(scope, family), networks }
    }

    /// The key of the set that holds the networks of a body.
    pub(super) fn key(scope: &Scope, family: Family) -> SetKey {
        SetKey::new(family, scope.clone(), side_of(scope))
    }

    /// The rules of these networks.
    pub(super) fn rules(&self) -> impl Iterator<Item = Rule> {
        self.networks.iter().filter_map(|network| self.rule(network))
    }

    /// The rule of one of these networks.
    pub(super) fn rule(&self, network: &Network) -> Option<Rule> {
        self.set.scope().clone().rule(*network).ok()
    }

    /// Those of the rules that a list has.
    pub(super) fn present<'a>(
        &self,
        cache: &'a RuleCache,
        list: ListName,
    ) -> Vec<(&'a Rule, &'a CachedRule)> {
        cache.copies_of(self.rules(), list)
    }

    /// What a list has in this scope, on this side: these networks and others.
    pub(super) fn whole<'a>(&self, cache: &'a RuleCache, list: ListName) -> Vec<(&'a Rule, &'a CachedRule)> {
        cache.find_copies(|rule, label| label.list == list && is_in_scope(rule, self.set.scope()))
    }

    pub(super) fn count(&self, present: usize) -> ListResult {
        ListResult { present, absent: self.networks.len().saturating_sub(present), removed: 0 }
    }
}

/// The side that the networks of a list are on.
fn side_of(scope: &Scope) -> Side {
    match scope.chain() {
        Chain::Output => Side::Destination,
        Chain::Input | Chain::Forward => Side::Source,
    }
}

/// Whether a list of that scope can have this rule: in a forward scope, only the source.
pub(super) fn is_in_scope(rule: &Rule, scope: &Scope) -> bool {
    rule.scope() == scope && SetKey::of(rule).side() == side_of(scope)
}
