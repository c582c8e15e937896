//! A long run of random requests, beside a model of what lists are: listings, kernel and model agree, and
//! unions are as their lists, in rules, in sets and with `auto`.

use super::kernel::{Client, Held, assert_same, assert_unions, held, kill_and_spawn, listed, look, now};
use crate::dry_run::{dry, foretold};
use crate::host::{Host, Rfw, in_both_variants};
use std::collections::{BTreeMap, BTreeSet};
use std::{slice, thread};

/// The number of steps, and after how many all is compared.
const STEPS: usize = 240;
const COMPARED: usize = 12;

const LISTS: [&str; 4] = ["", "tor", "f2b", "csf"];
pub const SCOPES: [(&str, &str); 3] = [
    ("/drop/input/any", "DROP INPUT * * @ any"),
    ("/reject/output/eth0", "REJECT OUTPUT * eth0 any @"),
    ("/accept/forward/any", "ACCEPT FORWARD * * @ any"),
];

/// Numbers without end that look random and are the same each time (Numerical Recipes).
pub struct Numbers(pub u32);

impl Numbers {
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (self.0 >> 8) as usize % bound
    }

    pub fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }
}

/// Hosts and networks that lie in each other, of both families.
fn address(number: usize) -> String {
    match number % 6 {
        0 => format!("1.0.{}.0/24", number / 6 + 1),
        1 => format!("1.0.{}.0/28", number / 6 + 1),
        2 => format!("2001:4860:{}::/48", number / 6 + 1),
        3 => format!("2001:4860:{}::1", number / 6 + 1),
        _ => format!("1.0.{}.{}", number / 6 + 1, number % 6),
    }
}

/// What lists hold: list, number of the scope, address, and the end
/// in seconds since the epoch.
#[derive(Default)]
pub struct Model(pub BTreeMap<(&'static str, usize, String), Option<u64>>);

impl Model {
    pub fn held(&self) -> Held {
        let row = |((list, scope, address), end): (&(&str, usize, String), &Option<u64>)| {
            (format!("{list} {}", SCOPES[*scope].1.replace('@', address)), *end)
        };
        self.0.iter().map(row).collect()
    }

    /// Takes out what is not wanted, and gives the number.
    fn drop_where(&mut self, unwanted: impl Fn(&str, usize, &str) -> bool) -> usize {
        let before = self.0.len();
        self.0.retain(|(list, scope, address), _| !unwanted(list, *scope, address));
        before - self.0.len()
    }
}

/// One run of random requests to an rfw on a host.
pub struct Run<'a> {
    pub client: Client,
    pub rfw: Rfw<'a>,
    pub numbers: Numbers,
    pub model: Model,
    pub log: Vec<String>,
    /// The lists that are changed.
    pub lists: &'static [&'static str],
    /// Whether others have just changed the kernel, so that answers may count what is there and not what
    /// comes back.
    pub is_disturbed: bool,
    /// Whether steps kill rfw, too.
    pub kills: bool,
    /// Whether of every second change it is asked before what it would do; with the command that tells whether
    /// nothing was done.
    pub foretells: Option<String>,
}

impl Run<'_> {
    pub fn send(&mut self, method: &str, path: &str, body: &str) -> serde_json::Value {
        let path = path.trim_end_matches(['?', '&']);
        self.log.push(format!("{method} {path} {}", body.replace('\n', " ")));
        let foretells = self.foretells.clone().filter(|_| self.log.len().is_multiple_of(2));
        let told = foretells.map(|iptables| self.foretell(&iptables, method, path, body));
        let answer = self.client.ok(method, path, body);
        let is_foretold = told.as_ref().is_none_or(|told| foretold(told, &answer));
        assert!(is_foretold, "{told:?} is not what was done: {answer}: {}", self.history());
        answer
    }

    /// Asks what a change would do; of some it is looked at that nothing is done.
    fn foretell(&mut self, iptables: &str, method: &str, path: &str, body: &str) -> serde_json::Value {
        let (host, is_looked_at) = (self.rfw.host, self.log.len().is_multiple_of(2 * COMPARED));
        let before = is_looked_at.then(|| host.everything(iptables));
        let told = self.client.ok(method, &dry(path), body);
        let after = is_looked_at.then(|| host.everything(iptables));
        assert_eq!(after, before, "{}", self.history());
        told
    }

    /// Sends a request, or has rfw start again or look at the kernel.
    pub fn step(&mut self, host: &Host) {
        let (list, scope) = (self.numbers.of(self.lists), self.numbers.below(SCOPES.len()));
        let path = SCOPES[scope].0;
        let query = if list.is_empty() { String::new() } else { format!("list={list}&") };
        let one = address(self.numbers.below(30));
        match self.numbers.below(20) {
            0..7 => drop(self.put(list, scope, slice::from_ref(&one), &format!("{path}/{one}?{query}"))),
            7..10 => {
                let body = self.body(30, 12);
                self.put(list, scope, &body, &format!("{path}?special=true&{query}"));
            }
            10 => {
                // Many, of which `auto` makes a set.
                let body = self.body(400, 60);
                self.put(list, scope, &body, &format!("{path}?special=true&{query}"));
            }
            11..13 => {
                let (body, many) = (self.body(30, 12), self.numbers.below(3) == 0);
                let body = if many { self.body(200, 60) } else { body };
                let removed =
                    self.model.drop_where(|l, s, a| l == list && s == scope && !body.contains(&a.to_owned()));
                let answer =
                    self.put(list, scope, &body, &format!("{path}?replace=true&special=true&{query}"));
                self.expect(&answer, "removed", removed);
            }
            13..15 => {
                let deleted = self.model.drop_where(|l, s, a| l == list && s == scope && a == one);
                let answer = self.send("DELETE", &format!("{path}/{one}?{query}"), "");
                let result = if deleted > 0 { "deleted" } else { "absent" };
                assert!(self.is_disturbed || answer["result"] == result, "{answer}: {}", self.history());
            }
            15 => {
                let body = self.body(60, 25);
                let deleted =
                    self.model.drop_where(|l, s, a| l == list && s == scope && body.contains(&a.to_owned()));
                let answer = self.send("DELETE", &format!("{path}?{query}"), &(body.join("\n") + "\n"));
                self.expect(&answer, "deleted", deleted);
            }
            16 if !list.is_empty() => {
                let deleted = self.model.drop_where(|l, s, _| l == list && s == scope);
                let answer = self.send("DELETE", &format!("{path}?{query}"), "");
                self.expect(&answer, "deleted", deleted);
            }
            17 => {
                let deleted = self.model.drop_where(|_, _, a| a == one);
                let answer = self.send("DELETE", &format!("/list?address={one}"), "");
                self.expect(&answer, "deleted", deleted);
            }
            18 => {
                // A list that no step changes is to stay.
                let all =
                    self.numbers.below(4) == 0 && self.model.0.keys().all(|(l, _, _)| self.lists.contains(l));
                let deleted = self.model.drop_where(|l, _, _| all || l == list);
                let word = if all {
                    "*"
                } else if list.is_empty() {
                    "-"
                } else {
                    list
                };
                let answer = self.send("DELETE", &format!("/list?list={word}"), "");
                self.expect(&answer, "deleted", deleted);
            }
            _ => self.disturb(host),
        }
    }

    /// Different addresses, at most so many, out of so many.
    fn body(&mut self, among: usize, most: usize) -> Vec<String> {
        let addresses: BTreeSet<String> =
            (0..=self.numbers.below(most)).map(|_| address(self.numbers.below(among))).collect();
        addresses.into_iter().collect()
    }

    fn put(
        &mut self,
        list: &'static str,
        scope: usize,
        addresses: &[String],
        path: &str,
    ) -> serde_json::Value {
        let seconds = self.numbers.of(&[0, 3_000, 5_000, 9_000, 500_000]);
        let is_body = path.contains("special=true");
        let body = if is_body { addresses.join("\n") + "\n" } else { String::new() };
        let answer = self.send("PUT", &format!("{path}expire={seconds}"), &body);
        let end = (seconds > 0).then(|| now() + seconds);
        let mut inserted = 0;
        for address in addresses {
            let old = self.model.0.insert((list, scope, address.clone()), end);
            inserted += usize::from(old.is_none());
        }
        match is_body {
            true => {
                self.expect(&answer, "inserted", inserted);
                self.expect(&answer, "refreshed", addresses.len() - inserted);
            }
            false => {
                let result = answer["result"].as_str().unwrap();
                let is_told = (result == "inserted") == (inserted == 1);
                assert!(self.is_disturbed || is_told, "{answer}: {}", self.history());
            }
        }
        answer
    }

    /// A restart, or a look at everything.
    fn disturb(&mut self, host: &Host) {
        match self.numbers.below(3) {
            1.. if self.kills => {
                self.log.push("kill -9".to_owned());
                kill_and_spawn(&mut self.rfw);
                self.client = Client::new(host);
            }
            _ => look(&self.rfw),
        }
    }

    #[track_caller]
    fn expect(&self, answer: &serde_json::Value, key: &str, number: usize) {
        assert!(
            self.is_disturbed || answer[key] == number,
            "{key} of {answer}, not {number}: {}",
            self.history()
        );
    }

    pub fn history(&self) -> String {
        self.log[self.log.len().saturating_sub(25)..].join("\n")
    }

    /// Compares the kernel and what rfw tells of it with the model.
    pub fn compare(&mut self, host: &Host, iptables: &str) {
        let (model, what) = (self.model.held(), self.history());
        assert_same(&held(host, iptables), &model, &format!("the kernel after {what}"));
        assert_same(&listed(&self.client.ok("GET", "/list", "")), &model, &format!("/list after {what}"));
        assert_unions(host, &what);
        let lists = self.client.ok("GET", "/lists", "");
        let count = |row: &serde_json::Value, key: &str| row[key].as_str().unwrap().parse::<usize>().unwrap();
        let total: usize =
            lists.as_array().unwrap().iter().map(|row| count(row, "v4") + count(row, "v6")).sum();
        assert_eq!(total, model.len(), "/lists after {what}");
    }
}

fn run(iptables: &str, option: &str, seed: u32) {
    let host = Host::new();
    let rfw = host.rfw(iptables).configure(option).start();
    let client = Client::new(&host);
    let (numbers, model) = (Numbers(seed), Model::default());
    let mut run = Run {
        client,
        rfw,
        numbers,
        model,
        log: Vec::new(),
        lists: &LISTS,
        is_disturbed: false,
        kills: true,
        foretells: Some(iptables.to_owned()),
    };
    for step in 0..STEPS {
        run.step(&host);
        if step % COMPARED == COMPARED - 1 {
            run.compare(&host, iptables);
        }
    }
    run.send("DELETE", "/list?list=*", "");
    run.model = Model::default();
    run.compare(&host, iptables);
}

#[test]
fn lists_are_in_the_kernel_as_a_model_has_them() {
    let options = ["ipset = off", "ipset = on", "ipset = auto"];
    in_both_variants(|iptables| {
        thread::scope(|scope| {
            let threads = options.map(|option| (option, scope.spawn(move || run(iptables, option, 7))));
            for (option, thread) in threads {
                assert!(thread.join().is_ok(), "with {option}");
            }
        });
    });
}
