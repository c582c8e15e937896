//! The clients with their rights, as a table.

use super::report::{Row, table};
use crate::config::clients::{Client, From};
use crate::config::file::{ClientAuth, Config};
use crate::daemon::clients::{all, is_without_login};
use crate::rule::network::Network;
use crate::rule::rights::Grant;
use std::ptr;

/// The titles of the columns.
const HEAD: [&str; 9] = ["NAME", "LOGIN", "FROM", "ALLOW", "LISTS", "EXPIRE", "MASK", "ENTRIES", "READ"];

/// What stands where there is no limit, or nothing.
const NONE: &str = "-";

/// How the client of a local server without login gets in, and where from, whatever its section says.
const LOCAL_SERVER: &str = "local server";
const THIS_HOST: &str = "this host";

/// The most networks of a client that are named; of the others there is the number.
const NETWORKS_MAX: usize = 4;

/// The lines of the table.
pub(super) fn lines(config: &Config) -> Vec<String> {
    let rows: Vec<Row> = all(config).into_iter().map(|client| row(client, config)).collect();
    table(&HEAD, &rows)
}

fn row(client: &Client, config: &Config) -> Row {
    let rights = &client.rights;
    let logins = logins(client, config);
    let limit = |text: Option<String>| vec![text.unwrap_or(NONE.to_owned())];
    let allow: Vec<String> = rights.allow.iter().map(Grant::to_string).collect();
    vec![
        vec![client.name.escape_debug().to_string()],
        logins.iter().map(|login| (*login).to_owned()).collect(),
        if logins == [LOCAL_SERVER] { vec![THIS_HOST.to_owned()] } else { from(client) },
        if allow.is_empty() { limit(None) } else { allow },
        vec![rights.lists.to_string()],
        limit(rights.expire_max.map(|longest| longest.to_string())),
        limit(rights.mask_min.map(|shortest| shortest.to_string())),
        limit(rights.entries_max.map(|most| most.to_string())),
        vec![rights.read.word().to_owned()],
    ]
}

/// How a client gets in, each way a line.
fn logins(client: &Client, config: &Config) -> Vec<&'static str> {
    let is_local = is_without_login(config) && ptr::eq(client, ptr::from_ref(&**config.clients.local()));
    let auth = config.outward.as_ref().map(|outward| &outward.client_auth);
    let by_certificate = auth.is_some_and(|auth| *auth != ClientAuth::Off);
    let ways = [
        ("password", client.secret.is_some()),
        ("certificate", by_certificate && client.name_fits_certificates()),
        (LOCAL_SERVER, is_local),
    ];
    ways.into_iter().filter(|(_, is_open)| *is_open).map(|(way, _)| way).collect()
}

fn from(client: &Client) -> Vec<String> {
    match &client.from {
        From::Listed => vec!["white list".to_owned()],
        From::Any => vec!["any".to_owned()],
        From::Of(networks) => {
            let mut named: Vec<String> = networks.iter().take(NETWORKS_MAX).map(Network::to_string).collect();
            let more = networks.len().saturating_sub(NETWORKS_MAX);
            named.extend((more > 0).then(|| format!("and {more} more")));
            named
        }
    }
}

#[cfg(test)]
mod tests;
