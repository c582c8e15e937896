//! The operations of rfw on the packet filter: insert, delete, list, expire, guard, flush.
//! Each is idempotent, and a change of one table is one transaction.
//!
//! The kernel is the only storage. An address is a rule of its own or, with the option
//! `ipset`, an entry of a set that one rule looks packets up in; a client sees no
//! difference. Foreign rules and sets are never changed.

mod auto;
mod clock;
mod dry_run;
mod entries;
mod error;
pub(crate) mod expiry;
mod facts;
mod family_list;
mod first;
mod guard;
pub(crate) mod health;
pub(crate) mod listing;
mod lists;
mod looks;
pub(crate) mod measures;
mod memory;
mod migrate;
mod pulse;
mod quota;
mod repair;
mod rule_cache;
mod rules;
mod set_repair;
pub(crate) mod sets;
pub(crate) mod state;
pub(crate) mod table;
pub(crate) mod tally;
pub(crate) mod traffic;
pub(crate) mod verbs;

use crate::firewall::family_list::FamilyList;
use crate::firewall::first::Moves;
use crate::firewall::lists::Updates;
use crate::firewall::measures::Meter;
use crate::firewall::repair::Repairs;
use crate::firewall::rule_cache::RuleCache;
use crate::firewall::table::{Plan, Table};
use crate::firewall::traffic::Totals;
use crate::kernel::guard::{Guard, Port};
use crate::kernel::iptables::{Change, Transaction};
use crate::kernel::set_key::SetKey;
use crate::rule::label::Label;
use crate::rule::layout::Layout;
use crate::rule::lease::{Lease, Moment};
use crate::rule::list_name::ListName;
use crate::rule::network::{Family, Network};
use crate::rule::whitelist::WhiteList;
use crate::rule::{Rule, Scope, SetUse};
pub(crate) use error::FirewallError;
pub(crate) use sets::Step;
use sets::{EntryResult, ListOp, Sets};
use state::State;
use state::journal::Item;
use std::collections::{BTreeMap, BTreeSet};
use std::iter;
use std::path::PathBuf;
use std::time::{Instant, SystemTime};
pub(crate) use verbs::{
    Deleted, Held, Inserted, ListResult, ListSummary, Outcome, STILL_MAX, Terms, WhichLists,
};

/// Number of rules above which the log recommends the option `ipset`.
const MANY_RULES: usize = 500;

/// The options of the configuration that are about what is kept where, and how much.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// Where addresses are entries of sets (`ipset`).
    pub set_use: SetUse,
    /// The most rules of each family, without those of sets (`rules.max`).
    pub rules_max: usize,
    /// The most named lists (`lists.max`).
    pub lists_max: usize,
    /// Where rules stand (`input.table`, `forward.chain`).
    pub layout: Layout,
    /// Whether rfw's rules are kept before those of others that could accept (`stay.first`).
    pub stay_first: bool,
    /// The file that holds across a reboot what is blocked (`state.file`).
    pub state_file: Option<PathBuf>,
}

/// The filter tables of IPv4 and, if the host has it, IPv6, and the sets.
pub(crate) struct Firewall {
    tables: Vec<Table>,
    sets: Option<Sets>,
    settings: Settings,
    /// The sets that have had a rule since rfw started.
    known: BTreeSet<SetKey>,
    warned_many: bool,
    /// Whether the log has told that a long white list can't be kept in a set.
    warned_guard: bool,
    /// The port that is guarded, if there is one, and the white list in force.
    guarded: Option<(Option<Port>, WhiteList)>,
    /// The guard rules that were wanted last, in the order of insertion.
    guards: BTreeMap<Family, Vec<Guard>>,
    /// Why the last look at what others have done has failed, if it has.
    look_failure: Option<String>,
    /// What has happened since the start.
    meter: Meter,
    /// What rules have counted.
    totals: Totals,
    updates: Updates,
    repairs: Repairs,
    /// What `stay.first` has moved.
    moves: Moves,
    /// What a reboot would take is written down there; `None` if nowhere.
    state: Option<State>,
}

impl Firewall {
    /// A firewall on the tables of both families and, if the host has them, on its sets. Nothing is
    /// changed yet.
    pub(crate) fn new(v4: Table, v6: Option<Table>, sets: Option<Sets>, settings: Settings) -> Firewall {
        Firewall {
            tables: [Some(v4), v6].into_iter().flatten().collect(),
            sets,
            settings,
            known: BTreeSet::new(),
            warned_many: false,
            warned_guard: false,
            guarded: None,
            guards: BTreeMap::new(),
            look_failure: None,
            meter: Meter::default(),
            totals: Totals::default(),
            updates: Updates::new(),
            repairs: Repairs::default(),
            moves: Moves::default(),
            state: None,
        }
    }

    /// Keeps to other settings from now on: limits and `stay.first`. Where addresses are kept has to stay the
    /// same, as does the state file.
    pub(crate) fn replace_settings(&mut self, settings: Settings) {
        self.settings = settings;
    }

    /// Inserts a rule at the head of its chain, with sets in use after the ACCEPT rules, or
    /// adds a set entry. If it exists, its lease is replaced. Of lists that are not `seen` nothing is told.
    ///
    /// # Errors
    /// The rule or entry was not inserted: see [`FirewallError`].
    pub(crate) fn insert(
        &mut self,
        rule: &Rule,
        label: &Label,
        seen: impl Fn(ListName) -> bool,
        now: SystemTime,
    ) -> Result<Inserted, FirewallError> {
        self.check_lists(label.list, now)?;
        let inserted = self.insert_one(rule, label, now);
        self.doubt_state_after(&inserted);
        let outcome = inserted?;
        self.note(|| Item::Put(rule.clone(), label.clone()));
        self.stay_first_after_change();
        Ok(Inserted { outcome, overridden_by: self.overriding(rule, seen, now) })
    }

    fn insert_one(&mut self, rule: &Rule, label: &Label, now: SystemTime) -> Result<Outcome, FirewallError> {
        let set = SetKey::of(rule);
        self.check_time(label.lease, now)?;
        self.make_sets(&set, iter::once(rule), label.list, now)?;
        if self.is_for_sets(&set)? {
            return self.insert_entry(rule, &set, label, now);
        }
        let plan_from = if label.lease == Lease::Permanent { Plan::FromKernel } else { Plan::FromCache };
        let outcome = match self.insert_rule(rule, label, plan_from) {
            // Others may have deleted rules that the cache still counts.
            Err(FirewallError::TooManyRules(_)) if plan_from == Plan::FromCache => {
                self.insert_rule(rule, label, Plan::FromKernel)
            }
            outcome => outcome,
        }?;
        self.warn_if_many_rules();
        Ok(outcome)
    }

    /// Takes an address out of a list. Of lists that are not `seen` nothing is told.
    ///
    /// # Errors
    /// The rule or entry may still exist: see [`FirewallError`].
    pub(crate) fn delete(
        &mut self,
        rule: &Rule,
        list: ListName,
        seen: impl Fn(ListName) -> bool,
        now: SystemTime,
    ) -> Result<Deleted, FirewallError> {
        let deleted = self.delete_one(rule, list, now);
        self.doubt_state_after(&deleted);
        let outcome = deleted?;
        self.note_gone(rule, list);
        Ok(Deleted { outcome, still: self.still(rule, |held| seen(held.list), now) })
    }

    /// Deletes a rule, and the equivalent set entry.
    fn delete_one(&mut self, rule: &Rule, list: ListName, now: SystemTime) -> Result<Outcome, FirewallError> {
        let as_rule = self.change(rule.family(), Plan::FromKernel, |cache, transaction| {
            let labels = cache.labels(rule, list);
            labels.iter().for_each(|label| transaction.delete(rule, label));
            if labels.is_empty() { Outcome::Absent } else { Outcome::Deleted }
        })?;
        // One that others have flushed is not to come back.
        let lost = self.forget_lost(rule.family(), |other, label| other == rule && label.list == list)?;
        let as_rule = if lost.is_empty() { as_rule } else { Outcome::Deleted };
        let set = SetKey::of(rule);
        if !self.may_have_sets() || !self.has_own_set(&set)? {
            return Ok(as_rule);
        }
        match self.delete_entry(&set, rule, list, now)? {
            EntryResult::Done => Ok(Outcome::Deleted),
            _ => Ok(as_rule),
        }
    }

    /// Inserts or renews the rule of one scope for every network of a list; for each family
    /// the change is atomic.
    ///
    /// # Errors
    /// See [`FirewallError`]. [`FirewallError::Full`] and [`FirewallError::TooManyRules`] are
    /// checked before anything is changed.
    pub(crate) fn insert_all(
        &mut self,
        scope: &Scope,
        list: &[Network],
        terms: &Terms,
        now: SystemTime,
    ) -> Result<ListResult, FirewallError> {
        self.check_lists(terms.list, now)?;
        self.check_time(terms.lease, now)?;
        let lists = self.by_family(scope, list, terms.replace)?;
        let inserted = self.insert_lists(&lists, terms, now);
        match &inserted {
            Ok(_) => self.note_lists(lists, |section, networks| Item::PutAll {
                section: section.with_list(terms.list),
                networks,
                terms: terms.clone(),
            }),
            // One family may have been changed.
            Err(_) => self.doubt_state_after(&inserted),
        }
        inserted
    }

    fn insert_lists(
        &mut self,
        lists: &[FamilyList],
        terms: &Terms,
        now: SystemTime,
    ) -> Result<ListResult, FirewallError> {
        let start = Instant::now();
        for list in lists {
            self.make_sets(&list.set, list.rules(), terms.list, now)?;
        }
        for list in lists {
            match self.is_for_sets(&list.set)? {
                true => {
                    if terms.replace && self.has_set_of(&list.set, terms.list)? {
                        // What is to go makes room.
                        self.read_list(&list.set, terms.list, now)?;
                    }
                    self.check_room(list, terms, now)?;
                }
                false => self.check_rules(list, terms)?,
            }
        }
        let mut total = ListResult::default();
        for list in lists {
            total.add(match self.is_for_sets(&list.set)? {
                // Nothing to put in, and nothing there to take out.
                true if list.networks.is_empty() && !self.has_set_of(&list.set, terms.list)? => {
                    ListResult::default()
                }
                true => self.insert_entries(list, terms, now, start)?,
                false => self.insert_rules(list, terms)?,
            });
        }
        self.stay_first_after_change();
        self.warn_if_many_rules();
        Ok(total)
    }

    /// Takes networks out of a list in one scope.
    ///
    /// # Errors
    /// See [`FirewallError`].
    pub(crate) fn delete_all(
        &mut self,
        scope: &Scope,
        list: &[Network],
        name: ListName,
        now: SystemTime,
    ) -> Result<ListResult, FirewallError> {
        let lists = self.by_family(scope, list, false)?;
        let deleted = self.delete_from_lists(&lists, name, now);
        match &deleted {
            Ok(_) => self.note_lists(lists, |section, networks| Item::GoneAll {
                section: section.with_list(name),
                networks,
            }),
            Err(_) => self.doubt_state_after(&deleted),
        }
        deleted
    }

    fn delete_from_lists(
        &mut self,
        lists: &[FamilyList],
        name: ListName,
        now: SystemTime,
    ) -> Result<ListResult, FirewallError> {
        let mut total = ListResult::default();
        for list in lists {
            let as_rules = self.delete_rules(list, name)?;
            let in_set = self.may_have_sets() && self.has_own_set(&list.set)?;
            total.add(match in_set {
                true => self.change_entries(list, ListOp::Delete(name), &as_rules, now)?,
                false => list.count(as_rules.len()),
            });
        }
        Ok(total)
    }

    /// Deletes rules that are due at `now`, without the first `skip`, at most `most` of each
    /// family in one transaction. Returns the deleted rules with their lists; none if no other rule is
    /// due.
    /// Set entries are expired by the kernel.
    ///
    /// # Errors
    /// A table can't be read or changed.
    pub(crate) fn sweep(
        &mut self,
        now: SystemTime,
        skip: usize,
        most: usize,
    ) -> Result<Vec<(Rule, ListName)>, FirewallError> {
        let (mut removed, mut failed) = (Vec::new(), None);
        self.note_time(now);
        for family in self.families() {
            let swept = self.change(family, Plan::InBackground, |cache, transaction| {
                let due = cache.find(|_, label| label.lease.is_due(now)).into_iter().skip(skip).take(most);
                due.map(|(rule, label)| {
                    transaction.delete(rule, label);
                    (rule.clone(), label.list)
                })
                .collect::<Vec<(Rule, ListName)>>()
            });
            // A failure of one family does not prevent expiry in the other.
            match swept {
                Ok(rules) => removed.extend(rules),
                Err(error) => {
                    let hangs = error.is_timeout();
                    failed = failed.or(Some(error));
                    if hangs {
                        break;
                    }
                }
            }
        }
        match failed {
            Some(error) if removed.is_empty() => Err(error),
            _ => Ok(removed),
        }
    }

    /// When the sweeper has something to do: the end of the rule that expires next, according to the
    /// cache, a mirror to be filled, or a change to be written down.
    pub(crate) fn next_due(&self, now: SystemTime) -> Option<Moment> {
        let moment = |at: Instant| Moment::at_or_after(now + at.saturating_duration_since(Instant::now()));
        let others = self.next_fill().into_iter().chain(self.next_writing()).map(moment);
        let ends = self.tables.iter().flat_map(|table| table.cache().all_leases()).filter_map(Lease::end);
        ends.chain(others).min()
    }

    /// Reads all tables, unless they are known to be as they were.
    fn refresh(&mut self) -> Result<(), FirewallError> {
        Ok(self.tables.iter_mut().try_for_each(Table::refresh)?)
    }

    /// Notes for the state file what was done with the networks of a body.
    fn note_lists(&mut self, lists: Vec<FamilyList>, item: impl Fn(&SetKey, Vec<Network>) -> Item) {
        lists.into_iter().for_each(|list| self.note(|| item(&list.set, list.networks)));
    }

    /// Deletes all rules and sets of rfw. Returns the number of rules deleted, and that of
    /// the entries in the sets.
    ///
    /// # Errors
    /// A table or set can't be read or changed.
    pub(crate) fn flush(&mut self) -> Result<(usize, usize), FirewallError> {
        self.put_where_it_belongs()?;
        let (linked, guard_sets) = (self.linked_sets(), self.used_guard_sets());
        let mut rules = 0;
        for family in self.families() {
            rules += self.flush_rules(family)?;
        }
        self.drop_guard_sets(&guard_sets)?;
        let infos = self.sets.as_mut().map_or_else(|| Ok(Vec::new()), Sets::infos)?;
        Ok((rules, self.destroy_unused_sets(&infos, true, &linked)?))
    }

    /// Reads all tables, and moves what does not stand where the options say.
    pub(super) fn put_where_it_belongs(&mut self) -> Result<(), FirewallError> {
        self.families().into_iter().try_for_each(|family| self.change(family, Plan::FromKernel, |_, _| ()))
    }

    /// Deletes all rules of a family: those of addresses, which may be many, then those of sets, and
    /// last the guard.
    fn flush_rules(&mut self, family: Family) -> Result<usize, FirewallError> {
        let mut parts = self.change_in_parts(
            family,
            |cache, transaction| {
                let rules = cache.find(|_, _| true);
                rules.iter().for_each(|(rule, label)| transaction.delete(rule, label));
            },
            <[Change]>::len,
        )?;
        parts.extend(self.change_in_parts(
            family,
            |cache, transaction| {
                cache.rules_of_sets().for_each(|set| transaction.delete_set(set));
                cache.guards().iter().for_each(|guard| transaction.delete_guard(*guard));
            },
            <[Change]>::len,
        )?);
        Ok(parts.into_iter().sum())
    }

    /// Whether a table had a chain of that name when it was read last.
    pub(crate) fn has_chain(&self, name: &str) -> bool {
        self.tables.iter().any(|table| table.cache().has_chain(name))
    }

    fn families(&self) -> Vec<Family> {
        self.tables.iter().map(Table::family).collect()
    }

    fn table(&mut self, family: Family) -> Result<&mut Table, FirewallError> {
        let table = self.tables.iter_mut().find(|table| table.family() == family);
        table.ok_or(FirewallError::NoFamily(family))
    }

    fn sets(&mut self) -> Result<&mut Sets, FirewallError> {
        self.sets.as_mut().ok_or(FirewallError::NoSets)
    }

    /// Changes the table of a family. With nf_tables both tables share one generation, so the
    /// other table is told of the commit, or its cache would count as stale.
    fn change<T>(
        &mut self,
        family: Family,
        plan_from: Plan,
        plan: impl Fn(&RuleCache, &mut Transaction) -> T,
    ) -> Result<T, FirewallError> {
        let table = self.table(family)?;
        let outcome = table.change(plan_from, plan);
        if let Some((before, after)) = table.take_own_change() {
            let others = self.tables.iter_mut().filter(|table| table.family() != family);
            others.for_each(|table| table.note_change(before, after));
        }
        Ok(outcome?)
    }

    /// Logs once a recommendation of the option `ipset` above [`MANY_RULES`] rules.
    fn warn_if_many_rules(&mut self) {
        let rules: usize = self.tables.iter().map(|table| table.cache().len()).sum();
        if !self.may_have_sets() && !self.warned_many && rules > MANY_RULES {
            self.warned_many = true;
            log::warn!(
                "{rules} rules: each packet is compared with one after the other; \
                 with the option ipset in rfw.conf they cost as little as a single rule"
            );
        }
    }
}

/// A network as `iptables -L -n` prints it: a single address without a mask, `None` as the
/// network of all addresses.
pub(crate) fn printed(network: Option<&Network>, family: Family) -> String {
    network.map_or_else(|| family.any().to_owned(), Network::to_string)
}

/// A number with its noun: `1 rule`, `2 rules`.
pub(crate) fn counted(count: usize, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}
