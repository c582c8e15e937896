//! The configuration, the files that it names and the white list, read again while rfw runs (SIGHUP): all
//! of it is in force afterwards, or nothing.

use super::{Server, checked_most_connections, wide};
use crate::config::changes::{Changes, changes};
use crate::config::file::{Config, LocatedError};
use crate::config::trusted_file;
use crate::daemon::clients;
use crate::daemon::load;
use crate::daemon::neighbours::Neighbours;
use crate::firewall::FirewallError;
use crate::http::tls::Identity;
use crate::rule::lease::Moment;
use crate::rule::whitelist::WhiteList;
use std::iter::once;
use std::path::Path;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

/// What was read, and can be put into force.
struct Fresh {
    changes: Changes,
    whitelist: WhiteList,
    /// What the HTTPS server shows from now on; `None` where it is as it was, or there is none.
    identity: Option<Identity>,
}

/// Why what was read is not put into force.
#[derive(Debug, thiserror::Error)]
enum ReloadError {
    /// A file is wrong.
    #[error(transparent)]
    File(#[from] LocatedError),
    /// The firewall can't be changed.
    #[error(transparent)]
    Firewall(#[from] FirewallError),
}

impl Server {
    /// Reads everything again that a start reads, and looks again at what other programs make of rfw. What
    /// is wrong changes nothing: the old configuration stays in force.
    pub(super) fn reload(&mut self) {
        self.notifier.reloading(Instant::now());
        match self.take_fresh() {
            Ok((level, line)) => log::log!(level, "{line}"),
            Err(error) => log::error!("the old configuration stays, since the new one is refused: {error}"),
        }
        Neighbours::new(self.service.config()).warn(|chain| self.service.has_chain(chain));
        let warnings = clients::warnings(self.service.config(), self.service.whitelist());
        warnings.iter().for_each(|warning| log::warn!("{warning}"));
        self.warn_of_uncovered();
        self.turn_out();
        self.notifier.ready(Instant::now());
    }

    /// Gives the line that tells of it; it is a warning where something needs a restart.
    fn take_fresh(&mut self) -> Result<(log::Level, String), ReloadError> {
        let may_read = |file: &Path| self.confinement.covers(file);
        let Fresh { changes, whitelist, identity } = read(self.service.config(), &may_read)?;
        let Changes { config, mut taken, waiting } = changes;
        if *self.service.whitelist() != whitelist {
            taken.push("the white list".to_owned());
        }
        if let Some(identity) = identity.as_ref().filter(|identity| !self.shows(identity)) {
            taken.push(format!("the certificate (until {})", Moment::at_or_after(identity.ends)));
        }
        if identity.as_ref().is_some_and(|identity| !self.verifies_as(identity)) {
            taken.push("what certificates of clients are verified with".to_owned());
        }
        let networks = whitelist.to_string();
        // The one step that may fail.
        let settings = load::settings(&config);
        self.service.replace(config, settings, whitelist)?;
        identity.into_iter().for_each(|identity| self.show(identity));
        self.follow_config();
        let level = if waiting.is_empty() { log::Level::Info } else { log::Level::Warn };
        Ok((level, told(&networks, &taken, &waiting)))
    }

    /// Whether clients see that certificate already.
    fn shows(&self, identity: &Identity) -> bool {
        self.identity.as_ref().is_some_and(|shown| shown.chain == identity.chain)
    }

    /// Whether certificates of clients are verified with the same files already.
    fn verifies_as(&self, identity: &Identity) -> bool {
        self.identity.as_ref().is_none_or(|shown| shown.verifies_as(identity))
    }

    /// Shows a certificate on new connections, without what sessions of old ones could be resumed with.
    fn show(&mut self, identity: Identity) {
        for listener in self.listeners.iter_mut().filter(|listener| listener.tls.is_some()) {
            listener.tls = Some(Arc::clone(&identity.tls));
        }
        if self.shows(&identity) && self.verifies_as(&identity) {
            self.identity = Some(identity);
        } else {
            self.identify(identity);
        }
    }

    /// Does as the configuration says that is in force now, on open connections too.
    fn follow_config(&mut self) {
        let config = self.service.config();
        let (most, most_of_source) = (checked_most_connections(config), wide(config.connections_max_source));
        if let Some(local) = config.local.clone() {
            let listeners = self.listeners.iter_mut().filter(|listener| listener.tls.is_none());
            listeners.for_each(|listener| listener.authentication = local.authentication);
            let clients = self.crowd.clients.iter_mut().filter(|client| client.peer.local);
            clients.for_each(|client| client.peer.authentication = local.authentication);
        }
        self.crowd.bound(most);
        self.crowd.bound_source(most_of_source);
        let now = Instant::now();
        while self.crowd.is_over() && self.let_go(now) {}
    }

    /// Closes the connections of those who would not be admitted any more: by the white list, or with the
    /// certificate that they have shown.
    pub(super) fn turn_out(&mut self) {
        let (now, date) = (Instant::now(), SystemTime::now());
        for index in 0..self.crowd.clients.len() {
            self.with(index, |client, reception| {
                if !reception.still_admits(client.connection.state().is_handshaking(), date) {
                    client.connection.cut(now, reception);
                    client.collecting = None;
                }
            });
        }
    }
}

/// Reads the configuration, and the files that it names; nothing is changed.
fn read(old: &Config, may_read: &dyn Fn(&Path) -> bool) -> Result<Fresh, LocatedError> {
    let new =
        load::config(&old.file).map_err(|error| explained(error, once(old.file.as_path()), may_read))?;
    // One that begins with the next start is to be right by then.
    let begins = new.outward.clone().filter(|outward| old.outward.is_none() && outward.files().all(may_read));
    begins.map(|outward| load::identity(&new.file, &outward)).transpose()?;
    // One that ends with it goes on as it is: its files may be gone.
    let ends = new.outward.is_none();
    let changes = changes(old, new, may_read);
    let config = &changes.config;
    let list = config.whitelist_file.value.as_path();
    let whitelist = load::white_list(config).map_err(|error| explained(error, once(list), may_read))?;
    let shown = config.outward.as_ref().filter(|_| !ends);
    let identity = shown.map(|outward| {
        load::identity(&config.file, outward).map_err(|error| explained(error, outward.files(), may_read))
    });
    let identity = identity.transpose()?;
    Ok(Fresh { changes, whitelist, identity })
}

/// An error of reading these files, one of which may have come to be out of reach where it is: another one has
/// taken its place in a folder that holds too much to be granted, or a link on the way leads elsewhere now.
fn explained<'a>(
    error: LocatedError,
    mut files: impl Iterator<Item = &'a Path>,
    may_read: &dyn Fn(&Path) -> bool,
) -> LocatedError {
    let is_denied = |file: &Path| trusted_file::is_denied(file) && !may_read(file);
    let why = "out of reach, since it is in none of the folders that rfw has kept since its start: \
               a restart is needed";
    match files.find(|file| is_denied(file)) {
        Some(file) => LocatedError { file: file.to_owned(), line: None, why: why.to_owned() },
        None => error,
    }
}

/// The line of the log about a configuration that is in force.
fn told(networks: &str, taken: &[String], waiting: &[&str]) -> String {
    let mut line = format!("the configuration has been read again: {networks}; ");
    line += &match taken {
        [] => "nothing has changed".to_owned(),
        taken => format!("changed: {}", taken.join(", ")),
    };
    if !waiting.is_empty() {
        line += &format!("; a restart is needed for: {}", waiting.join(", "));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_tells_what_has_changed_and_what_has_not_yet() {
        let taken = ["client a (allow, password)".to_owned(), "default.expire".to_owned()];
        let golden: [(&[String], &[&str], &str); 4] = [
            (&[], &[], "nothing has changed"),
            (&taken, &[], "changed: client a (allow, password), default.expire"),
            (&[], &["ipset"], "nothing has changed; a restart is needed for: ipset"),
            (
                &taken[1..],
                &["ipset", "state.file"],
                "changed: default.expire; a restart is needed for: ipset, state.file",
            ),
        ];
        for (taken, waiting, end) in golden {
            let line = told("3 networks", taken, waiting);
            assert_eq!(line, format!("the configuration has been read again: 3 networks; {end}"));
        }
    }
}
