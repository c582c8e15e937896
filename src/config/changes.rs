//! What changes where `rfw.conf` is read again while rfw runs: most options count at once, others from
//! the next start on. What is told of them are their names, since some values are secrets. Pure.

use crate::config::clients::{Client, Clients};
use crate::config::file::{ClientAuth, Config, Local, Outward, Setting};
use crate::rule::SetUse;
use crate::rule::layout::Layout;
use crate::rule::lease::{Interval, SET_LONGEST};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// What a configuration that is read again changes.
#[derive(Debug)]
pub(crate) struct Changes {
    /// The configuration that is in force then: the new one, but with the old value of each option that
    /// needs a restart.
    pub config: Config,
    /// What is changed at once, in the words of the log.
    pub taken: Vec<String>,
    /// The options that need a restart.
    pub waiting: Vec<&'static str>,
}

/// Compares a new configuration with the one in force. `may_read` tells whether rfw may read a file where
/// it is: one that it may not, since the folder was not in use at its start, needs a restart too.
pub(crate) fn changes(old: &Config, new: Config, may_read: &dyn Fn(&Path) -> bool) -> Changes {
    let mut compared = Comparison { may_read, taken: Vec::new(), waiting: Vec::new() };
    // All fields are named: for one that is added it has to be decided when it counts.
    let Config {
        file,
        outward,
        local,
        non_restful,
        clients,
        default_expire,
        whitelist_file,
        iptables,
        ip6tables,
        use_sets,
        ipset,
        maxelem,
        rules_max,
        lists_max,
        layout,
        stay_first,
        state_file,
        connections_max,
        connections_max_source,
    } = new;
    let mut clients = compared.clients(&old.clients, clients);
    if local.is_none() && old.local.is_some() {
        clients.keep_local(&old.clients);
    }
    let use_sets = compared.keeps_setting(&old.use_sets, use_sets);
    let config = Config {
        file,
        clients,
        outward: compared.outward(old.outward.as_ref(), outward),
        local: compared.local(old.local.as_ref(), local),
        connections_max: compared.takes("connections.max", old.connections_max, connections_max),
        connections_max_source: compared.takes(
            "connections.max.source",
            old.connections_max_source,
            connections_max_source,
        ),
        whitelist_file: compared.white_list(&old.whitelist_file, whitelist_file),
        default_expire: compared.expire(use_sets.value, old.default_expire, default_expire),
        non_restful: compared.takes("non.restful", old.non_restful, non_restful),
        use_sets,
        maxelem: compared.keeps("ipset.maxelem", &old.maxelem, maxelem),
        rules_max: compared.takes("rules.max", old.rules_max, rules_max),
        lists_max: compared.takes("lists.max", old.lists_max, lists_max),
        layout: compared.layout(&old.layout, layout),
        stay_first: compared.takes("stay.first", old.stay_first, stay_first),
        state_file: compared.keeps_setting(&old.state_file, state_file),
        iptables: compared.keeps_setting(&old.iptables, iptables),
        ip6tables: compared.ip6tables(&old.ip6tables, ip6tables),
        // It is read and not used.
        ipset,
    };
    Changes { config, taken: compared.taken, waiting: compared.waiting }
}

struct Comparison<'a> {
    may_read: &'a dyn Fn(&Path) -> bool,
    taken: Vec<String>,
    waiting: Vec<&'static str>,
}

impl Comparison<'_> {
    /// A value that counts at once.
    fn takes<T: PartialEq>(&mut self, option: &'static str, old: T, new: T) -> T {
        if old != new {
            self.taken.push(option.to_owned());
        }
        new
    }

    /// A value that needs a restart.
    fn keeps<T: PartialEq + Clone>(&mut self, option: &'static str, old: &T, new: T) -> T {
        if *old == new {
            return new;
        }
        self.waiting.push(option);
        old.clone()
    }

    /// A value that counts at once, with its line.
    fn takes_setting<T: PartialEq>(&mut self, old: &Setting<T>, new: Setting<T>) -> Setting<T> {
        if old.value != new.value {
            self.taken.push(new.option.to_owned());
        }
        new
    }

    /// A value that needs a restart, with its line.
    fn keeps_setting<T: PartialEq + Clone>(&mut self, old: &Setting<T>, new: Setting<T>) -> Setting<T> {
        if old.value == new.value {
            return new;
        }
        self.waiting.push(new.option);
        old.clone()
    }

    fn white_list(&mut self, old: &Setting<PathBuf>, new: Setting<PathBuf>) -> Setting<PathBuf> {
        if (self.may_read)(&new.value) { self.takes_setting(old, new) } else { self.keeps_setting(old, new) }
    }

    /// The time of an address whose request has none; where sets stay until the restart, one that they can't
    /// hold has to wait for it too.
    fn expire(&mut self, sets: SetUse, old: Interval, new: Interval) -> Interval {
        let option = "default.expire";
        match sets != SetUse::Off && new.seconds() > SET_LONGEST {
            true => self.keeps(option, &old, new),
            false => self.takes(option, old, new),
        }
    }

    /// The HTTPS server: it goes on where it listens, and shows another certificate.
    fn outward(&mut self, old: Option<&Outward>, new: Option<Outward>) -> Option<Outward> {
        let (Some(old), Some(new)) = (old, &new) else {
            return self.keeps("outward.server", &old.cloned(), new);
        };
        let Outward { address, certfile, keyfile, client_auth } = new.clone();
        let ip = self.keeps("outward.server.ip", &old.address.ip(), address.ip());
        let port = self.keeps("outward.server.port", &old.address.port(), address.port());
        // One of another folder has no use without its companion.
        let is_readable = (self.may_read)(&certfile.value) && (self.may_read)(&keyfile.value);
        let [certfile, keyfile] = [(&old.certfile, certfile), (&old.keyfile, keyfile)].map(|(old, new)| {
            if is_readable { self.takes_setting(old, new) } else { self.keeps_setting(old, new) }
        });
        let client_auth = self.client_auth(&old.client_auth, client_auth);
        Some(Outward { address: SocketAddr::new(ip, port), certfile, keyfile, client_auth })
    }

    /// How certificates of clients are verified: as a whole, where its files can be read.
    fn client_auth(&mut self, old: &ClientAuth, new: ClientAuth) -> ClientAuth {
        let options = new.differences(old);
        if new.files().all(|file| (self.may_read)(file)) {
            self.taken.extend(options.into_iter().map(str::to_owned));
            new
        } else {
            self.waiting.extend(options);
            old.clone()
        }
    }

    /// The HTTP server: it goes on where it listens, and clients log in or need not.
    fn local(&mut self, old: Option<&Local>, new: Option<Local>) -> Option<Local> {
        let (Some(old), Some(Local { address, authentication })) = (old, &new) else {
            return self.keeps("local.server", &old.cloned(), new);
        };
        let address = self.keeps("local.server.port", &old.address, *address);
        let option = "local.server.authentication";
        Some(Local { address, authentication: self.takes(option, old.authentication, *authentication) })
    }

    fn layout(&mut self, old: &Layout, new: Layout) -> Layout {
        let Layout { input, forward } = new;
        Layout {
            input: self.keeps("input.table", &old.input, input),
            forward: self.keeps("forward.chain", &old.forward, forward),
        }
    }

    /// The ip6tables command. Where its name derives from `iptables.path`, that is the option to be told.
    fn ip6tables(&mut self, old: &Setting<PathBuf>, new: Setting<PathBuf>) -> Setting<PathBuf> {
        if old.line.is_none() && new.line.is_none() { old.clone() } else { self.keeps_setting(old, new) }
    }

    fn clients(&mut self, old: &Clients, new: Clients) -> Clients {
        self.admin(admin(old), admin(&new));
        for client in sections(&new) {
            match sections(old).find(|other| other.name == client.name) {
                None => self.taken.push(format!("client {} (added)", client.name)),
                Some(before) => self.client(before, client),
            }
        }
        let is_gone = |client: &&Client| !sections(&new).any(|other| other.name == client.name);
        let gone = sections(old).filter(is_gone).map(|client| format!("client {} (removed)", client.name));
        self.taken.extend(gone);
        new
    }

    /// The client of `auth.username`.
    fn admin(&mut self, old: Option<&Client>, new: Option<&Client>) {
        self.takes("auth.username", old.map(|client| &client.name), new.map(|client| &client.name));
        let secret = |client: Option<&Client>| client.and_then(|client| client.secret.clone());
        self.takes("auth.password", secret(old), secret(new));
    }

    /// A client of a section, by what is changed of it.
    fn client(&mut self, old: &Client, new: &Client) {
        let options = new.differences(old);
        if !options.is_empty() {
            self.taken.push(format!("client {} ({})", new.name, options.join(", ")));
        }
    }
}

/// The client of `auth.username`, which has no section.
fn admin(clients: &Clients) -> Option<&Client> {
    clients.iter().find(|client| client.line.is_none())
}

/// The clients that have a section.
fn sections(clients: &Clients) -> impl Iterator<Item = &Client> {
    clients.iter().filter(|client| client.line.is_some())
}

#[cfg(test)]
mod tests;
