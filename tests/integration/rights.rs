//! Clients with rights of their own: what one lacks is refused, whatever it asks for, and what it may not
//! see it is not shown.

mod changes;
mod entries;
mod hidden;
mod login;
mod matrix;

use crate::host::{Host, Reply, Rfw, Talk};
use base64::prelude::{BASE64_STANDARD, Engine};

/// A request of a client to the local server, which asks for credentials here.
#[derive(Clone, Copy)]
struct Ask<'a> {
    client: &'a str,
    method: &'a str,
    path: &'a str,
    body: &'a str,
}

impl<'a> Ask<'a> {
    fn new(client: &'a str, line: &'a str, body: &'a str) -> Ask<'a> {
        let (method, path) = line.split_once(' ').expect("a method and a path");
        Ask { client, method, path, body }
    }

    fn text(&self) -> String {
        let Ask { method, path, body, .. } = self;
        let login = BASE64_STANDARD.encode(format!("{0}:{1}", self.client, password(self.client)));
        format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Basic {login}\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        )
    }
}

/// The password of a client.
fn password(client: &str) -> String {
    if client == "me" { "secret".to_owned() } else { format!("secret of {client}") }
}

/// A section of rfw.conf.
fn section(client: &str, options: &str) -> String {
    format!("[client {client}]\npassword = {}\n{options}\n", password(client))
}

/// rfw with one option and these sections, whose local server asks for credentials.
fn start<'a>(host: &'a Host, iptables: &str, option: &str, sections: &str) -> Rfw<'a> {
    host.rfw(iptables).configure(&format!("local.server.authentication\n{option}\n{sections}")).start()
}

/// Sends requests that may be refused. After one with a body another connection begins, since a body that
/// is refused by its head is not read.
#[track_caller]
fn ask_all(host: &Host, asks: &[Ask<'_>]) -> Vec<Reply> {
    let are_in_one = |one: &Ask<'_>, _: &Ask<'_>| one.body.is_empty();
    asks.chunk_by(are_in_one).flat_map(|group| ask_in_one(host, group)).collect()
}

/// Sends requests in one connection, one behind the other.
#[track_caller]
fn ask_in_one(host: &Host, asks: &[Ask<'_>]) -> Vec<Reply> {
    let mut talk = host.connect(7390);
    talk.say(asks.iter().map(Ask::text).collect::<String>().as_bytes());
    asks.iter().map(|ask| reply_to(&mut talk, ask)).collect()
}

fn reply_to(talk: &mut Talk, ask: &Ask<'_>) -> Reply {
    if ask.method == "HEAD" { talk.reply_to_head() } else { talk.reply() }
}

/// Sends a request in a connection of its own.
#[track_caller]
fn ask(host: &Host, client: &str, line: &str, body: &str) -> Reply {
    ask_all(host, &[Ask::new(client, line, body)]).remove(0)
}

/// Sends a request that has to succeed.
#[track_caller]
fn ok(host: &Host, client: &str, line: &str, body: &str) -> serde_json::Value {
    let reply = ask(host, client, line, body);
    assert_eq!(reply.status, 200, "{client}: {line}: {reply:?}");
    reply.json()
}

/// Sends a request that has to be refused for a right, and gives the error.
#[track_caller]
fn refused(host: &Host, client: &str, line: &str, body: &str, right: &str) -> String {
    let reply = ask(host, client, line, body);
    assert_eq!(reply.status, 403, "{client}: {line}: {reply:?}");
    let error = reply.json()["error"].as_str().expect("an error").to_owned();
    assert!(error.contains(&format!("({right})")), "{client}: {line}: {error}");
    error
}
