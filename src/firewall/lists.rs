//! What concerns more than one list: whole lists, an address in all of them, what else holds an
//! address, and what each list holds.

use super::family_list::{FamilyList, is_in_scope};
use super::rule_cache::RuleCache;
use super::sets::{EntryResult, Sets};
use super::state::journal::Item;
use super::{Firewall, FirewallError, Held, ListSummary, STILL_MAX, WhichLists};
use crate::kernel::ipset::IpsetError;
use crate::kernel::iptables::Change;
use crate::kernel::set_key::SetKey;
use crate::rule::label::Label;
use crate::rule::lease::{Lease, Moment};
use crate::rule::list_name::ListName;
use crate::rule::network::{Family, Network};
use crate::rule::{Rule, Scope, Target};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::SystemTime;

/// The most lists and scopes of which it is known who has changed them last.
const UPDATES_MAX: usize = 4_096;

/// When a list was changed last in a scope, and by whom.
pub(super) type Updates = HashMap<(ListName, Scope), (Moment, String)>;

/// What lists hold, by list and scope.
type Summaries = BTreeMap<(ListName, Scope), ListSummary>;

impl Firewall {
    /// Takes all that lists hold away, in one scope (of a forward scope its source side) or in all.
    /// Gives the number of addresses.
    ///
    /// # Errors
    /// A table or set can't be read or changed; what was done until then stays done.
    pub(crate) fn delete_lists(
        &mut self,
        which: WhichLists,
        scope: Option<&Scope>,
        now: SystemTime,
    ) -> Result<usize, FirewallError> {
        let wanted = |rule: &Rule, label: &Label| {
            which.admits(label.list) && scope.is_none_or(|scope| is_in_scope(rule, scope))
        };
        let rules = self.delete_rules_where(wanted);
        self.doubt_state_after(&rules);
        let mut count = rules?.len();
        for union in self.unions()? {
            if scope.is_none_or(|scope| FamilyList::key(scope, union.family()) == union) {
                count = count.saturating_add(self.clear_lists(&union, which, now)?);
            }
        }
        Ok(count)
    }

    /// Takes all that lists hold in the sets of a scope away, and the sets of named lists with it.
    fn clear_lists(
        &mut self,
        union: &SetKey,
        which: WhichLists,
        now: SystemTime,
    ) -> Result<usize, FirewallError> {
        let mut count = 0_usize;
        for list in self.sets()?.lists_of(union).into_iter().filter(|list| which.admits(*list)) {
            self.read_list(union, list, now)?;
            let cleared = match self.mending(union, now, |sets| sets.clear(union, list, now)) {
                // Others have destroyed the set of the list: what the union has of it goes now.
                Err(FirewallError::Set(_, IpsetError::NoSet)) => {
                    self.complete(union, now)?;
                    self.mending(union, now, |sets| sets.clear(union, list, now))
                }
                cleared => cleared,
            };
            self.doubt_state_after(&cleared);
            count = count.saturating_add(cleared?);
            self.note(|| Item::Clear(union.with_list(list)));
            self.sets()?.drop_list(union, list, now)?;
        }
        Ok(count)
    }

    /// The unions of all scopes that have sets of rfw.
    pub(super) fn unions(&mut self) -> Result<Vec<SetKey>, FirewallError> {
        if self.sets.is_none() {
            return Ok(Vec::new());
        }
        let linked: BTreeSet<SetKey> =
            self.linked_sets().into_iter().chain(self.known.iter().cloned()).collect();
        let mut own = Vec::new();
        for union in linked {
            if self.has_own_set(&union)? {
                own.push(union);
            }
        }
        Ok(own)
    }

    /// Takes exactly this address or network away, in the scopes and lists that are wanted. Gives what
    /// was deleted.
    ///
    /// # Errors
    /// As for [`Firewall::delete_lists`].
    pub(crate) fn delete_address(
        &mut self,
        address: &Network,
        wanted: impl Fn(&Rule, ListName) -> bool,
        now: SystemTime,
    ) -> Result<Vec<Held>, FirewallError> {
        let deleted = self.delete_address_everywhere(address, wanted, now);
        self.doubt_state_after(&deleted);
        deleted
    }

    fn delete_address_everywhere(
        &mut self,
        address: &Network,
        wanted: impl Fn(&Rule, ListName) -> bool,
        now: SystemTime,
    ) -> Result<Vec<Held>, FirewallError> {
        let mut deleted = self.delete_rules_where(|rule, label| {
            wanted(rule, label.list) && rule.networks().any(|network| network == address)
        })?;
        for union in self.unions()?.into_iter().filter(|union| union.family() == address.family()) {
            self.complete(&union, now)?;
            let entries = self.sets()?.exactly(&union, address, now);
            for (rule, label) in entries.into_iter().filter(|(rule, label)| wanted(rule, label.list)) {
                if self.delete_entry(&union, &rule, label.list, now)? == EntryResult::Done {
                    self.note_gone(&rule, label.list);
                    deleted.push(Held { rule, lease: label.lease, list: label.list });
                }
            }
        }
        Ok(deleted)
    }

    /// Deletes the rules that are wanted, those of one family in one transaction. Gives what was
    /// deleted.
    fn delete_rules_where(
        &mut self,
        wanted: impl Fn(&Rule, &Label) -> bool,
    ) -> Result<Vec<Held>, FirewallError> {
        let mut deleted = Vec::new();
        for family in self.families() {
            let parts = self.change_in_parts(
                family,
                |cache, transaction| {
                    let found = cache.find(&wanted);
                    found.into_iter().for_each(|(rule, label)| transaction.delete(rule, label));
                },
                |changes| held(changes.iter().filter_map(deletion)),
            )?;
            let lost = self.forget_lost(family, &wanted)?;
            let mut of_family: Vec<Held> = parts.into_iter().flatten().collect();
            of_family.extend(held(lost.iter().map(|(rule, label)| (rule, label))));
            // The next family may fail.
            of_family.iter().for_each(|held| self.note_gone(&held.rule, held.list));
            deleted.extend(of_family);
        }
        Ok(deleted)
    }

    /// What holds the addresses of a rule all the same, and does the same with them or nearly: the first
    /// [`STILL_MAX`] of those that are `wanted`.
    pub(super) fn still(
        &mut self,
        rule: &Rule,
        wanted: impl Fn(&Held) -> bool,
        now: SystemTime,
    ) -> Vec<Held> {
        let mut still = self.rules_around(rule, now);
        let accepts = rule.scope().target() == Target::Accept;
        let alike = |union: &SetKey| (union.scope().target() == Target::Accept) == accepts;
        still
            .extend(self.entries_around(rule, alike, now).into_iter().filter(|held| holds(&held.rule, rule)));
        still.retain(wanted);
        still.sort_by(|a, b| (a.list, &a.rule).cmp(&(b.list, &b.rule)));
        still.truncate(STILL_MAX);
        still
    }

    /// The entries that may hold the addresses of a rule, in the scopes that are wanted. What can't be
    /// read is left out: the answer to a change that is made tells what is known.
    fn entries_around(
        &mut self,
        rule: &Rule,
        wanted: impl Fn(&SetKey) -> bool,
        now: SystemTime,
    ) -> Vec<Held> {
        let Some(network) = rule.networks().next().copied() else { return Vec::new() };
        let mut around = Vec::new();
        for union in
            self.linked_sets().into_iter().filter(|union| union.family() == rule.family() && wanted(union))
        {
            match self.entries_holding(&union, &network, now) {
                Ok(held) => around.extend(held),
                Err(error) => log::debug!("{}: what it holds is not told: {error}", union.name()),
            }
        }
        around
    }

    fn entries_holding(
        &mut self,
        union: &SetKey,
        network: &Network,
        now: SystemTime,
    ) -> Result<Vec<Held>, FirewallError> {
        if !self.sets()?.may_hold(union, network)? {
            return Ok(Vec::new());
        }
        self.complete(union, now)?;
        let held = self.sets()?.holding(union, network, now).into_iter();
        Ok(held.map(|(rule, label)| Held { rule, lease: label.lease, list: label.list }).collect())
    }

    /// The rules that hold the addresses of a rule, in any scope, and accept or block as it does.
    fn rules_around(&self, rule: &Rule, now: SystemTime) -> Vec<Held> {
        let tables = self.tables.iter().filter(|table| table.family() == rule.family());
        tables.flat_map(|table| around(table.cache(), rule, now)).collect()
    }

    /// The accept that comes before a block and holds all of its packets: of the lists that are `seen`, that
    /// with the latest end.
    pub(super) fn overriding(
        &mut self,
        rule: &Rule,
        seen: impl Fn(ListName) -> bool,
        now: SystemTime,
    ) -> Option<Held> {
        if !self.by_precedence() || rule.scope().target() == Target::Accept {
            return None;
        }
        let before =
            |union: &SetKey| union.scope().target() == Target::Accept && union.scope().takes_in(rule.scope());
        let entries = self.entries_around(rule, before, now).into_iter();
        let entries = entries.filter(|held| takes_in(&held.rule, rule));
        let accepts =
            self.accepting_rules(rule, now).into_iter().chain(entries).filter(|held| seen(held.list));
        accepts.max_by(|a, b| (a.lease, a.list, &a.rule).cmp(&(b.lease, b.list, &b.rule)))
    }

    /// The rules that accept all packets of a block before it.
    fn accepting_rules(&self, rule: &Rule, now: SystemTime) -> Vec<Held> {
        let tables = self.tables.iter().filter(|table| table.family() == rule.family());
        tables.flat_map(|table| accepting(table.cache(), rule, now)).collect()
    }

    /// What each list that is `wanted` holds, scope by scope. Others are not looked at.
    ///
    /// # Errors
    /// A table or set can't be read.
    pub(crate) fn lists(
        &mut self,
        wanted: impl Fn(ListName) -> bool,
        now: SystemTime,
    ) -> Result<Vec<ListSummary>, FirewallError> {
        self.refresh()?;
        let mut summaries = Summaries::new();
        for Held { rule, lease, list } in self.held_by_rules().into_iter().filter(|held| wanted(held.list)) {
            count(&mut summaries, list, rule.scope(), rule.family(), (1, lease));
        }
        for (union, list) in self.whole_unions(wanted, now)? {
            if let Some(held) = self.sets()?.size_and_end(&union, list, now) {
                count(&mut summaries, list, union.scope(), union.family(), held);
            }
        }
        for (of, summary) in &mut summaries {
            summary.updated = self.updates.get(of).cloned();
        }
        Ok(summaries.into_values().collect())
    }

    /// What rules hold, in all lists and scopes, as last read.
    pub(super) fn held_by_rules(&self) -> Vec<Held> {
        held(self.tables.iter().flat_map(|table| table.cache().labelled()))
    }

    /// Takes down who has changed a list, and when.
    pub(crate) fn note_update(&mut self, list: ListName, scope: &Scope, by: &str, now: SystemTime) {
        if self.updates.len() >= UPDATES_MAX && !self.updates.contains_key(&(list, scope.clone())) {
            let there = self.lists_in_use();
            forget_updates(&mut self.updates, &there);
        }
        self.updates.insert((list, scope.clone()), (Moment::at_or_after(now), by.to_owned()));
    }

    /// The lists that hold something, with the scopes they hold it in, as last read.
    fn lists_in_use(&self) -> HashSet<(ListName, Scope)> {
        let mut there: HashSet<(ListName, Scope)> =
            self.held_by_rules().into_iter().map(|held| (held.list, held.rule.scope().clone())).collect();
        if let Some(sets) = &self.sets {
            for union in &self.known {
                there.extend(sets.lists_of(union).into_iter().map(|list| (list, union.scope().clone())));
            }
        }
        there
    }

    /// Refuses a list more than there may be.
    ///
    /// # Errors
    /// [`FirewallError::TooManyLists`].
    pub(super) fn check_lists(&mut self, list: ListName, now: SystemTime) -> Result<(), FirewallError> {
        if !list.is_named() || self.has_room_for_list(list) {
            return Ok(());
        }
        self.sets.as_mut().map_or(Ok(()), |sets| sets.drop_empty_lists(now))?;
        match self.has_room_for_list(list) {
            true => Ok(()),
            false => Err(FirewallError::TooManyLists(self.settings.lists_max)),
        }
    }

    /// Whether a named list is there, or may be one more, as last read.
    pub(super) fn has_room_for_list(&self, list: ListName) -> bool {
        let in_sets = self.sets.as_ref().map(Sets::list_names).unwrap_or_default();
        let in_rules = self.tables.iter().flat_map(|table| table.cache().lists());
        let names: HashSet<ListName> = in_rules.chain(in_sets).filter(|name| name.is_named()).collect();
        names.contains(&list) || names.len() < self.settings.lists_max
    }
}

/// What of a table holds the addresses of a rule, and accepts or blocks as it does.
fn around(cache: &RuleCache, rule: &Rule, now: SystemTime) -> Vec<Held> {
    let is_held = |(other, label): &(&Rule, &Label)| !label.lease.is_due(now) && holds(other, rule);
    match rule.scope().target() {
        Target::Accept => held(cache.accepts().filter(is_held)),
        Target::Reject | Target::Drop => held(cache.blocks().filter(is_held)),
    }
}

/// What of a table accepts all packets of a rule.
fn accepting(cache: &RuleCache, rule: &Rule, now: SystemTime) -> Vec<Held> {
    held(cache.accepts().filter(|(accept, label)| {
        !label.lease.is_due(now) && accept.scope().takes_in(rule.scope()) && takes_in(accept, rule)
    }))
}

/// Forgets the updates of lists that hold nothing any more and, where that is not enough, the older
/// half of the others.
fn forget_updates(updates: &mut Updates, there: &HashSet<(ListName, Scope)>) {
    updates.retain(|of, _| there.contains(of));
    if updates.len() > UPDATES_MAX / 2 {
        let mut moments: Vec<Moment> = updates.values().map(|(moment, _)| *moment).collect();
        moments.sort_unstable();
        let half = moments.get(moments.len() / 2).copied();
        updates.retain(|_, (moment, _)| half.is_none_or(|half| *moment > half));
    }
}

pub(super) fn deletion(change: &Change) -> Option<(&Rule, &Label)> {
    match change {
        Change::Delete(rule, label) => Some((rule, label)),
        _ => None,
    }
}

/// Instances of rules as addresses in lists: each once, with the latest end.
fn held<'a>(labelled: impl Iterator<Item = (&'a Rule, &'a Label)>) -> Vec<Held> {
    let mut places: HashMap<(&Rule, ListName), usize> = HashMap::new();
    let mut all: Vec<Held> = Vec::new();
    for (rule, label) in labelled {
        let place = *places.entry((rule, label.list)).or_insert(all.len());
        match all.get_mut(place) {
            Some(held) => held.lease = held.lease.max(label.lease),
            None => all.push(Held { rule: rule.clone(), lease: label.lease, list: label.list }),
        }
    }
    all
}

/// Counts addresses in the summary of their list.
fn count(summaries: &mut Summaries, list: ListName, scope: &Scope, family: Family, held: (usize, Lease)) {
    let (number, latest) = held;
    let summary = summaries.entry((list, scope.clone())).or_insert_with(|| ListSummary {
        list,
        scope: scope.clone(),
        v4: 0,
        v6: 0,
        expires: latest,
        updated: None,
    });
    let of_family = if family == Family::V4 { &mut summary.v4 } else { &mut summary.v6 };
    *of_family = of_family.saturating_add(number);
    summary.expires = summary.expires.max(latest);
}

/// Whether a rule holds the address of another, on whichever side; of a pair, both on their sides.
fn holds(other: &Rule, rule: &Rule) -> bool {
    match (rule.source(), rule.destination()) {
        (Some(_), Some(_)) => takes_in(other, rule),
        _ => rule.networks().all(|address| other.networks().any(|network| network.covers(address))),
    }
}

/// Whether all addresses of a rule are addresses of another, side by side.
fn takes_in(other: &Rule, rule: &Rule) -> bool {
    let side = |other: Option<&Network>, network: Option<&Network>| {
        other.is_none_or(|other| network.is_some_and(|network| other.covers(network)))
    };
    side(other.source(), rule.source()) && side(other.destination(), rule.destination())
}

#[cfg(test)]
mod tests;
