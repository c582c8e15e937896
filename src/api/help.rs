//! The help: what a client can ask for.

use crate::api::HostName;
use crate::config::clients::Client;
use crate::config::file::Config;
use crate::http::answer::{Answer, Content};
use crate::rule::rights::{Grant, Rights};
use serde_json::{Value, json};

const GRAMMAR: [&str; 12] = [
    "PUT|DELETE /{drop|accept|reject}/{input|output}/{interface|any}/address[/mask][?parameters]",
    "PUT|DELETE /{drop|accept|reject}/forward/{interface|any}/address[/mask][/{interface|any}[/address[/mask]]][?parameters]",
    "PUT|DELETE /{drop|accept|reject}/{input|output|forward}/{interface|any}[?parameters] with a list of addresses as body",
    "DELETE /{drop|accept|reject}/{input|output|forward}/{interface|any}?list=name without a body: all of that list there",
    "DELETE /list?list={name|-|*} or ?address=address[/mask], or both: all of a list (- is the unnamed one, * is all), exactly that address",
    "GET /list[/chain[/interface]][?list={name|-}][&address=address[/mask]][&target={drop|accept|reject}][&format={json|csv|plain}]",
    "GET /lists[?list={name|-}][&format={json|csv}]",
    "GET /changes[?since={time|next}]",
    "GET /",
    "GET /health",
    "GET /metrics",
    "an interface that does not end in a digit is a prefix: eth is eth+; in forward, 0.0.0.0 or :: on one side is any address",
];

const PARAMETERS: [&str; 13] = [
    "expire=seconds, or a number with s, m, h or d; 0 is permanent; without it default.expire",
    "list=name: the list of the address, 1 to 16 of a-z, 0-9, dot, _ and -, a letter or digit first; without it the unnamed list",
    "reason=words: why, at most 120 bytes without control characters and \"; the next PUT sets or clears it",
    "dry=true: tells what the change would do, and does nothing",
    "replace=true, with a body: afterwards the list has nothing else there",
    "reasons=true, with a body: what follows # on a line is the reason of its address",
    "special=true, with a body: takes what is not globally reachable (RFC 6890), which drop and reject skip",
    "wait=true: accepted, since every request waits until the kernel has it",
    "address=address[/mask], of a list: only what holds this address",
    "target=drop|accept|reject, of a list: only what has this target",
    "format=json|csv|plain, of a list: csv is a table, plain the addresses alone, one a line; without it what the header Accept prefers",
    "since=time in UTC, or the next of an earlier answer: changes from there on, of the last thousand",
    "modify=insert|delete: turns a GET into a change, where non.restful is on",
];

const EXAMPLES: [&str; 10] = [
    "PUT /drop/input/eth0/11.22.33.44?expire=10m",
    "DELETE /drop/input/eth0/11.22.33.44",
    "PUT /accept/output/any/192.168.0.0/24",
    "PUT /reject/input/eth/2001:db8::/48",
    "PUT /accept/forward/ppp/1.2.3.0/24/eth0/5.5.5.5",
    "PUT /drop/input/any/11.22.33.44?list=scans&reason=port%20scan",
    "DELETE /drop/input/any?list=tor",
    "DELETE /list?list=tor",
    "DELETE /list?address=11.22.33.44",
    "GET /list/input/eth0?list=tor",
];

/// The answer to `GET /`: with the rights of who asks.
pub(super) fn help(config: &Config, client: &Client, host: &HostName) -> Answer {
    let outward = config.outward.as_ref().map(|outward| format!("https://{}", outward.address));
    let local = config.local.as_ref().map(|local| format!("http://{}", local.address));
    let servers: Vec<String> = outward.into_iter().chain(local).collect();
    let help = json!({
        "host": host.as_str(),
        "version": env!("CARGO_PKG_VERSION"),
        "listening": servers,
        "default.expire": config.default_expire.to_string(),
        "client": client.name,
        "rights": rights(&client.rights),
        "grammar": GRAMMAR,
        "parameters": PARAMETERS,
        "examples": EXAMPLES,
    });
    Answer::json(200, Content::Text(format!("{help:#}\n")))
}

/// The rights of a client, with the names and values of their options; a limit that it does not have is
/// null.
fn rights(rights: &Rights) -> Value {
    json!({
        "allow": rights.allow.iter().map(Grant::to_string).collect::<Vec<_>>(),
        "lists": rights.lists.to_string(),
        "expire.max": rights.expire_max.map(|longest| longest.to_string()),
        "mask.min": rights.mask_min.map(|shortest| shortest.to_string()),
        "entries.max": rights.entries_max,
        "read": rights.read.word(),
    })
}
