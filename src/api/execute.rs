//! Executes the commands of requests on the firewall, one by one, and tells what came of each.

use crate::api::address_list::List;
use crate::api::answers::{self, Envelope};
use crate::api::error::ApiError;
use crate::api::format::Format;
use crate::api::record::{Effect, Op, Record, Subject, number};
use crate::api::url::{BodyOptions, Put};
use crate::api::{Origin, Service};
use crate::firewall::listing::{Filter, Listing};
use crate::firewall::{Firewall, FirewallError, Held, Outcome, Terms, WhichLists};
use crate::http::answer::Answer;
use crate::rule::label::Label;
use crate::rule::lease::{Interval, Lease};
use crate::rule::list_name::ListName;
use crate::rule::network::Network;
use crate::rule::note::{Note, Reason};
use crate::rule::{Rule, Scope};
use std::sync::Arc;
use std::time::SystemTime;

impl Service {
    /// Puts one address in.
    pub(super) fn insert(&mut self, origin: &Origin, rule: &Rule, put: Put) -> Result<Answer, ApiError> {
        if let Some((listed, side)) = self.whitelist.conflict(rule) {
            return Err(ApiError::white_listed(*side, listed));
        }
        let (interval, list) = (self.interval(&put), put.list);
        let note = put.reason.clone().map(|reason| origin.note(reason));
        // The time begins when it is this request's turn.
        let (inserted, lease, note) = self.change(origin, |firewall| {
            let now = SystemTime::now();
            let label = Label { note, ..Label::new(interval.from(now), list) };
            firewall.check_one_more(&origin.client.rights, rule, list, now)?;
            let seen = |list| origin.sees(list);
            let inserted = match origin.is_dry_run {
                true => firewall.would_insert(rule, &label, seen, now)?,
                false => firewall.insert(rule, &label, seen, now)?,
            };
            origin.note_update(firewall, list, rule.scope(), now);
            Ok((inserted, label.lease, firewall.note_of(rule.scope(), rule.networks())))
        })?;
        let (subject, effect) = (Subject::Rule(rule.clone()), Effect::One(inserted.outcome));
        let record = Record::new(origin, Op::Insert, Some(list), subject, effect);
        self.tell(origin, record.lasting(lease, put.reason));
        Ok(answers::inserted(&inserted, rule, lease, note, &origin.envelope()))
    }

    /// Takes one address out.
    pub(super) fn delete(
        &mut self,
        origin: &Origin,
        rule: &Rule,
        list: ListName,
    ) -> Result<Answer, ApiError> {
        let deleted = self.change(origin, |firewall| {
            let now = SystemTime::now();
            let seen = |list| origin.sees(list);
            let deleted = match origin.is_dry_run {
                true => firewall.would_delete(rule, list, seen, now)?,
                false => firewall.delete(rule, list, seen, now)?,
            };
            if deleted.outcome == Outcome::Deleted {
                origin.note_update(firewall, list, rule.scope(), now);
            }
            Ok(deleted)
        })?;
        let (subject, effect) = (Subject::Rule(rule.clone()), Effect::One(deleted.outcome));
        self.tell(origin, Record::new(origin, Op::Delete, Some(list), subject, effect));
        Ok(answers::deleted(&deleted, rule, &origin.envelope()))
    }

    /// Puts the addresses of a body in.
    pub(super) fn insert_all(
        &mut self,
        origin: &Origin,
        scope: &Scope,
        put: Put,
        body: BodyOptions,
        mut given: List,
    ) -> Result<Answer, ApiError> {
        let interval = self.interval(&put);
        let notes = std::mem::take(&mut given.reasons).into_iter();
        let mut terms = Terms {
            list: put.list,
            lease: Lease::Permanent,
            note: put.reason.clone().map(|reason| origin.note(reason)),
            notes: Arc::new(notes.map(|(network, reason)| (network, origin.note(reason))).collect()),
            replace: body.replace,
        };
        let (count, lease, note) = self.change(origin, |firewall| {
            let now = SystemTime::now();
            terms.lease = interval.from(now);
            let (rights, at) = (&origin.client.rights, (scope, terms.list));
            firewall.check_more(rights, at, &given.networks, terms.replace, now)?;
            let count = match origin.is_dry_run {
                true => firewall.would_insert_all(scope, &given.networks, &terms, now)?,
                false => firewall.insert_all(scope, &given.networks, &terms, now)?,
            };
            origin.note_update(firewall, terms.list, scope, now);
            Ok((count, terms.lease, firewall.note_of(scope, given.networks.iter())))
        })?;
        let removed = Some(count.removed).filter(|_| body.replace);
        let effect = Effect::put(count, removed, given.skipped_total);
        let op = if body.replace { Op::Replace } else { Op::Insert };
        let subject = Subject::Scope(scope.clone(), number(given.networks.len()));
        let record = Record::new(origin, op, Some(put.list), subject, effect);
        self.tell(origin, record.lasting(lease, put.reason));
        Ok(answers::all_inserted(&given, count, removed, lease, note, &origin.envelope()))
    }

    /// Takes the addresses of a body out.
    pub(super) fn delete_all(
        &mut self,
        origin: &Origin,
        scope: &Scope,
        list: ListName,
        given: &List,
    ) -> Result<Answer, ApiError> {
        let count = self.change(origin, |firewall| {
            let now = SystemTime::now();
            let count = match origin.is_dry_run {
                true => firewall.would_delete_all(scope, &given.networks, list, now)?,
                false => firewall.delete_all(scope, &given.networks, list, now)?,
            };
            if count.present > 0 {
                origin.note_update(firewall, list, scope, now);
            }
            Ok(count)
        })?;
        let effect = Effect::taken(count.present, Some(count.absent), given.skipped_total);
        let subject = Subject::Scope(scope.clone(), number(given.networks.len()));
        self.tell(origin, Record::new(origin, Op::Delete, Some(list), subject, effect));
        Ok(answers::all_deleted(given, count, &origin.envelope()))
    }

    /// Takes out all that lists hold, in one scope or in every.
    pub(super) fn delete_lists(
        &mut self,
        origin: &Origin,
        lists: WhichLists,
        scope: Option<&Scope>,
    ) -> Result<Answer, ApiError> {
        let count = self.change(origin, |firewall| {
            let now = SystemTime::now();
            if scope.is_none() {
                firewall.check_scopes_of(&origin.client.rights, lists, now)?;
            }
            let count = match origin.is_dry_run {
                true => firewall.would_delete_lists(lists, scope, now)?,
                false => firewall.delete_lists(lists, scope, now)?,
            };
            if let (WhichLists::One(list), Some(scope), 1..) = (lists, scope, count) {
                origin.note_update(firewall, list, scope, now);
            }
            Ok(count)
        })?;
        let deleted = number(count);
        let subject = match scope {
            Some(scope) => Subject::Scope(scope.clone(), deleted),
            None => Subject::Everywhere(deleted),
        };
        let effect = Effect::taken(count, None, 0);
        self.tell(origin, Record::new(origin, Op::Delete, lists.one(), subject, effect));
        Ok(answers::lists_deleted(count, &origin.envelope()))
    }

    /// Takes exactly this address or network out, in every scope.
    pub(super) fn delete_address(
        &mut self,
        origin: &Origin,
        address: &Network,
        lists: WhichLists,
    ) -> Result<Answer, ApiError> {
        let deleted = self.change(origin, |firewall| {
            let now = SystemTime::now();
            let rights = &origin.client.rights;
            firewall.check_rows_of(rights, address, lists, now)?;
            // What it may not change it does not see: that stays.
            let wanted = |rule: &Rule, list| lists.admits(list) && rights.check_rule(rule, list).is_ok();
            let deleted = match origin.is_dry_run {
                true => firewall.would_delete_address(address, wanted, now)?,
                false => firewall.delete_address(address, wanted, now)?,
            };
            for Held { rule, list, .. } in &deleted {
                origin.note_update(firewall, *list, rule.scope(), now);
            }
            Ok(deleted)
        })?;
        let count = deleted.len();
        self.tell_deletions(origin, address, lists, &deleted);
        let mut seen: Vec<Held> = deleted.into_iter().filter(|held| origin.sees(held.list)).collect();
        // In the same order each time, whether they were deleted or would be.
        seen.sort_by(|a, b| (a.list, &a.rule).cmp(&(b.list, &b.rule)));
        Ok(answers::address_deleted(count, &seen, &origin.envelope()))
    }

    /// Tells each row that one address was taken out of, or that it was nowhere.
    fn tell_deletions(&mut self, origin: &Origin, address: &Network, lists: WhichLists, deleted: &[Held]) {
        if deleted.is_empty() {
            let (subject, effect) = (Subject::Nowhere(*address), Effect::One(Outcome::Absent));
            self.tell(origin, Record::new(origin, Op::Delete, lists.one(), subject, effect));
        }
        for Held { rule, list, .. } in deleted {
            let (subject, effect) = (Subject::Rule(rule.clone()), Effect::One(Outcome::Deleted));
            self.tell(origin, Record::new(origin, Op::Delete, Some(*list), subject, effect));
        }
    }

    /// What a filter finds, which is yet to be read.
    pub(super) fn list(&self, origin: &Origin, filter: Filter) -> Result<Listing, ApiError> {
        self.slots.check(&filter)?;
        let filter = Filter { visible: origin.client.rights.visible(), ..filter };
        Ok(self.shared.read(|firewall| firewall.list(&filter, SystemTime::now()))?)
    }

    /// What a list, or each, holds in each scope.
    pub(super) fn lists(
        &self,
        origin: &Origin,
        wanted: Option<ListName>,
        format: Format,
    ) -> Result<Answer, ApiError> {
        let told = |list| wanted.is_none_or(|wanted| wanted == list) && origin.sees(list);
        let lists = self.shared.read(|firewall| firewall.lists(told, SystemTime::now()))?;
        Ok(answers::summaries(&lists, format))
    }

    /// Has the firewall make the change of a request, or say what it would do.
    fn change<T>(
        &self,
        origin: &Origin,
        work: impl FnOnce(&mut Firewall) -> Result<T, FirewallError>,
    ) -> Result<T, FirewallError> {
        match origin.is_dry_run {
            true => self.shared.read(work),
            false => self.shared.change(work),
        }
    }

    fn interval(&self, put: &Put) -> Interval {
        put.expire.unwrap_or(self.config.default_expire)
    }
}

impl Origin {
    /// The name of the client.
    fn user(&self) -> &str {
        &self.client.name
    }

    /// Takes down that the client has changed a list, unless it only asks what a change would do.
    fn note_update(&self, firewall: &mut Firewall, list: ListName, scope: &Scope, now: SystemTime) {
        if !self.is_dry_run {
            firewall.note_update(list, scope, self.user(), now);
        }
    }

    /// What each answer tells.
    fn envelope(&self) -> Envelope {
        Envelope { host: self.host.clone(), is_dry_run: self.is_dry_run }
    }

    /// Whether the client may see what is in a list.
    fn sees(&self, list: ListName) -> bool {
        self.client.rights.sees(list)
    }

    /// A reason in the words of this client.
    fn note(&self, reason: Reason) -> Box<Note> {
        Box::new(Note::new(self.user(), reason))
    }
}
