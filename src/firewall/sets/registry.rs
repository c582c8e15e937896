//! The registry: a `list:set` of the kernel that has each set of rfw as a member, with a comment
//! that says what the set is for. It tells what is rfw's without a name being parsed, and what is
//! a member can't be destroyed by others.
//!
//! Others may empty or destroy the registry itself: so a missing or empty one proves nothing, and
//! is made again from memory. It counts as rfw's if it has the nonce, an empty set with a random
//! number in its name, that only rfw makes: a list that somebody else calls `rfw` has none. The
//! number also tells this network namespace, and the time since its boot, from any other.

use super::guard;
use super::{Sets, about, deadline, is_like_ours, set_name};
use crate::firewall::FirewallError;
use crate::kernel::ipset::{
    Batch, Comment, Definition, Element, Existing, IpsetError, NewEntry, SetInfo, SetName, SetType,
};
use crate::kernel::random;
use crate::kernel::set_key::{SetKey, is_work_name};
use crate::rule::network::Family;
use std::collections::BTreeMap;

/// The name of the registry.
const NAME: &str = "rfw";

/// What the name of the nonce begins with; 16 hexadecimal digits follow.
pub(crate) const NONCE: &str = "rfw-nonce-";

/// The most members: sixty for each interface of a large host.
const SIZE: u32 = 4_096;

/// The comment of the nonce.
const NONCE_COMMENT: &str = "nonce";

/// What the comment of a set begins with that is built beside another.
const BUILDING: &str = "building ";

/// The members of the registry by name, with their comments, as they are in the kernel or were
/// before others removed them.
#[derive(Debug, Default)]
pub(super) struct Registry {
    members: BTreeMap<String, String>,
    state: State,
    /// Whether others have taken all members out at once since the last look: then they have emptied
    /// all sets, or destroyed them.
    emptied: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum State {
    /// The kernel has to be asked.
    #[default]
    Unknown,
    /// It is there and has its nonce; members may be missing.
    Whole,
    /// There is none, or an empty one.
    Missing,
    /// The kernel has no lists of sets, or there is a set of that name that rfw has not made.
    Unavailable,
}

/// What tells which sets are rfw's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Registered {
    /// The registry: sets with what each is for; `None` is a set that was being built. Those of the
    /// guard are not among them.
    Whole(BTreeMap<String, Option<SetKey>>),
    /// Nothing but rules of rfw: the registry is missing or was emptied.
    Missing,
    /// Names and types, since there can be no registry.
    Unavailable,
}

impl Sets {
    /// Reads the registry.
    ///
    /// # Errors
    /// The kernel does not answer.
    pub(crate) fn registered(&mut self) -> Result<Registered, FirewallError> {
        self.read_registry()?;
        Ok(match self.registry.state {
            State::Whole => Registered::Whole(
                self.registry
                    .members
                    .iter()
                    .filter(|(name, comment)| *comment != NONCE_COMMENT && !guard::is_member(name, comment))
                    .map(|(name, comment)| (name.clone(), purpose(name, comment)))
                    .collect(),
            ),
            State::Missing | State::Unknown => Registered::Missing,
            State::Unavailable => Registered::Unavailable,
        })
    }

    /// The nonce of the registry as the kernel has it, which tells this network namespace from others;
    /// nothing where there is no registry.
    ///
    /// # Errors
    /// The kernel does not answer.
    pub(crate) fn nonce(&mut self) -> Result<Option<String>, FirewallError> {
        let members = self.read_registry()?;
        let nonce = members.into_iter().find(|(name, comment)| is_nonce(name, comment));
        Ok(nonce.map(|(name, _)| name))
    }

    /// Whether the registry has a member that is rfw's.
    ///
    /// # Errors
    /// The kernel does not answer.
    pub(crate) fn has_members(&mut self) -> Result<bool, FirewallError> {
        Ok(self.read_registry()?.iter().any(|(name, comment)| is_own(name, comment)))
    }

    /// The nonce as last read or made.
    pub(crate) fn known_nonce(&self) -> Option<&str> {
        let nonce = self.registry.members.iter().find(|(name, comment)| is_nonce(name, comment));
        nonce.map(|(name, _)| name.as_str())
    }

    /// Finds out the state of the registry, and gives its members.
    fn read_registry(&mut self) -> Result<BTreeMap<String, String>, FirewallError> {
        let (name, mut members) = (set_name(NAME)?, BTreeMap::new());
        self.registry.state = match self.ipset.info(&name, deadline()) {
            Err(IpsetError::NoSet) => match self.ipset.revision(SetType::List, deadline()) {
                Ok(_) => State::Missing,
                Err(IpsetError::NoType) => State::Unavailable,
                Err(error) => return Err(error.into()),
            },
            Ok(info) if is_like_registry(&info) => {
                members = self.read_members(&name)?;
                let own = |(name, comment): (&String, &String)| is_own(name, comment);
                if members.iter().any(|(name, comment)| is_nonce(name, comment)) {
                    let own = members.iter().filter(|(name, comment)| is_own(name, comment));
                    self.registry.members.extend(own.map(|(name, comment)| (name.clone(), comment.clone())));
                    State::Whole
                } else if members.iter().all(own) {
                    // Others have emptied it, or taken the nonce away.
                    State::Missing
                } else {
                    State::Unavailable
                }
            }
            Ok(_) => State::Unavailable,
            Err(error) => return Err(FirewallError::Set(NAME.to_owned(), error)),
        };
        let is_missing = self.registry.state == State::Missing;
        self.registry.emptied |= is_missing && members.is_empty() && !self.registry.members.is_empty();
        Ok(members)
    }

    /// Whether others have emptied or destroyed the registry since the last look.
    ///
    /// # Errors
    /// The kernel does not answer.
    pub(super) fn is_registry_emptied(&mut self) -> Result<bool, FirewallError> {
        if !self.registry.emptied && !self.registry.members.is_empty() {
            self.read_registry()?;
        }
        Ok(self.registry.emptied)
    }

    /// Takes down that what went with the registry is back.
    pub(super) fn note_registry_back(&mut self) {
        self.registry.emptied = false;
    }

    fn read_members(&self, name: &SetName) -> Result<BTreeMap<String, String>, FirewallError> {
        let mut members = BTreeMap::new();
        self.each_entry(name, |entry| {
            if let Element::Set(member) = entry.element {
                members.insert(member.to_owned(), entry.comment.as_deref().unwrap_or_default().to_owned());
            }
            true
        })?;
        Ok(members)
    }

    /// Makes a set and registers it, in one send.
    ///
    /// # Errors
    /// The kernel does not have the set. That it can't be registered is logged: it does its work
    /// without that.
    pub(super) fn make(
        &mut self,
        name: &SetName,
        definition: &Definition,
        comment: String,
    ) -> Result<(), FirewallError> {
        self.make_of(name, None, definition, comment)
    }

    /// Makes a set that is registered, of `work` if there is one: what is built there is in it then, whole,
    /// in the same send.
    ///
    /// # Errors
    /// As for [`Sets::make`].
    pub(super) fn make_of(
        &mut self,
        name: &SetName,
        work: Option<&SetName>,
        definition: &Definition,
        comment: String,
    ) -> Result<(), FirewallError> {
        let revision =
            self.ipset.revision(definition.set_type, deadline()).map_err(|error| about(name, error))?;
        let mut batch = self.ipset.batch();
        batch.create(name, definition, revision);
        work.iter().for_each(|work| batch.swap(work, name));
        let own = 1 + usize::from(work.is_some());
        self.enroll(&mut batch, name, comment)?;
        let mut outcomes =
            self.ipset.transact(batch, deadline()).map_err(|error| about(name, error))?.outcomes.into_iter();
        let failure = outcomes.by_ref().take(own).fold(None, |first, outcome| first.or(outcome.failure));
        if let Some((_, error)) = failure {
            self.forget_member(name);
            return Err(about(name, error));
        }
        self.note_registry(outcomes.filter_map(|outcome| outcome.failure));
        Ok(())
    }

    /// Plans that a set is a member; makes the registry where it is missing.
    fn enroll(&mut self, batch: &mut Batch, name: &SetName, comment: String) -> Result<(), FirewallError> {
        // Others may have put a list of their own in its place.
        self.read_registry()?;
        self.registry.members.insert(name.as_str().to_owned(), comment);
        match self.registry.state {
            State::Unavailable => Ok(()),
            State::Missing => self.plan_registry(batch),
            _ => add_member(batch, name.as_str(), self.registry.members.get(name.as_str())),
        }
    }

    /// Plans the registry and all its members.
    fn plan_registry(&mut self, batch: &mut Batch) -> Result<(), FirewallError> {
        if !self.registry.members.values().any(|comment| comment == NONCE_COMMENT) {
            let nonce = format!("{NONCE}{:016x}", random::number().map_err(FirewallError::Random)?);
            self.registry.members.insert(nonce, NONCE_COMMENT.to_owned());
        }
        let registry = Definition { set_type: SetType::List, maxelem: SIZE, comments: true, expected: 0 };
        let revision = self.ipset.revision(SetType::List, deadline())?;
        batch.create(&set_name(NAME)?, &registry, revision);
        // First the nonce: what has no nonce is not whole.
        let (nonces, others): (Vec<_>, Vec<_>) =
            self.registry.members.iter().partition(|(_, comment)| *comment == NONCE_COMMENT);
        for (name, comment) in nonces {
            let nonce =
                Definition { set_type: SetType::Net(Family::V4), maxelem: 1, comments: false, expected: 0 };
            let revision = self.ipset.revision(nonce.set_type, deadline())?;
            batch.create(&set_name(name)?, &nonce, revision);
            add_member(batch, name, Some(comment))?;
        }
        others.into_iter().try_for_each(|(name, comment)| add_member(batch, name, Some(comment)))
    }

    /// Registers a set that is there already.
    ///
    /// # Errors
    /// The kernel does not answer. What it refuses is logged: a set does its work without it.
    pub(crate) fn register(&mut self, set: &SetKey) -> Result<(), FirewallError> {
        self.register_as(&set_name(&set.name())?, set.description())
    }

    /// Registers a set that is there already with a comment that says what it is for.
    ///
    /// # Errors
    /// As for [`Sets::register`].
    pub(super) fn register_as(&mut self, name: &SetName, comment: String) -> Result<(), FirewallError> {
        if self.registry.state == State::Whole && self.registry.members.contains_key(name.as_str()) {
            return Ok(());
        }
        let mut batch = self.ipset.batch();
        self.enroll(&mut batch, name, comment)?;
        self.make_registry(batch)
    }

    /// Whether a set is a member of the registry, or was one before others changed that. Where
    /// there can be no registry, its name tells that it is rfw's.
    ///
    /// # Errors
    /// The kernel does not answer.
    pub(super) fn is_registered(&mut self, name: &SetName) -> Result<bool, FirewallError> {
        self.read_registry()?;
        let is_member = self.registry.members.contains_key(name.as_str());
        Ok(is_member || self.registry.state == State::Unavailable)
    }

    /// Has the kernel make what of the registry is planned.
    fn make_registry(&mut self, batch: Batch) -> Result<(), FirewallError> {
        if batch.is_empty() {
            return Ok(());
        }
        let report = self.ipset.transact(batch, deadline())?;
        self.note_registry(report.outcomes.into_iter().filter_map(|outcome| outcome.failure));
        Ok(())
    }

    /// Takes down what came of changes of the registry. That a part of it was there is fine.
    fn note_registry(&mut self, failures: impl Iterator<Item = (usize, IpsetError)>) {
        let failure = failures.map(|(_, error)| error).find(|error| !matches!(error, IpsetError::SetExists));
        self.registry.state = match (failure, self.registry.state) {
            (Some(error), _) => {
                log::warn!("the registry of sets ({NAME}) is not whole, and is made again: {error}");
                State::Unknown
            }
            (None, State::Missing) => State::Whole,
            (None, state) => state,
        };
    }

    /// Makes the registry again where others have emptied or destroyed it, or taken members away. Gives
    /// the number of members that are back.
    ///
    /// # Errors
    /// The kernel does not answer.
    pub(crate) fn check_registry(&mut self) -> Result<usize, FirewallError> {
        if self.registry.members.is_empty() {
            return Ok(0);
        }
        let there = self.read_registry()?;
        if self.registry.state == State::Unavailable {
            return Ok(0);
        }
        self.forget_destroyed(&there)?;
        let wanted = self.registry.members.clone();
        let missing: Vec<_> = wanted.iter().filter(|(name, _)| !there.contains_key(*name)).collect();
        if missing.is_empty() {
            return Ok(0);
        }
        let lost = missing.len();
        let mut batch = self.ipset.batch();
        match self.registry.state {
            State::Missing => self.plan_registry(&mut batch)?,
            _ => {
                missing.iter().try_for_each(|(name, comment)| add_member(&mut batch, name, Some(comment)))?
            }
        }
        self.make_registry(batch)?;
        if self.registry.state != State::Whole {
            return Ok(0);
        }
        Ok(lost)
    }

    /// Forgets the sets that others have destroyed, which they can once it is a member no more, or
    /// made anew in another way. The nonce is made again.
    fn forget_destroyed(&mut self, there: &BTreeMap<String, String>) -> Result<(), FirewallError> {
        let members = self.registry.members.iter();
        let missing =
            members.filter(|(name, comment)| !there.contains_key(*name) && *comment != NONCE_COMMENT);
        let missing: Vec<String> = missing.map(|(name, _)| name.clone()).collect();
        for name in missing {
            let own = match self.ipset.info(&set_name(&name)?, deadline()) {
                Ok(info) => is_like_ours(&info) || guard::is_own_guard(&info),
                Err(IpsetError::NoSet) => false,
                Err(error) => return Err(FirewallError::Set(name, error)),
            };
            if !own {
                self.registry.members.remove(&name);
            }
        }
        Ok(())
    }

    /// Takes a set out of the registry that others have put in the place of a member.
    ///
    /// # Errors
    /// The kernel does not answer.
    pub(crate) fn release(&mut self, name: &str) -> Result<(), FirewallError> {
        let (name, mut batch) = (set_name(name)?, self.ipset.batch());
        self.withdraw(&mut batch, &name)?;
        self.forget_member(&name);
        self.make_registry(batch)
    }

    /// Plans that a set is a member no more.
    ///
    /// # Errors
    /// The kernel does not answer.
    pub(super) fn withdraw(&mut self, batch: &mut Batch, name: &SetName) -> Result<(), FirewallError> {
        self.read_registry()?;
        // Without its nonce it keeps its members from being destroyed all the same.
        if self.registry.state != State::Unavailable {
            batch.del_each(&set_name(NAME)?, [Element::from(name)], Existing::Accept);
        }
        Ok(())
    }

    /// Takes down that a set is destroyed.
    pub(super) fn forget_member(&mut self, name: &SetName) {
        self.registry.members.remove(name.as_str());
    }

    /// Makes a set a member again that could not be destroyed.
    pub(super) fn reinstate(&mut self, name: &SetName) -> Result<(), FirewallError> {
        let Some(comment) = self.registry.members.get(name.as_str()).cloned() else { return Ok(()) };
        let mut batch = self.ipset.batch();
        self.enroll(&mut batch, name, comment)?;
        self.make_registry(batch)
    }

    /// Destroys the registry if it has no sets any more, and nonces that are members of none, since
    /// others have emptied it. What others use stays.
    ///
    /// # Errors
    /// The kernel does not answer, or refuses it for another reason.
    pub(crate) fn destroy_empty_registry(&mut self, infos: &[SetInfo]) -> Result<(), FirewallError> {
        self.read_registry()?;
        let mut batch = self.ipset.batch();
        let used = self.registry.members.values().any(|comment| comment != NONCE_COMMENT);
        if !used && self.is_own_registry()? {
            batch.destroy(&set_name(NAME)?);
            for name in self.registry.members.keys() {
                batch.destroy(&set_name(name)?);
            }
            self.registry = Registry::default();
        }
        for info in infos.iter().filter(|info| is_lost_nonce(info)) {
            if !self.registry.members.contains_key(&info.header.name) {
                batch.destroy(&set_name(&info.header.name)?);
            }
        }
        if batch.is_empty() {
            return Ok(());
        }
        let outcomes = self.ipset.transact(batch, deadline())?.outcomes.into_iter();
        for error in outcomes.filter_map(|outcome| outcome.failure).map(|(_, error)| error) {
            match error {
                IpsetError::NoSet => {}
                IpsetError::Busy => {
                    log::debug!("the registry of sets ({NAME}) or its nonce stays, since others use it");
                }
                error => return Err(FirewallError::Set(NAME.to_owned(), error)),
            }
        }
        Ok(())
    }

    /// Whether the registry is there, with its nonce or as others have left it that emptied it.
    fn is_own_registry(&mut self) -> Result<bool, FirewallError> {
        match self.registry.state {
            State::Whole => Ok(true),
            State::Unknown | State::Unavailable => Ok(false),
            State::Missing => match self.ipset.info(&set_name(NAME)?, deadline()) {
                Ok(info) => Ok(info.elements == 0),
                Err(IpsetError::NoSet) => Ok(false),
                Err(error) => Err(FirewallError::Set(NAME.to_owned(), error)),
            },
        }
    }
}

/// The comment of a set that is built beside another.
pub(super) fn building(set: &SetKey) -> String {
    format!("{BUILDING}{}", set.description())
}

fn is_nonce(name: &str, comment: &str) -> bool {
    name.starts_with(NONCE) && comment == NONCE_COMMENT
}

/// Whether a set is made as rfw makes the registry.
fn is_like_registry(info: &SetInfo) -> bool {
    let is_list = info.header.set_type == Some(SetType::List) && info.maxelem == SIZE;
    is_list && info.comments && !info.counters && info.timeout.is_none() && !info.other
}

/// Whether it is a nonce that is a member of no registry.
fn is_lost_nonce(info: &SetInfo) -> bool {
    let digits = info.header.name.strip_prefix(NONCE).unwrap_or_default();
    let named = digits.len() == 16 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    named && is_like_ours(info) && (info.maxelem, info.elements, info.references) == (1, 0, 0)
}

/// Whether a member has a comment of rfw that belongs to its name.
fn is_own(name: &str, comment: &str) -> bool {
    let building = is_work_name(name) && comment.starts_with(BUILDING);
    building || is_nonce(name, comment) || guard::is_member(name, comment) || purpose(name, comment).is_some()
}

/// What a member is for; `None` if that is to be built beside another.
fn purpose(name: &str, comment: &str) -> Option<SetKey> {
    SetKey::described(comment).filter(|set| set.name() == name)
}

fn add_member(batch: &mut Batch, name: &str, comment: Option<&String>) -> Result<(), FirewallError> {
    let comment = comment.and_then(|comment| Comment::new(comment));
    let member = NewEntry { comment, ..NewEntry::new(Element::Set(name)) };
    batch.add_each(&set_name(NAME)?, [member], Existing::Accept);
    Ok(())
}
