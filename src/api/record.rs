//! What a client has changed, or asked to change: one record of it is a line of the log and a row of
//! `GET /changes`. Both forms are documented in rfw(8) and stay as they are.

use crate::api::{Origin, answers};
use crate::firewall::{self, ListResult, Outcome};
use crate::logfmt::Line;
use crate::rule::lease::{Lease, Moment};
use crate::rule::list_name::ListName;
use crate::rule::network::Network;
use crate::rule::note::{self, Reason};
use crate::rule::{Chain, Interface, Rule, Scope};
use serde_json::Value;
use std::fmt;
use std::net::IpAddr;
use std::time::SystemTime;

/// The longest name of a client that is kept, in bytes.
const NAME_MAX: usize = 64;

/// A change by a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    /// When it was made.
    pub time: Moment,
    /// The name of the client, cut to [`NAME_MAX`] bytes.
    pub client: Box<str>,
    /// Its address.
    pub from: IpAddr,
    /// What was asked for.
    pub op: Op,
    /// The list; `None` is all of them.
    pub list: Option<ListName>,
    /// What was changed.
    pub subject: Subject,
    /// When it ends, where it was put in.
    pub until: Option<Lease>,
    /// The client's words for it.
    pub reason: Option<Reason>,
    /// What came of it.
    pub effect: Effect,
}

/// What a client asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Op {
    /// To put in.
    Insert,
    /// To take out.
    Delete,
    /// To have a list hold exactly this.
    Replace,
}

/// What a change is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Subject {
    /// One rule.
    Rule(Rule),
    /// One address or network that was in none of the scopes.
    Nowhere(Network),
    /// So many addresses of a scope.
    Scope(Scope, u32),
    /// So many addresses, wherever they were.
    Everywhere(u32),
}

/// What came of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    /// Of one address.
    One(Outcome),
    /// Of a list that was put in.
    Put {
        inserted: u32,
        refreshed: u32,
        /// Those that are gone, where it replaces.
        removed: Option<u32>,
        /// Lines that were passed over.
        skipped: u32,
    },
    /// Of a list, or of all that one has, that was taken out.
    Taken {
        deleted: u32,
        /// Those that were not there, of a list that was sent.
        absent: Option<u32>,
        /// Lines that were passed over.
        skipped: u32,
    },
}

impl Record {
    /// A record of a change by that client, which has neither end nor reason.
    pub(super) fn new(
        origin: &Origin,
        op: Op,
        list: Option<ListName>,
        subject: Subject,
        effect: Effect,
    ) -> Record {
        Record {
            time: Moment::at_or_after(SystemTime::now()),
            client: note::start(&origin.client.name, NAME_MAX).into(),
            from: origin.from,
            op,
            list,
            subject,
            until: None,
            reason: None,
            effect,
        }
    }

    /// The same with an end and a reason.
    pub(super) fn lasting(self, lease: Lease, reason: Option<Reason>) -> Record {
        Record { until: Some(lease), reason, ..self }
    }

    /// Whether anything is another than before.
    pub(super) fn has_effect(&self) -> bool {
        match self.effect {
            Effect::One(outcome) => !matches!(outcome, Outcome::Unchanged | Outcome::Absent),
            Effect::Put { .. } => true,
            Effect::Taken { deleted, .. } => deleted > 0,
        }
    }

    /// Whether all of every list went, whatever they had.
    pub(super) fn is_of_all_lists(&self) -> bool {
        self.list.is_none() && !matches!(self.subject, Subject::Nowhere(_))
    }

    /// What was done, in a few words such as `1 inserted in tor`.
    pub(super) fn summary(&self) -> String {
        let within = match self.list {
            None => " in all lists".to_owned(),
            Some(list) if list.is_named() => format!(" in {list}"),
            Some(_) => String::new(),
        };
        let one = if matches!(self.effect, Effect::One(_)) { "1 " } else { "" };
        format!("{one}{}{within}", self.effect)
    }

    /// The line of the log.
    pub(super) fn line(&self) -> Line {
        let line = Line::default()
            .with("client", &self.client)
            .with("from", self.from)
            .with("op", self.op)
            .with("list", self.list.as_ref().map_or("*", ListName::word));
        let line = match self.subject.scope() {
            Some(scope) => placed(line, scope),
            None => line,
        };
        let until = self.until.map(|lease| lease.end().map_or("never".to_owned(), |end| end.to_string()));
        let count = self.subject.address().is_none().then(|| self.subject.count());
        line.with_some("address", self.subject.address())
            .with_some("destination", self.subject.destination())
            .with_some("count", count)
            .with_some("until", until)
            .with_some("reason", self.reason.as_ref().map(Reason::as_str))
            .with("outcome", self.effect)
    }

    /// The row of `GET /changes`. Who does not see all lists is not told how much all of them had.
    pub(super) fn row(&self, sees_all: bool) -> Value {
        let hides_count = self.is_of_all_lists() && !sees_all;
        let scope = self.subject.scope();
        let interface =
            |of: fn(&Scope) -> Option<&Interface>| scope.map(|scope| Interface::column(of(scope)));
        let count = Some(self.subject.count()).filter(|_| !hides_count);
        let outcome = if hides_count { "deleted".to_owned() } else { self.effect.to_string() };
        let columns: [(&str, Value); 15] = [
            ("time", self.time.to_string().into()),
            ("client", (*self.client).into()),
            ("from", self.from.to_string().into()),
            ("op", self.op.to_string().into()),
            ("list", self.list.as_ref().map(ListName::as_str).into()),
            ("target", scope.map(|scope| scope.target().name()).into()),
            ("chain", scope.map(|scope| scope.chain().name()).into()),
            ("inp", interface(Scope::input_interface).into()),
            ("out", interface(Scope::output_interface).into()),
            ("address", self.subject.address().into()),
            ("destination", self.subject.destination().into()),
            ("count", count.into()),
            ("until", self.until.and_then(Lease::end).map(|end| end.to_string()).into()),
            ("reason", self.reason.as_ref().map(Reason::as_str).into()),
            ("outcome", outcome.into()),
        ];
        answers::members(columns).into()
    }
}

impl Effect {
    /// That of a list that was put in, with the number of those that are gone, where it replaces.
    pub(super) fn put(count: ListResult, removed: Option<usize>, skipped: usize) -> Effect {
        Effect::Put {
            inserted: number(count.absent),
            refreshed: number(count.present),
            removed: removed.map(number),
            skipped: number(skipped),
        }
    }

    /// That of a list, or of all that one has, that was taken out.
    pub(super) fn taken(deleted: usize, absent: Option<usize>, skipped: usize) -> Effect {
        Effect::Taken { deleted: number(deleted), absent: absent.map(number), skipped: number(skipped) }
    }
}

impl Subject {
    /// Target, chain and interfaces, where they are the same for all of it.
    pub(super) fn scope(&self) -> Option<&Scope> {
        match self {
            Subject::Rule(rule) => Some(rule.scope()),
            Subject::Scope(scope, _) => Some(scope),
            Subject::Nowhere(_) | Subject::Everywhere(_) => None,
        }
    }

    /// The address, if it is one: the destination in OUTPUT, else the source.
    fn address(&self) -> Option<String> {
        match self {
            Subject::Rule(rule) if is_forward(rule.scope()) => {
                Some(firewall::printed(rule.source(), rule.family()))
            }
            Subject::Rule(rule) => rule.networks().next().map(Network::to_string),
            Subject::Nowhere(network) => Some(network.to_string()),
            Subject::Scope(..) | Subject::Everywhere(_) => None,
        }
    }

    /// The other address of a rule in FORWARD.
    fn destination(&self) -> Option<String> {
        match self {
            Subject::Rule(rule) if is_forward(rule.scope()) => rule.destination().map(Network::to_string),
            _ => None,
        }
    }

    fn count(&self) -> u32 {
        match self {
            Subject::Rule(_) | Subject::Nowhere(_) => 1,
            Subject::Scope(_, count) | Subject::Everywhere(count) => *count,
        }
    }
}

/// The line with the words of a scope.
fn placed(line: Line, scope: &Scope) -> Line {
    let (input, output) = (scope.input_interface(), scope.output_interface());
    let (near, far) = match scope.chain() {
        Chain::Input => (input, None),
        Chain::Output => (output, None),
        Chain::Forward => (input, output),
    };
    line.with("target", scope.target().word())
        .with("chain", scope.chain().word())
        .with("interface", near.map_or("any", Interface::name))
        .with_some("out", far.map(Interface::name))
}

fn is_forward(scope: &Scope) -> bool {
    scope.chain() == Chain::Forward
}

/// A number of addresses as records have it.
pub(super) fn number(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Op::Insert => "insert",
            Op::Delete => "delete",
            Op::Replace => "replace",
        })
    }
}

impl fmt::Display for Effect {
    /// A word for one address, numbers for many: `120 inserted, 3 refreshed, 4 removed`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let skipped = match *self {
            Effect::One(outcome) => return f.write_str(outcome.name()),
            Effect::Put { inserted, refreshed, removed, skipped } => {
                write!(f, "{inserted} inserted, {refreshed} refreshed")?;
                removed.iter().try_for_each(|removed| write!(f, ", {removed} removed"))?;
                skipped
            }
            Effect::Taken { deleted, absent, skipped } => {
                write!(f, "{deleted} deleted")?;
                absent.iter().try_for_each(|absent| write!(f, ", {absent} absent"))?;
                skipped
            }
        };
        if skipped > 0 { write!(f, ", {skipped} skipped") } else { Ok(()) }
    }
}

#[cfg(test)]
#[path = "record/tests.rs"]
pub(super) mod tests;
