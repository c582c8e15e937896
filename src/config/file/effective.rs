//! A configuration as a file `rfw.conf` that says the same, with each option that is in force and no
//! secret: where a password belongs stands none, so that rfw refuses the file until one is put in.

use super::syntax::{CA, CERT, CRL};
use super::{ClientAuth, Config, Local, Outward};
use crate::config::clients::{Client, From};
use crate::rule::SetUse;
use crate::rule::layout::InputTable;
use crate::rule::network::Network;
use std::path::Path;

/// The value of a password: none, with a comment behind it.
const NOT_SHOWN: &str = "; not shown";

/// The text of such a file. An option that is off, or whose value rfw derives from others, stands behind a
/// `#`; those of a server that is off are not there, nor is `ipset.path`, which means nothing.
pub(crate) fn text(config: &Config) -> String {
    let mut lines = Lines(vec!["[config]".to_owned()]);
    lines.admin(config.clients.iter().find(|client| client.line.is_none()));
    lines.outward(config.outward.as_ref());
    lines.local(config.local.as_ref());
    lines.options(config);
    let sections = config.clients.iter().filter(|client| client.line.is_some());
    sections.for_each(|client| lines.section(client));
    lines.0.join("\n") + "\n"
}

/// The lines of a file.
struct Lines(Vec<String>);

impl Lines {
    fn flag(&mut self, name: &str, is_on: bool) {
        self.0.push(if is_on { name.to_owned() } else { format!("#{name}") });
    }

    fn value(&mut self, name: &str, value: &str) {
        // Behind a blank a semicolon would begin a comment.
        let blank = if value.is_empty() || value.starts_with(';') { "" } else { " " };
        self.0.push(format!("{name} ={blank}{}", printable(value)));
    }

    fn path(&mut self, name: &str, path: &Path) {
        self.value(name, &path.display().to_string());
    }

    fn secret(&mut self, name: &str) {
        self.0.push(format!("{name} = {NOT_SHOWN}"));
    }

    fn admin(&mut self, admin: Option<&Client>) {
        let Some(admin) = admin else { return };
        self.value("auth.username", &admin.name);
        self.secret("auth.password");
    }

    fn outward(&mut self, outward: Option<&Outward>) {
        self.flag("outward.server", outward.is_some());
        let Some(outward) = outward else { return };
        self.value("outward.server.port", &outward.address.port().to_string());
        self.value("outward.server.ip", &outward.address.ip().to_string());
        self.path("outward.server.certfile", &outward.certfile.value);
        self.path("outward.server.keyfile", &outward.keyfile.value);
        self.client_auth(&outward.client_auth);
    }

    fn client_auth(&mut self, client_auth: &ClientAuth) {
        match client_auth {
            ClientAuth::Off => self.value(CERT, "off"),
            ClientAuth::On { required, ca, crl } => {
                self.value(CERT, if *required { "required" } else { "optional" });
                self.path(CA, &ca.value);
                crl.iter().for_each(|crl| self.path(CRL, &crl.value));
            }
        }
    }

    fn local(&mut self, local: Option<&Local>) {
        self.flag("local.server", local.is_some());
        let Some(local) = local else { return };
        self.value("local.server.port", &local.address.port().to_string());
        self.flag("local.server.authentication", local.authentication);
    }

    fn options(&mut self, config: &Config) {
        self.value("connections.max", &config.connections_max.to_string());
        self.value("connections.max.source", &config.connections_max_source.to_string());
        self.path("whitelist.file", &config.whitelist_file.value);
        self.value("default.expire", &config.default_expire.to_string());
        self.flag("non.restful", config.non_restful);
        self.value("ipset", word_of_sets(config.use_sets.value));
        self.value("ipset.maxelem", &config.maxelem.to_string());
        self.value("rules.max", &config.rules_max.to_string());
        self.value("lists.max", &config.lists_max.to_string());
        self.value("input.table", word_of_table(config.layout.input));
        self.value("forward.chain", config.layout.forward.as_str());
        self.value("stay.first", if config.stay_first { "on" } else { "off" });
        let state = config.state_file.value.as_ref();
        self.value("state.file", &state.map(|path| path.display().to_string()).unwrap_or_default());
        self.path("iptables.path", &config.iptables.value);
        // Where it is set, a host without IPv6 is refused.
        let derived = if config.ip6tables.line.is_none() { "#" } else { "" };
        self.path(&format!("{derived}ip6tables.path"), &config.ip6tables.value);
    }

    fn section(&mut self, client: &Client) {
        let rights = &client.rights;
        self.0.push(format!("\n[client {}]", client.name));
        if client.secret.is_some() {
            self.secret("password");
        }
        match &client.from {
            From::Listed => {}
            From::Any => self.value("from", "any"),
            From::Of(networks) => {
                self.value("from", &networks.iter().map(Network::to_string).collect::<Vec<_>>().join(" "));
            }
        }
        rights.allow.iter().for_each(|grant| self.value("allow", &grant.to_string()));
        self.value("lists", &rights.lists.to_string());
        rights.expire_max.iter().for_each(|longest| self.value("expire.max", &longest.to_string()));
        rights.mask_min.iter().for_each(|shortest| self.value("mask.min", &shortest.to_string()));
        rights.entries_max.iter().for_each(|most| self.value("entries.max", &most.to_string()));
        self.value("read", rights.read.word());
    }
}

/// The value of `ipset`.
pub(crate) fn word_of_sets(sets: SetUse) -> &'static str {
    match sets {
        SetUse::Off => "off",
        SetUse::On => "on",
        SetUse::Auto => "auto",
    }
}

fn word_of_table(table: InputTable) -> &'static str {
    match table {
        InputTable::Filter => "filter",
        InputTable::Raw => "raw",
    }
}

/// A value without characters that do something to a terminal.
fn printable(text: &str) -> String {
    let plain = |c: char| c.is_ascii() && !c.is_ascii_control();
    text.chars().map(|c| if plain(c) { c.to_string() } else { c.escape_debug().to_string() }).collect()
}

#[cfg(test)]
mod tests;
