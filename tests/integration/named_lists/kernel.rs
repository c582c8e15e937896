//! What the kernel has of lists, as its own tools tell it: as rules, and as entries of sets.

use crate::host::{Entry, Host, Reply, Rfw, Talk};
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// How many seconds two readings of the same end may differ.
const TOLERANCE: u64 = 3;

/// The longest timeout of an entry, in seconds.
pub const LONGEST: u64 = 2_147_483;

/// Addresses in lists, such as `tor DROP INPUT * * 1.2.3.4 any`, each with its end in seconds since the epoch;
/// `None` is for ever.
pub type Held = BTreeMap<String, Option<u64>>;

/// A moment as RFC 3339 has it, in seconds since the epoch.
#[track_caller]
fn epoch(moment: &str) -> u64 {
    u64::try_from(OffsetDateTime::parse(moment, &Rfc3339).unwrap().unix_timestamp()).unwrap()
}

/// Now, in seconds since the epoch.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// What rows of a listing hold.
#[track_caller]
pub fn listed(rows: &Value) -> Held {
    let mut held = Held::new();
    for row in rows.as_array().expect("an array") {
        let text = |key: &str| row[key].as_str().unwrap();
        let network = |key: &str| if text(key).ends_with("/0") { "any" } else { text(key) };
        let scope = ["list", "target", "chain", "inp", "out"].map(text).join(" ");
        let key = format!("{scope} {} {}", network("source"), network("destination"));
        assert!(held.insert(key, row["expires"].as_str().map(epoch)).is_none(), "twice: {row}");
    }
    held
}

/// What lists hold in the tables and sets of this host.
#[track_caller]
pub fn held(host: &Host, iptables: &str) -> Held {
    held_or_twice(host, iptables).unwrap()
}

/// The same, or the first that is there twice, as it may be where others have changed something.
pub fn held_or_twice(host: &Host, iptables: &str) -> Result<Held, String> {
    let (mut held, entries, now) = (Held::new(), host.entries(), now());
    for line in host.tables(iptables).concat() {
        let Some((_, rest)) = line.split_once("--comment \"rfw ") else { continue };
        let comment = rest.split("\" -j ").next().unwrap();
        let rule = Words(&line);
        let scope = |list: &str| {
            format!(
                "{list} {} {} {} {}",
                rule.after(" -j ").unwrap(),
                rule.after("-A ").unwrap(),
                rule.after(" -i ").unwrap_or("*"),
                rule.after(" -o ").unwrap_or("*")
            )
        };
        match comment {
            "guard" => {}
            "set" => {
                let (name, direction) = (rule.after("--match-set ").unwrap(), rule.after_set());
                for (list, entry) in of_union(&entries, name) {
                    let element = match direction {
                        "src" => format!("{} any", entry.element),
                        "dst" => format!("any {}", entry.element),
                        _ => entry.element.replace(',', " "),
                    };
                    let key = format!("{} {element}", scope(list));
                    if held.insert(key, end(entry, now)).is_some() {
                        return Err(format!("twice: {entry:?}"));
                    }
                }
            }
            _ => {
                let words = Words(comment);
                let end = words.after("until ").map(epoch);
                let network = |option: &str| rule.after(option).map_or("any", without_mask);
                let list = words.after(" list ").unwrap_or_default();
                let key = format!("{} {} {}", scope(list), network(" -s "), network(" -d "));
                if held.insert(key, end).is_some() {
                    return Err(format!("twice: {line}"));
                }
            }
        }
    }
    Ok(held)
}

/// The end of an entry, which may be later than the kernel counts.
#[track_caller]
fn end(entry: &Entry, now: u64) -> Option<u64> {
    match entry.comment.strip_prefix("until ") {
        Some(rest) => {
            assert!(entry.timeout + 100 > LONGEST, "{entry:?}");
            rest.split(' ').next().map(epoch)
        }
        None => Some(now + entry.timeout).filter(|_| entry.timeout > 0),
    }
}

/// A line of words, some of which name the next.
struct Words<'a>(&'a str);

impl<'a> Words<'a> {
    fn after(&self, word: &str) -> Option<&'a str> {
        self.0.split_once(word).and_then(|(_, rest)| rest.split(' ').next())
    }

    /// The sides of a packet that are looked up in a set.
    fn after_set(&self) -> &'a str {
        self.0.split("--match-set ").nth(1).and_then(|rest| rest.split(' ').nth(1)).unwrap()
    }
}

fn without_mask(network: &str) -> &str {
    network.strip_suffix("/32").or(network.strip_suffix("/128")).unwrap_or(network)
}

/// The entries of the lists of a union, which is the unnamed list while it has none.
fn of_union<'e>(entries: &'e [Entry], union: &str) -> Vec<(&'e str, &'e Entry)> {
    let of_lists: Vec<_> = entries
        .iter()
        .filter_map(|entry| {
            let list = entry.set.strip_prefix(union)?.strip_prefix('/')?;
            Some((if list == "-" { "" } else { list }, entry))
        })
        .collect();
    match of_lists.is_empty() {
        true => entries.iter().filter(|entry| entry.set == union).map(|entry| ("", entry)).collect(),
        false => of_lists,
    }
}

/// Checks that two readings say the same.
#[track_caller]
pub fn assert_same(one: &Held, other: &Held, what: &str) {
    if let Err(difference) = same(one, other) {
        panic!("{what}: {difference}");
    }
}

/// Whether two readings say the same, or what does not.
pub fn same(one: &Held, other: &Held) -> Result<(), String> {
    let not_in = |one: &Held, other: &Held| -> Vec<String> {
        one.keys().filter(|key| !other.contains_key(*key)).cloned().collect()
    };
    let (more, less) = (not_in(one, other), not_in(other, one));
    if !more.is_empty() || !less.is_empty() {
        return Err(format!("too many: {more:?}, missing: {less:?}"));
    }
    for ((key, one), other) in one.iter().zip(other.values()) {
        let close = one.unwrap_or(0).abs_diff(other.unwrap_or(0)) <= TOLERANCE;
        if !close || one.is_some() != other.is_some() {
            return Err(format!("{key}: {one:?}, {other:?}"));
        }
    }
    Ok(())
}

/// What of the unions is not the latest end of their lists, with two seconds of tolerance; nothing if all is.
pub fn unions_not_as_lists(host: &Host) -> Vec<String> {
    unions_not_as_lists_after(host, Duration::ZERO)
}

/// The same after a change that took so long: what it put in with the time that was left when it began ends
/// later by as much. Sets are printed one after the other, so the time that this takes is to be borne with too.
fn unions_not_as_lists_after(host: &Host, change: Duration) -> Vec<String> {
    let start = Instant::now();
    let entries = host.entries();
    let tolerance = 2 + (start.elapsed() + change + Duration::from_millis(500)).as_secs();
    let mut latest: BTreeMap<(String, String), u64> = BTreeMap::new();
    // What ends later than the kernel can count has the longest timeout, and is renewed each day.
    const LATE: u64 = 2_147_000;
    let end = |entry: &Entry| match entry.timeout {
        0 => u64::MAX,
        LATE.. => LATE,
        timeout => timeout,
    };
    for entry in &entries {
        if let Some((union, _)) = entry.set.split_once('/') {
            let known = latest.entry((union.to_owned(), entry.element.clone())).or_default();
            *known = (*known).max(end(entry));
        }
    }
    let (mut wrong, sets) = (Vec::new(), host.sets());
    let has_lists = |entry: &&Entry| sets.iter().any(|set| set.starts_with(&format!("{}/", entry.set)));
    for entry in entries.iter().filter(has_lists) {
        let known = latest.remove(&(entry.set.clone(), entry.element.clone()));
        if known.is_none_or(|known| known.abs_diff(end(entry)) > tolerance) && end(entry) > tolerance {
            wrong.push(format!("{entry:?}, in lists until {known:?}"));
        }
    }
    wrong.extend(
        latest.into_iter().filter(|(_, end)| *end > tolerance).map(|missing| format!("missing: {missing:?}")),
    );
    wrong
}

/// Checks that each union holds what its lists hold.
#[track_caller]
pub fn assert_unions(host: &Host, what: &str) {
    assert_eq!(unions_not_as_lists(host), Vec::<String>::new(), "{what}");
}

/// Checks the same after a change that took so long.
#[track_caller]
pub fn assert_unions_after(host: &Host, change: Duration, what: &str) {
    assert_eq!(unions_not_as_lists_after(host, change), Vec::<String>::new(), "{what}");
}

/// Has rfw look at tables and sets now, and waits until it has.
#[track_caller]
pub fn look(rfw: &Rfw<'_>) {
    rfw.reload();
}

/// Kills rfw and starts it again.
#[track_caller]
pub fn kill_and_spawn(rfw: &mut Rfw<'_>) {
    rfw.signal("KILL");
    assert_eq!(rfw.end(), -1);
    rfw.spawn();
}

/// The text of a request to the server on 127.0.0.1, which needs no credentials.
pub fn request(method: &str, path: &str, body: &str) -> String {
    let length = body.len();
    format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n{body}")
}

/// A connection to that server, for many requests.
pub struct Client(Talk);

impl Client {
    #[track_caller]
    pub fn new(host: &Host) -> Client {
        Client(host.connect(7390))
    }

    #[track_caller]
    pub fn send(&mut self, method: &str, path: &str, body: &str) -> Reply {
        self.0.say(request(method, path, body).as_bytes());
        self.0.reply()
    }

    #[track_caller]
    pub fn ok(&mut self, method: &str, path: &str, body: &str) -> Value {
        let reply = self.send(method, path, body);
        assert_eq!(reply.status, 200, "{method} {path}: {reply:?}");
        reply.json()
    }
}
