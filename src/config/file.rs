//! Parser of `rfw.conf`: text with line numbers becomes a [`Config`] of validated values.
//!
//! The file has one section `[config]`, with one `option = value` or bare flag a line, and a section
//! `[client NAME]` for each client that has rights of its own. The syntax is that of Python's
//! ConfigParser, so that a file of the original rfw is valid. This module does no I/O: it does not
//! open the files that options name.

mod client_auth;
pub(crate) mod effective;
pub(super) mod syntax;

pub(crate) use self::client_auth::ClientAuth;

use crate::config::clients::{CREDENTIAL_MAX, Client, Clients, Login, Secret, SectionError};
use crate::config::file::syntax::{Entry, FLAGS, SWITCHES, Sections, SyntaxError};
use crate::rule::SetUse;
use crate::rule::layout::{ChainName, InputTable, Layout};
use crate::rule::lease::{Interval, IntervalError, SET_LONGEST};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

/// A validated configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Config {
    /// The file that it comes from.
    pub file: PathBuf,
    /// The HTTPS server for remote clients (`outward.server`).
    pub outward: Option<Outward>,
    /// The HTTP server for clients on this host (`local.server`).
    pub local: Option<Local>,
    /// Whether a GET may change rules (`non.restful`).
    pub non_restful: bool,
    /// Who may ask, and for what.
    pub clients: Clients,
    /// Lifetime of a rule whose request has no `expire`.
    pub default_expire: Interval,
    /// The white list file.
    pub whitelist_file: Setting<PathBuf>,
    /// The iptables command; the names of iptables-save and iptables-restore derive from it.
    pub iptables: Setting<PathBuf>,
    /// The ip6tables command; by default its name derives from that of iptables.
    pub ip6tables: Setting<PathBuf>,
    /// Where addresses are kept in sets (`ipset`).
    pub use_sets: Setting<SetUse>,
    /// The ipset command.
    pub ipset: Setting<PathBuf>,
    /// Maximum number of entries of a set.
    pub maxelem: u32,
    /// Maximum number of rules per address family, entries of sets excluded.
    pub rules_max: u32,
    /// Maximum number of named lists.
    pub lists_max: u32,
    /// Where rules stand (`input.table`, `forward.chain`).
    pub layout: Layout,
    /// Whether rfw's rules are kept before those of others that could accept (`stay.first`).
    pub stay_first: bool,
    /// The file that holds across a reboot what is blocked (`state.file`); `None` is off.
    pub state_file: Setting<Option<PathBuf>>,
    /// Maximum number of connections.
    pub connections_max: u32,
    /// Maximum number of connections from one address.
    pub connections_max_source: u32,
}

/// The HTTPS server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Outward {
    /// Where it listens.
    pub address: SocketAddr,
    /// The certificate and its chain, in PEM (RFC 7468).
    pub certfile: Setting<PathBuf>,
    /// The private key, in PEM (RFC 7468).
    pub keyfile: Setting<PathBuf>,
    /// Whether clients show certificates.
    pub client_auth: ClientAuth,
}

impl Outward {
    /// All files that are read for it.
    pub(crate) fn files(&self) -> impl Iterator<Item = &Path> {
        let identity = [self.certfile.value.as_path(), &self.keyfile.value];
        identity.into_iter().chain(self.client_auth.files())
    }
}

/// The HTTP server on 127.0.0.1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Local {
    /// Where it listens.
    pub address: SocketAddr,
    /// Whether it requires authentication.
    pub authentication: bool,
}

/// A value and its line, for errors that are found after parsing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Setting<T> {
    /// The option name.
    pub option: &'static str,
    /// The line, counted from 1; `None` if the value is the default.
    pub line: Option<usize>,
    /// The value.
    pub value: T,
}

impl<T> Setting<T> {
    /// An error about this setting in the file `file`.
    pub(crate) fn error(&self, file: &Path, why: impl fmt::Display) -> LocatedError {
        let why = format!("{}: {why}", self.option);
        LocatedError { file: file.to_owned(), line: self.line, why }
    }
}

impl Config {
    /// Parses and validates a configuration; `file` is its name in errors.
    ///
    /// # Errors
    /// The first invalid line, or a missing option.
    pub(crate) fn parse(file: &Path, text: &str) -> Result<Config, LocatedError> {
        let config = syntax::read(text)
            .map_err(|(line, error)| (Some(line), error.into()))
            .and_then(|sections| check(file, &sections));
        config.map_err(|(line, error)| LocatedError { file: file.to_owned(), line, why: error.to_string() })
    }

    /// Whether the HTTPS server is for any address: a client may come from anywhere, and none gets in without
    /// a certificate.
    pub(crate) fn admits_all(&self) -> bool {
        let auth = self.outward.as_ref().map(|outward| &outward.client_auth);
        matches!(auth, Some(ClientAuth::On { required: true, .. })) && self.clients.come_from_anywhere()
    }
}

pub(super) type Located<T> = Result<T, (Option<usize>, ConfigError)>;

/// The second stage: values and the constraints between them.
fn check(file: &Path, sections: &Sections) -> Located<Config> {
    let options = Options(&sections.config);
    options.check_forms()?;
    let (outward, local) = (options.outward()?, options.local()?);
    let authenticates = outward.is_some() || local.as_ref().is_some_and(|local| local.authentication);
    let needs_credentials = authenticates && (sections.clients.is_empty() || options.has_credentials());
    let admin = if needs_credentials { Some(options.admin()?) } else { None };
    options.check_servers(outward.as_ref(), local.as_ref())?;
    let login = login(outward.as_ref(), local.as_ref());
    let iptables = options.path("iptables.path", "iptables")?;
    Ok(Config {
        file: file.to_owned(),
        outward,
        local,
        non_restful: options.flag("non.restful"),
        clients: Clients::new(admin, &sections.clients, login)
            .map_err(|(line, error)| (Some(line), error.into()))?,
        default_expire: options.expire()?,
        whitelist_file: options.path("whitelist.file", "/etc/rfw/white.list")?,
        ip6tables: options.ip6tables(&iptables)?,
        iptables,
        use_sets: options.sets()?,
        ipset: options.path("ipset.path", "ipset")?,
        maxelem: options.number("ipset.maxelem", 1 << 20)?,
        rules_max: options.number("rules.max", 5_000)?,
        lists_max: options.number("lists.max", 64)?,
        layout: options.layout()?,
        stay_first: options.stay_first()?,
        state_file: options.state_file()?,
        connections_max: options.number("connections.max", 256)?,
        connections_max_source: options.number("connections.max.source", 32)?,
    })
}

/// How clients may log in to these servers.
fn login(outward: Option<&Outward>, local: Option<&Local>) -> Login {
    let client_auth = outward.map(|outward| &outward.client_auth);
    Login {
        local: local.is_some_and(|local| !local.authentication),
        certificates: client_auth.is_some_and(|auth| *auth != ClientAuth::Off),
        certificates_required: matches!(client_auth, Some(ClientAuth::On { required: true, .. })),
    }
}

struct Options<'a>(&'a [Entry]);

impl<'a> Options<'a> {
    /// Checks that flags have no value and other options have one, but for those that need none.
    fn check_forms(&self) -> Located<()> {
        for entry in self.0 {
            match (FLAGS.contains(&entry.name), &entry.value) {
                (true, Some(_)) => return Err((Some(entry.line), ConfigError::NotAFlag(entry.name))),
                (false, None) if SWITCHES.contains(&entry.name) => {}
                (false, None) => return Err((Some(entry.line), ConfigError::NoValue(entry.name))),
                _ => {}
            }
        }
        Ok(())
    }

    /// The HTTPS server, if it is on; its options have to be right in any case.
    fn outward(&self) -> Located<Option<Outward>> {
        let outward = Outward {
            address: SocketAddr::new(self.ip()?, self.port("outward.server.port", 7393)?),
            certfile: self.path("outward.server.certfile", "/etc/rfw/ssl/server.crt")?,
            keyfile: self.path("outward.server.keyfile", "/etc/rfw/ssl/server.key")?,
            client_auth: self.client_auth()?,
        };
        Ok(Some(outward).filter(|_| self.flag("outward.server")))
    }

    /// The HTTP server, likewise.
    fn local(&self) -> Located<Option<Local>> {
        let local = Local {
            address: SocketAddr::new(Ipv4Addr::LOCALHOST.into(), self.port("local.server.port", 7390)?),
            authentication: self.flag("local.server.authentication"),
        };
        Ok(Some(local).filter(|_| self.flag("local.server")))
    }

    /// Checks that there is a server, and that two do not listen on one port.
    fn check_servers(&self, outward: Option<&Outward>, local: Option<&Local>) -> Located<()> {
        let (outward, local) = match (outward, local) {
            (None, None) => return Err((None, ConfigError::NoServer)),
            (Some(outward), Some(local)) => (outward.address, local.address),
            _ => return Ok(()),
        };
        let same_address = outward.ip().is_unspecified() || outward.ip() == local.ip();
        if same_address && outward.port() == local.port() {
            let line = self.value("local.server.port").or(self.value("outward.server.port"));
            return Err((line.map(|(line, _)| line), ConfigError::SamePort));
        }
        Ok(())
    }

    fn entry(&self, name: &str) -> Option<&'a Entry> {
        self.0.iter().find(|entry| entry.name == name)
    }

    fn flag(&self, name: &str) -> bool {
        self.entry(name).is_some()
    }

    /// The line and value of an option that is set.
    fn value(&self, name: &'static str) -> Option<(usize, &'a str)> {
        self.entry(name).and_then(|entry| Some((entry.line, entry.value.as_deref()?.as_str())))
    }

    /// The value of an option, parsed by `parse`, or its default.
    fn parse<T>(
        &self,
        name: &'static str,
        default: T,
        parse: impl Fn(&str) -> Result<T, ConfigError>,
    ) -> Located<Setting<T>> {
        let Some((line, text)) = self.value(name) else {
            return Ok(Setting { option: name, line: None, value: default });
        };
        let value = parse(text).map_err(|error| (Some(line), error))?;
        Ok(Setting { option: name, line: Some(line), value })
    }

    fn path(&self, name: &'static str, default: &str) -> Located<Setting<PathBuf>> {
        self.parse(name, PathBuf::from(default), |text| match text {
            "" => Err(ConfigError::NoValue(name)),
            _ => Ok(PathBuf::from(text)),
        })
    }

    fn port(&self, name: &'static str, default: u16) -> Located<u16> {
        let port = self.parse(name, default, |text| {
            let port = text.parse().ok().filter(|port| *port > 0 && !text.starts_with('+'));
            port.ok_or_else(|| ConfigError::Value(name, text.to_owned(), "a port from 1 to 65535"))
        });
        Ok(port?.value)
    }

    fn ip(&self) -> Located<IpAddr> {
        let name = "outward.server.ip";
        let ip = self.parse(name, Ipv4Addr::UNSPECIFIED.into(), |text| {
            let ip: Option<IpAddr> = text.parse().ok();
            ip.map(|ip| ip.to_canonical())
                .ok_or_else(|| ConfigError::Value(name, text.to_owned(), "an IPv4 or IPv6 address"))
        });
        Ok(ip?.value)
    }

    fn expire(&self) -> Located<Interval> {
        let day = Interval::parse("24h").map_err(|error| (None, ConfigError::Expire(error)))?;
        Ok(self
            .parse("default.expire", day, |text| Interval::parse(text).map_err(ConfigError::Expire))?
            .value)
    }

    /// The option `ipset`; its bare name is `on`. Sets require a `default.expire` that they can hold:
    /// at most [`SET_LONGEST`] seconds, or 0.
    fn sets(&self) -> Located<Setting<SetUse>> {
        let name = "ipset";
        let absent = if self.flag(name) { SetUse::On } else { SetUse::Off };
        let value = self.parse(name, absent, |text| match text {
            "auto" => Ok(SetUse::Auto),
            "on" => Ok(SetUse::On),
            "off" => Ok(SetUse::Off),
            _ => Err(ConfigError::Value(name, text.to_owned(), "auto, on or off")),
        })?;
        let expire = self.expire()?;
        if value.value != SetUse::Off && expire.seconds() > SET_LONGEST {
            let line = self.entry("default.expire").map(|entry| entry.line);
            return Err((line, ConfigError::TooLongForSets(expire)));
        }
        Ok(Setting { line: self.entry(name).map(|entry| entry.line), ..value })
    }

    fn number(&self, name: &'static str, default: u32) -> Located<u32> {
        let number = self.parse(name, default, |text| {
            let number = text.parse().ok().filter(|number| *number > 0 && !text.starts_with('+'));
            number.ok_or_else(|| ConfigError::Value(name, text.to_owned(), "a number from 1 to 4294967295"))
        });
        Ok(number?.value)
    }

    fn layout(&self) -> Located<Layout> {
        let name = "input.table";
        let input = self.parse(name, InputTable::default(), |text| match text {
            "filter" => Ok(InputTable::Filter),
            "raw" => Ok(InputTable::Raw),
            _ => Err(ConfigError::Value(name, text.to_owned(), "filter or raw")),
        })?;
        let name = "forward.chain";
        let forward = self.parse(name, ChainName::forward(), |text| {
            let wanted = "FORWARD, or a chain that FORWARD jumps to, as DOCKER-USER";
            text.parse().map_err(|_| ConfigError::Value(name, text.to_owned(), wanted))
        })?;
        Ok(Layout { input: input.value, forward: forward.value })
    }

    fn stay_first(&self) -> Located<bool> {
        let name = "stay.first";
        let stays = self.parse(name, true, |text| match text {
            "on" => Ok(true),
            "off" => Ok(false),
            _ => Err(ConfigError::Value(name, text.to_owned(), "on or off")),
        });
        Ok(stays?.value)
    }

    /// The option `state.file`; an empty value is off.
    fn state_file(&self) -> Located<Setting<Option<PathBuf>>> {
        let name = "state.file";
        self.parse(name, Some(PathBuf::from("/var/lib/rfw/state")), |text| match text {
            "" => Ok(None),
            text if text.starts_with('/') => Ok(Some(PathBuf::from(text))),
            _ => Err(ConfigError::Value(name, text.to_owned(), "an absolute path, or nothing for off")),
        })
    }

    fn has_credentials(&self) -> bool {
        self.flag("auth.username") || self.flag("auth.password")
    }

    /// The client of `auth.username`, who has all rights.
    fn admin(&self) -> Located<Client> {
        let name = self.credential("auth.username")?.to_owned();
        Ok(Client::with_all_rights(name, Some(Secret::of(self.credential("auth.password")?))))
    }

    fn credential(&self, name: &'static str) -> Located<&'a str> {
        match self.value(name) {
            None | Some((_, "")) => {
                Err((self.entry(name).map(|entry| entry.line), ConfigError::Credential(name)))
            }
            Some((line, text)) if text.len() > CREDENTIAL_MAX => {
                Err((Some(line), ConfigError::TooLong(name)))
            }
            Some((line, text)) if name == "auth.username" && text.contains(':') => {
                Err((Some(line), ConfigError::Value(name, text.to_owned(), "a name without a colon")))
            }
            Some((_, text)) => Ok(text),
        }
    }

    /// The option `ip6tables.path`, or the name derived from iptables in the same directory:
    /// `ip6tables-legacy` for `iptables-legacy`.
    fn ip6tables(&self, iptables: &Setting<PathBuf>) -> Located<Setting<PathBuf>> {
        if self.flag("ip6tables.path") {
            return self.path("ip6tables.path", "");
        }
        let name = iptables.value.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        match name.split_once("iptables") {
            Some((before, after)) => {
                let value = iptables.value.with_file_name(format!("{before}ip6tables{after}"));
                Ok(Setting { option: "ip6tables.path", line: None, value })
            }
            None => Err((iptables.line, ConfigError::NoCompanion(name.to_owned()))),
        }
    }
}

/// Error in a configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum ConfigError {
    #[error(transparent)]
    Syntax(#[from] SyntaxError),
    #[error(transparent)]
    Client(#[from] SectionError),
    #[error("{0}: takes no value: expected the bare name for on, or a # before it for off")]
    NotAFlag(&'static str),
    #[error("{0}: has no value: expected {0} = value")]
    NoValue(&'static str),
    #[error("{0}: \"{text}\": expected {2}", text = .1.escape_debug())]
    Value(&'static str, String, &'static str),
    #[error("default.expire: {0}")]
    Expire(IntervalError),
    #[error("{0}: not set: expected a value, since clients have to log in")]
    Credential(&'static str),
    #[error("{0}: longer than {CREDENTIAL_MAX} bytes")]
    TooLong(&'static str),
    #[error(
        "iptables.path: \"{}\" has no \"iptables\" in its name: expected ip6tables.path to be set too",
        .0.escape_debug()
    )]
    NoCompanion(String),
    #[error(
        "default.expire: {} seconds are more than a set can hold: expected at most {SET_LONGEST}, or 0",
        .0.seconds()
    )]
    TooLongForSets(Interval),
    #[error("{0}: not set: expected the file with the CA, since {1} is not off")]
    NoAuthority(&'static str, &'static str),
    #[error("neither outward.server nor local.server is on")]
    NoServer,
    #[error("local.server.port: taken by outward.server.port: expected another port")]
    SamePort,
}

/// An error with its file and line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}:{}{why}", .file.display(), .line.map(|line| format!("{line}: ")).unwrap_or(" ".to_owned()))]
pub(crate) struct LocatedError {
    /// The file.
    pub file: PathBuf,
    /// The line, counted from 1; `None` if the error is about no single line.
    pub line: Option<usize>,
    /// The message.
    pub why: String,
}

#[cfg(test)]
mod tests;
