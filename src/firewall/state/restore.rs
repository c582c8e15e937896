//! What the state file holds goes back into the kernel: at a start in another boot or network namespace
//! than it was written in, and after the clock was set back.

use super::entries::Entries;
use super::lost::Lost;
use super::{State, file};
use crate::firewall::auto::largest_of_too_many;
use crate::firewall::entries::check_lease;
use crate::firewall::family_list::FamilyList;
use crate::firewall::rule_cache::RuleCache;
use crate::firewall::rules::delete_copies;
use crate::firewall::table::Plan;
use crate::firewall::{Firewall, FirewallError, counted};
use crate::kernel::iptables::Transaction;
use crate::kernel::set_key::SetKey;
use crate::rule::label::Label;
use crate::rule::list_name::ListName;
use crate::rule::network::{Family, Network};
use crate::rule::whitelist::WhiteList;
use crate::rule::{Chain, Rule, SetUse, Target};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::{Duration, SystemTime};

/// The most lines about addresses that the white list keeps from coming back.
const TOLD_MAX: usize = 10;

/// The shortest step back of the clock that is followed.
const STEP_MIN: Duration = Duration::from_secs(1);

/// What came of a start as to the state file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Restored {
    /// It was not read: there is none, or it is of this boot and network namespace, or it can't be used.
    Nothing,
    /// It was read, and so many addresses are back.
    Addresses(usize),
}

impl Firewall {
    /// Takes over what the kernel holds, see [`Firewall::migrate`], and puts back what the state file
    /// holds if the kernel has lost it. What touches the white list does not come back.
    ///
    /// # Errors
    /// A table or set can't be read or changed.
    pub(crate) fn take_over(
        &mut self,
        whitelist: Option<&WhiteList>,
        now: SystemTime,
    ) -> Result<Restored, FirewallError> {
        // The migration may take an empty registry away.
        let Some((lost, written)) = self.find_lost()? else {
            self.migrate(now)?;
            return Ok(Restored::Nothing);
        };
        let Some(mut entries) = self.read_state() else {
            self.migrate(now)?;
            return Ok(Restored::Nothing);
        };
        if let Some(whitelist) = whitelist {
            self.drop_conflicts(&mut entries, whitelist);
        }
        // What has ended stays in the file, for as long as the clock may be wrong.
        entries.retain(|rule, _, lease| lost.has(rule) && !lease.is_due(now));
        let count = match lost {
            Lost::All => {
                self.migrate(now)?;
                self.replace_all(entries, now, now.max(written.time()))?
            }
            Lost::Sets(_) => {
                // The migration would take the rules of empty sets away.
                let count = self.put_beside(entries, now)?;
                self.migrate(now)?;
                count
            }
        };
        log::info!(
            "back from the state file, since the kernel had lost them: {}",
            counted(count, "address", "addresses")
        );
        Ok(Restored::Addresses(count))
    }

    /// Leaves out what touches the white list.
    fn drop_conflicts(&mut self, entries: &mut Entries, whitelist: &WhiteList) {
        let mut dropped = Vec::new();
        entries.retain(|rule, list, _| {
            let is_free = whitelist.conflict(rule).is_none();
            if !is_free {
                dropped.push((rule.clone(), list));
            }
            is_free
        });
        for (rule, _) in dropped.iter().take(TOLD_MAX) {
            log::warn!("does not come back from the state file, since it touches the white list: {rule}");
        }
        if dropped.len() > TOLD_MAX {
            log::warn!("the same of {} more addresses", dropped.len().saturating_sub(TOLD_MAX));
        }
        dropped.iter().for_each(|(rule, list)| self.note_gone(rule, *list));
    }

    /// Takes down that the state file is of this boot and network namespace now, after all that it holds is
    /// back, or that the start has made or taken away the registry.
    pub(crate) fn adopt_state(&mut self, restored: Restored, now: SystemTime) {
        let header = self.state_header(now);
        let (Some(state), Some(header)) = (&mut self.state, header) else { return };
        let is_due = match &state.adopted {
            Some(old) => !old.is_of_place(&header),
            None => restored != Restored::Nothing,
        };
        if state.set_aside || !is_due {
            return;
        }
        match file::write_header(&state.path, &header) {
            Ok(()) => state.adopted = Some(header),
            Err(error) => {
                log::warn!("the state file {} can't be written: {error}", state.path.display());
                state.journal.doubt();
            }
        }
    }

    /// Makes all that lists hold what these entries are: what else others have brought back goes. Gives
    /// the number of addresses.
    fn replace_all(
        &mut self,
        mut entries: Entries,
        now: SystemTime,
        sane: SystemTime,
    ) -> Result<usize, FirewallError> {
        let count = entries.len();
        self.remove_others(&entries, now)?;
        let unions = self.unions_to_load(&entries)?;
        let mut lost = 0_usize;
        let mut rules = Vec::new();
        for union in &unions {
            let (fitting, long): (Vec<_>, Vec<_>) = entries
                .take(union)
                .into_iter()
                .partition(|(_, label)| check_lease(label.lease, sane).is_ok());
            rules.extend(long);
            lost = lost.saturating_add(self.load_part(union, fitting, now)?);
        }
        rules.extend(entries.into_rules());
        for family in [Family::V4, Family::V6] {
            let own: Vec<(Rule, Label)> =
                rules.iter().filter(|(rule, _)| rule.family() == family).cloned().collect();
            lost = lost.saturating_add(self.replace_rules(family, own)?);
        }
        if lost > 0
            && let Some(state) = &mut self.state
        {
            log::warn!(
                "{lost} addresses of the state file have no place any more: they are in {}",
                file::aside(&state.path).display()
            );
            state.set_aside = true;
            state.journal.doubt();
        }
        Ok(count.saturating_sub(lost))
    }

    /// Takes the entries out of sets that a restore by another program has brought and that are not among
    /// these.
    fn remove_others(&mut self, entries: &Entries, now: SystemTime) -> Result<(), FirewallError> {
        if !self.may_have_sets() {
            return Ok(());
        }
        for union in self.unions()? {
            match self.complete(&union, now) {
                Err(error @ FirewallError::ForeignSet(_)) => {
                    log::warn!("{error}");
                    continue;
                }
                completed => completed?,
            }
            let sets = self.sets()?;
            let mut others = Vec::new();
            for set in sets.list_sets(&union) {
                let list = set.list().unwrap_or_default();
                let found = sets.mirrored(&set, now, |rule| !entries.holds(rule, list));
                others.push((list, found.into_iter().map(|(rule, _)| rule).collect::<Vec<Rule>>()));
            }
            for (list, rules) in others {
                self.remove_all(&union, list, &rules, now)?;
            }
        }
        Ok(())
    }

    fn remove_all(
        &mut self,
        union: &SetKey,
        list: ListName,
        rules: &[Rule],
        now: SystemTime,
    ) -> Result<(), FirewallError> {
        if FamilyList::key(union.scope(), union.family()) == *union {
            let networks: Vec<Network> = rules.iter().flat_map(|rule| rule.networks().copied()).collect();
            return self.delete_all(union.scope(), &networks, list, now).map(drop);
        }
        rules.iter().try_for_each(|rule| self.delete_entry(union, rule, list, now).map(drop))
    }

    /// The places whose addresses are to be entries of sets.
    fn unions_to_load(&mut self, entries: &Entries) -> Result<BTreeSet<SetKey>, FirewallError> {
        let mut sizes = entries.sizes();
        let families = self.families();
        let mut unions = BTreeSet::new();
        if !self.may_have_sets() {
            return Ok(unions);
        }
        let mut possible = BTreeMap::new();
        for (union, size) in std::mem::take(&mut sizes) {
            if families.contains(&union.family()) && self.sets()?.can_be_made(&union)? {
                possible.insert(union, size);
            }
        }
        if self.settings.set_use == SetUse::On {
            return Ok(possible.into_keys().collect());
        }
        for union in possible.keys() {
            if self.is_for_sets(union)? {
                unions.insert(union.clone());
            }
        }
        for family in families {
            let of_family = possible.iter().filter(|(union, _)| union.family() == family);
            let left = of_family.filter(|(union, _)| !unions.contains(union));
            unions.extend(many(left.map(|(union, size)| (union.clone(), *size)).collect()));
        }
        Ok(unions)
    }

    /// Puts the entries of one place into its sets, as many as there is room for. Gives the number of
    /// those for which there is none.
    fn load_part(
        &mut self,
        union: &SetKey,
        mut entries: Vec<(Rule, Label)>,
        now: SystemTime,
    ) -> Result<usize, FirewallError> {
        // Those of a restore before the network came up are there already.
        let sets = self.sets()?;
        entries.retain(|(rule, label)| !sets.has_so(union, rule, label, now));
        let before = entries.len();
        if entries.is_empty() {
            return Ok(0);
        }
        let room = usize::try_from(self.sets()?.room(union)).unwrap_or(usize::MAX);
        if before > room {
            // Several lists may hold the same address, so this is on the safe side.
            entries.sort_by_cached_key(|(_, label)| std::cmp::Reverse(label.lease));
            entries.truncate(room);
        }
        match self.load(union, &entries, now) {
            Ok(()) => Ok(before.saturating_sub(entries.len())),
            Err(error @ (FirewallError::ForeignSet(_) | FirewallError::Full(_))) => {
                log::warn!("{error}");
                Ok(before)
            }
            Err(error) => Err(error),
        }
    }

    /// Makes the rules of a family these, oldest first, in one transaction. Gives the number of those for
    /// which there is no room.
    fn replace_rules(
        &mut self,
        family: Family,
        mut rules: Vec<(Rule, Label)>,
    ) -> Result<usize, FirewallError> {
        let before = rules.len();
        if !self.families().contains(&family) {
            return Ok(before);
        }
        keep_latest(&mut rules, self.settings.rules_max);
        let by_precedence = self.by_precedence();
        if by_precedence {
            // Each is put in at the head of its chain.
            rules.sort_by_cached_key(|(rule, _)| std::cmp::Reverse(precedence(rule.scope().target())));
        }
        let replaced = self.change(family, Plan::FromKernel, |cache, transaction| {
            plan_replacement(cache, transaction, &rules);
        });
        match replaced {
            Err(error) if error.is_too_long() => self.replace_rules_in_parts(family, &rules)?,
            replaced => replaced?,
        }
        match if by_precedence { self.put_in_order(family) } else { Ok(()) } {
            Err(error) if error.is_too_long() => log::warn!("rules of {family} are not in order: {error}"),
            ordered => ordered?,
        }
        Ok(before.saturating_sub(rules.len()))
    }

    /// The same where one transaction is too long, as in a container without privileges: what is not to be
    /// there goes first, and each rule comes to its place.
    fn replace_rules_in_parts(
        &mut self,
        family: Family,
        rules: &[(Rule, Label)],
    ) -> Result<(), FirewallError> {
        self.change_in_parts(family, |cache, transaction| delete_others(cache, transaction, rules), |_| ())?;
        self.insert_in_parts(family, rules, |cache, rule, label| !cache.has(rule, label))
    }

    /// Inserts those of some rules that are `wanted`, oldest first, behind those that come before them. In
    /// one transaction for all that come to the same place, or more where that is too long.
    fn insert_in_parts(
        &mut self,
        family: Family,
        rules: &[(Rule, Label)],
        wanted: impl Fn(&RuleCache, &Rule, &Label) -> bool,
    ) -> Result<(), FirewallError> {
        let by_precedence = self.by_precedence();
        for group in places(rules, by_precedence) {
            self.change_in_parts(
                family,
                |cache, transaction| {
                    for (rule, label) in group.iter().filter(|(rule, label)| wanted(cache, rule, label)) {
                        let number = if by_precedence { cache.number_for(rule.scope()) } else { 1 };
                        transaction.insert(rule, label, number);
                    }
                },
                |_| (),
            )?;
        }
        self.check_order(family)
    }

    /// Puts back what had ended by a clock that has been set back since, and has not ended at `now`.
    ///
    /// # Errors
    /// A table or set can't be read or changed.
    pub(crate) fn clock_stepped(&mut self, now: SystemTime) -> Result<(), FirewallError> {
        let Some(latest) = self.state.as_ref().map(|state| state.latest) else { return Ok(()) };
        // Some of a second is what a clock is kept right by.
        if latest <= now + STEP_MIN {
            return Ok(());
        }
        let Some(mut entries) = self.state.as_ref().and_then(State::entries) else { return Ok(()) };
        let whitelist = self.guarded.as_ref().map(|(_, list)| list.clone());
        entries.retain(|rule, _, lease| {
            let touches = whitelist.as_ref().is_some_and(|list| list.conflict(rule).is_some());
            lease.is_due(latest) && !lease.is_due(now) && !touches
        });
        // Where that fails, it is tried again.
        let count = self.put_beside(entries, now)?;
        if let Some(state) = &mut self.state {
            state.latest = now;
        }
        if count > 0 {
            log::warn!("the clock was set back: addresses that had ended by it and are back: {count}");
        }
        Ok(())
    }

    /// Puts entries in beside what there is, as many as there is room for. Gives their number.
    fn put_beside(&mut self, mut entries: Entries, now: SystemTime) -> Result<usize, FirewallError> {
        let mut count = 0_usize;
        for union in self.unions_to_load(&entries)? {
            let of_union = entries.take(&union);
            let number = of_union.len();
            let lost = self.load_part(&union, of_union, now)?;
            count = count.saturating_add(number.saturating_sub(lost));
        }
        let rules = entries.into_rules();
        for family in self.families() {
            // What has not been swept yet is there, and what a client has put in meanwhile counts.
            let is_new =
                |cache: &RuleCache, rule: &Rule, label: &Label| cache.labels(rule, label.list).is_empty();
            let cache = self.table(family)?.cache();
            let new =
                rules.iter().filter(|(rule, label)| rule.family() == family && is_new(cache, rule, label));
            let (mut new, there) = (new.cloned().collect(), cache.len());
            keep_latest(&mut new, self.settings.rules_max.saturating_sub(there));
            self.insert_in_parts(family, &new, is_new)?;
            count = count.saturating_add(new.len());
        }
        Ok(count)
    }
}

/// Plans to make the rules of a table these, oldest first.
fn plan_replacement(cache: &RuleCache, transaction: &mut Transaction, rules: &[(Rule, Label)]) {
    delete_others(cache, transaction, rules);
    let new = rules.iter().filter(|(rule, label)| !cache.has(rule, label));
    new.for_each(|(rule, label)| transaction.insert(rule, label, 1));
}

/// Plans to delete all rules but these.
fn delete_others(cache: &RuleCache, transaction: &mut Transaction, rules: &[(Rule, Label)]) {
    let kept: HashSet<(&Rule, &Label)> = rules.iter().map(|(rule, label)| (rule, label)).collect();
    delete_copies(&cache.find_copies(|rule, label| !kept.contains(&(rule, label))), transaction);
}

/// Rules by the place that they come to, each in its order: all to the heads of their chains or, by
/// precedence, those of a target behind the targets that come before it.
fn places(rules: &[(Rule, Label)], by_precedence: bool) -> Vec<Vec<(Rule, Label)>> {
    let mut places: BTreeMap<(usize, Chain), Vec<(Rule, Label)>> = BTreeMap::new();
    for (rule, label) in rules {
        let place = (precedence(rule.scope().target()), rule.scope().chain());
        let place = if by_precedence { place } else { (0, Chain::Input) };
        places.entry(place).or_default().push((rule.clone(), label.clone()));
    }
    places.into_values().collect()
}

/// Leaves so many rules: those that end last, each in its turn.
fn keep_latest(rules: &mut Vec<(Rule, Label)>, most: usize) {
    if rules.len() <= most {
        return;
    }
    let mut numbered: Vec<(usize, (Rule, Label))> = std::mem::take(rules).into_iter().enumerate().collect();
    numbered.sort_by_cached_key(|(_, (_, label))| std::cmp::Reverse(label.lease));
    numbered.truncate(most);
    numbered.sort_unstable_by_key(|(number, _)| *number);
    rules.extend(numbered.into_iter().map(|(_, rule)| rule));
}

/// The places that become sets, of these with so many addresses that would be rules otherwise.
fn many(mut sizes: BTreeMap<SetKey, usize>) -> Vec<SetKey> {
    let mut unions = Vec::new();
    while let Some(largest) = largest_of_too_many(&sizes) {
        sizes.remove(&largest);
        unions.push(largest);
    }
    unions
}

fn precedence(target: Target) -> usize {
    match target {
        Target::Accept => 0,
        Target::Reject => 1,
        Target::Drop => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::lease::{Lease, Moment};
    use crate::rule::rule_of;

    fn rule(host: u8, end: Option<u64>) -> (Rule, Label) {
        let moment = |seconds| Moment::at_or_after(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
        let lease = end.map_or(Lease::Permanent, |seconds| Lease::Until(moment(seconds)));
        (rule_of(&format!("/drop/input/any/1.2.3.{host}")), Label::new(lease, ListName::UNNAMED))
    }

    #[test]
    fn what_ends_last_stays_in_its_order_where_there_is_no_room_for_all() {
        let all = [rule(1, Some(5)), rule(2, None), rule(3, Some(9)), rule(4, Some(1)), rule(5, None)];
        for (most, hosts) in [(9, "1 2 3 4 5"), (5, "1 2 3 4 5"), (3, "2 3 5"), (1, "2"), (0, "")] {
            let mut rules = all.to_vec();
            keep_latest(&mut rules, most);
            let kept = rules.iter().map(|(rule, _)| rule.source().unwrap().to_string());
            let kept: Vec<String> =
                kept.map(|address| address.rsplit('.').next().unwrap().to_owned()).collect();
            assert_eq!(kept.join(" "), hosts, "{most}");
        }
    }

    #[test]
    fn places_become_sets_until_few_addresses_are_rules() {
        let key = |interface: &str| SetKey::of(&rule_of(&format!("/drop/input/{interface}/1.2.3.4")));
        let golden: [(&[(&str, usize)], &str); 4] = [
            (&[("any", 100), ("eth0", 90)], ""),
            (&[("any", 101), ("eth0", 90)], "any"),
            (&[("any", 300_000), ("eth0", 101), ("eth1", 5)], "any eth0"),
            (&[("any", 90), ("eth0", 95), ("eth1", 80)], "eth0"),
        ];
        for (sizes, expected) in golden {
            let unions = many(sizes.iter().map(|(interface, size)| (key(interface), *size)).collect());
            let expected: Vec<SetKey> = expected.split_whitespace().map(key).collect();
            assert_eq!(unions, expected, "{sizes:?}");
        }
    }
}
