//! Which addresses of a body do not go in: one that the client has no right to refuses the whole body; one
//! that is white-listed, not globally reachable or no part of a rule there is skipped.

use crate::api::address_list::Forbidden;
use crate::api::error::ApiError;
use crate::api::url::Command;
use crate::rule::network::Network;
use crate::rule::rights::Rights;
use crate::rule::whitelist::WhiteList;
use crate::rule::{Target, special};

/// Why an address of a list does not go in.
pub(super) fn forbidden(
    rights: &Rights,
    command: &Command,
    whitelist: &WhiteList,
    network: &Network,
) -> Option<Forbidden> {
    match rights.check_width(network) {
        Err(right) => Some(Forbidden::Refused(right)),
        Ok(()) => skipped(command, whitelist, network).map(Forbidden::Skipped),
    }
}

/// Why an address of a list is to be skipped.
fn skipped(command: &Command, whitelist: &WhiteList, network: &Network) -> Option<String> {
    let (scope, put) = match command {
        Command::InsertAll { scope, body, .. } => (scope, Some(body)),
        Command::DeleteAll { scope, .. } => (scope, None),
        _ => return None,
    };
    if let Err(error) = scope.clone().rule(*network) {
        return Some(error.to_string());
    }
    let body = put?;
    if let Some(listed) = whitelist.overlap(network) {
        return Some(ApiError::white_listed(*network, listed).to_string());
    }
    let takes_special = body.special || scope.target() == Target::Accept;
    let block = special::block_of(network).filter(|_| !takes_special)?;
    Some(not_reachable(network, &block))
}

/// Why a network is skipped that has addresses of a special block.
fn not_reachable(network: &Network, block: &Network) -> String {
    let relation = match block.covers(network) {
        true if block == network => String::new(),
        true => format!(" is in {block}, which"),
        false => format!(" has addresses of {block}, which"),
    };
    format!("{network}{relation} is not globally reachable (RFC 6890): special=true takes it")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::url;
    use crate::golden::cases;

    #[test]
    fn what_is_not_reachable_is_skipped_where_it_would_be_blocked() {
        let whitelist = WhiteList::parse("10.0.0.5\nnever 10.0.0.8/30").unwrap();
        for (at, [method, target, network, expected]) in cases("skipped.txt") {
            let command = url::parse(&method.parse().unwrap(), &target, false).unwrap().command;
            let reason = skipped(&command, &whitelist, &network.parse().unwrap());
            assert_eq!(reason.unwrap_or("-".to_owned()), expected, "{at}");
        }
    }
}
