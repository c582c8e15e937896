//! Whether a client may have a command, as far as the head of its request tells. What depends on what is
//! there already is looked at when the command is executed, and the addresses of a body as they come.

use crate::api::url::{Command, Put};
use crate::firewall::WhichLists;
use crate::rule::lease::Interval;
use crate::rule::rights::{MissingRight, Rights};

/// Checks a command; `default` is the time of an address whose request has none.
///
/// # Errors
/// The first right that is missing.
pub(super) fn check(rights: &Rights, command: &Command, default: Interval) -> Result<(), MissingRight> {
    let time = |put: &Put| rights.check_time(put.expire.unwrap_or(default));
    match command {
        Command::Help | Command::Page | Command::Health => Ok(()),
        Command::Metrics => rights.check_read_all(),
        Command::List { filter, .. } => rights.check_read(filter.list),
        Command::Lists { list, .. } => rights.check_read(*list),
        Command::Changes(_) => rights.check_read(None),
        Command::Insert { rule, put } => rights.check_rule(rule, put.list).and_then(|()| time(put)),
        Command::Delete { rule, list } => rights.check_rule(rule, *list),
        Command::InsertAll { scope, put, .. } => rights.check_scope(scope, put.list).and_then(|()| time(put)),
        Command::DeleteAll { scope, list } => rights.check_scope(scope, *list),
        Command::DeleteLists { lists, scope } => {
            rights.check_any()?;
            match (lists, scope) {
                (WhichLists::All, _) => rights.check_all_lists(),
                (WhichLists::One(list), Some(scope)) => rights.check_scope(scope, *list),
                (WhichLists::One(list), None) => rights.check_list(*list),
            }
        }
        Command::DeleteAddress { address, lists } => {
            rights.check_any()?;
            rights.check_width(address)?;
            match lists {
                WhichLists::One(list) => rights.check_list(*list),
                // Each list that it sees the address in is looked at.
                WhichLists::All => Ok(()),
            }
        }
    }
}
