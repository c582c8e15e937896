//! The clients of a configuration, and what is odd about one: nothing that a start is refused for, but
//! hardly what is meant.

use crate::config::clients::{Client, From};
use crate::config::file::{Config, Local};
use crate::firewall::counted;
use crate::rule::network::{Family, Network};
use crate::rule::rights::Read;
use crate::rule::whitelist::WhiteList;
use std::ptr;

/// Who comes to a local server (RFC 6890): each of its addresses counts as listed there.
const LOOPBACK: &str = "127.0.0.0/8";

/// The clients, in the order of the file, and last the one of a local server without login, if it has no
/// section.
pub(super) fn all(config: &Config) -> Vec<&Client> {
    let (mut all, local): (Vec<&Client>, &Client) = (config.clients.iter().collect(), config.clients.local());
    if is_without_login(config) && !all.iter().any(|client| ptr::eq(*client, local)) {
        all.push(local);
    }
    all
}

/// Whether there is a local server without login.
pub(super) fn is_without_login(config: &Config) -> bool {
    config.local.as_ref().is_some_and(|local: &Local| !local.authentication)
}

/// What there is to warn of: clients that can't come from all the addresses of their `from`, and those that
/// can do nothing.
pub(super) fn warnings(config: &Config, whitelist: &WhiteList) -> Vec<String> {
    let mut reachable: Vec<Network> =
        [Family::V4, Family::V6].into_iter().flat_map(|family| whitelist.merged(family)).collect();
    reachable.extend(config.local.as_ref().and_then(|_| LOOPBACK.parse::<Network>().ok()));
    let clients = all(config).into_iter();
    clients.flat_map(|client| [unlisted(client, &reachable), useless(client)]).flatten().collect()
}

fn unlisted(client: &Client, reachable: &[Network]) -> Option<String> {
    let From::Of(networks) = &client.from else { return None };
    let is_listed = |network: &&Network| reachable.iter().any(|listed| listed.covers(network));
    let missing: Vec<&Network> = networks.iter().filter(|network| !is_listed(network)).collect();
    let first = missing.first()?;
    let more = match missing.len().saturating_sub(1) {
        0 => String::new(),
        more => format!(" (and {})", counted(more, "other", "others")),
    };
    let name = client.name.escape_debug();
    Some(format!(
        "the client {name} may come from {first}{more} (from), of which the white list does not have all: \
         from the rest it does not get in"
    ))
}

fn useless(client: &Client) -> Option<String> {
    let rights = &client.rights;
    let can_nothing = rights.allow.is_empty() && rights.read == Read::None;
    let name = client.name.escape_debug();
    can_nothing.then(|| {
        format!("the client {name} can neither change nor see anything: expected allow, or read = own or all")
    })
}

#[cfg(test)]
mod tests;
