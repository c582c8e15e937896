//! Who may ask, from where, and for what: the client of `[config]`, which has all rights, and those of
//! the sections `[client NAME]`.

use crate::config::file::syntax::{Entry, Section};
use crate::rule::client_name::is_client_name;
use crate::rule::lease::{Interval, IntervalError};
use crate::rule::network::{Network, NetworkError};
use crate::rule::rights::{Grant, Lists, MaskMin, Read, Rights, RightsError};
use ring::digest::{SHA256, digest};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};
use zeroize::Zeroizing;

/// The name of who asks a local server without authentication.
pub(crate) const LOCAL: &str = "local";

/// Maximum length of a user name and of a password, in bytes.
pub(crate) const CREDENTIAL_MAX: usize = 255;

/// A client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Client {
    /// Its name: that of the section, or `auth.username`.
    pub name: String,
    /// Its password, if it has one.
    pub secret: Option<Secret>,
    /// Where it may come from.
    pub from: From,
    /// What it may do.
    pub rights: Rights,
    /// The line of its section, counted from 1; `None` for those without one.
    pub line: Option<usize>,
}

/// The addresses that a client may come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum From {
    /// Those of the white list.
    Listed,
    /// Those of the white list that are in one of these networks.
    Of(Vec<Network>),
    /// Any, listed or not.
    Any,
}

/// The SHA-256 of a password (FIPS 180-4), which is wiped when it is dropped.
#[derive(Clone)]
pub(crate) struct Secret(Zeroizing<[u8; 32]>);

/// How clients may log in.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Login {
    /// Whether there is a local server without authentication.
    pub local: bool,
    /// Whether a certificate can name a client.
    pub certificates: bool,
    /// Whether none gets in without a certificate.
    pub certificates_required: bool,
}

/// All clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Clients {
    all: Vec<Arc<Client>>,
    local: Arc<Client>,
    /// Whether there is a local server without authentication.
    has_local: bool,
}

/// Why a certificate is that of no client.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unnamed {
    /// None of its names is the name of a client.
    #[error("the certificate names no client of rfw.conf")]
    None,
    /// It has the names of several.
    #[error("the certificate names several clients of rfw.conf")]
    Several,
}

impl Client {
    /// A client that may do everything.
    pub(crate) fn with_all_rights(name: String, secret: Option<Secret>) -> Client {
        Client { name, secret, from: From::Listed, rights: Rights::all(), line: None }
    }

    /// Whether a certificate can have its name.
    pub(crate) fn name_fits_certificates(&self) -> bool {
        is_client_name(&self.name)
    }

    /// The options in which it differs from another client, by name. Where its section stands is none.
    pub(super) fn differences(&self, other: &Client) -> Vec<&'static str> {
        // All fields are named: one that is added has to be told too.
        let Client { name: _, secret, from, rights, line: _ } = self;
        let Rights { allow, lists, expire_max, mask_min, entries_max, read } = rights;
        let theirs = &other.rights;
        let options = [
            ("password", *secret != other.secret),
            ("from", *from != other.from),
            ("allow", *allow != theirs.allow),
            ("lists", *lists != theirs.lists),
            ("expire.max", *expire_max != theirs.expire_max),
            ("mask.min", *mask_min != theirs.mask_min),
            ("entries.max", *entries_max != theirs.entries_max),
            ("read", *read != theirs.read),
        ];
        options.into_iter().filter(|(_, differs)| *differs).map(|(option, _)| option).collect()
    }

    /// Whether it may come from an address; `listed` tells whether that is in the white list.
    pub(crate) fn may_come_from(&self, address: IpAddr, listed: bool) -> bool {
        match &self.from {
            From::Any => true,
            From::Listed => listed,
            From::Of(networks) => {
                listed && networks.iter().any(|network| network.covers(&Network::host(address)))
            }
        }
    }
}

impl Clients {
    /// The client of `[config]`, if there is one, and those of the sections.
    ///
    /// # Errors
    /// The line and the first wrong value, the name of the other client, or a client that can't log in.
    pub(super) fn new(
        admin: Option<Client>,
        sections: &[Section],
        login: Login,
    ) -> Result<Clients, (usize, SectionError)> {
        let mut all: Vec<Arc<Client>> = admin.into_iter().map(Arc::new).collect();
        let mut local = Arc::new(Client::with_all_rights(LOCAL.to_owned(), None));
        for section in sections {
            let client = Arc::new(client(section, login)?);
            // Of sections there is but one of a name.
            if all.iter().any(|other| other.name == client.name) {
                return Err(section_error(section, section.line, ClientsError::Admin));
            }
            if client.name == LOCAL {
                local = Arc::clone(&client);
            }
            all.push(client);
        }
        Ok(Clients { all, local, has_local: login.local })
    }

    /// Who asks a local server without authentication.
    pub(crate) fn local(&self) -> &Arc<Client> {
        &self.local
    }

    /// All that can log in, in the order of the file.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Client> {
        self.all.iter().map(AsRef::as_ref)
    }

    /// The client of that name and password. How long it takes depends on the number of clients alone:
    /// neither on which of them it is, nor on how much of a password is right.
    pub(crate) fn by_password(&self, name: &str, password: &str) -> Option<&Arc<Client>> {
        let given = Secret::of(password);
        let mut found = u64::MAX;
        for (index, client) in (0_u64..).zip(&self.all) {
            let (is_set, secret) = match &client.secret {
                Some(secret) => (Choice::from(1), secret),
                None => (Choice::from(0), &given),
            };
            let same = padded(name).ct_eq(&*padded(&client.name)) & secret.0.ct_eq(&*given.0) & is_set;
            found.conditional_assign(&index, same);
        }
        self.all.get(usize::try_from(found).ok()?)
    }

    /// The client that the names of a certificate are about.
    ///
    /// # Errors
    /// There is none, or several.
    pub(crate) fn by_names(&self, names: &[String]) -> Result<&Arc<Client>, Unnamed> {
        let mut named = self.all.iter().filter(|client| names.contains(&client.name));
        match (named.next(), named.next()) {
            (Some(client), None) => Ok(client),
            (None, _) => Err(Unnamed::None),
            (Some(_), Some(_)) => Err(Unnamed::Several),
        }
    }

    /// Whether a client may come from any address, so that the port has to be open for all.
    pub(crate) fn come_from_anywhere(&self) -> bool {
        self.all.iter().any(|client| client.from == From::Any)
    }

    /// Whether a client is still as it was, wherever its section stands.
    pub(crate) fn has(&self, client: &Arc<Client>) -> bool {
        let is_it = |other: &Arc<Client>| {
            Arc::ptr_eq(client, other) || client.name == other.name && client.differences(other).is_empty()
        };
        self.has_local && is_it(&self.local) || self.all.iter().any(is_it)
    }

    /// Keeps who asks a local server without authentication as others have it, where that server goes on
    /// though the configuration has none any more.
    pub(super) fn keep_local(&mut self, others: &Clients) {
        (self.local, self.has_local) = (Arc::clone(&others.local), others.has_local);
    }
}

impl Secret {
    /// That of a password.
    pub(crate) fn of(password: &str) -> Secret {
        let mut secret = Zeroizing::new([0; 32]);
        secret
            .iter_mut()
            .zip(digest(&SHA256, password.as_bytes()).as_ref())
            .for_each(|(to, from)| *to = *from);
        Secret(secret)
    }

    /// That of 64 hexadecimal digits.
    fn parse(text: &str) -> Option<Secret> {
        let mut secret = Zeroizing::new([0; 32]);
        if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        for (at, to) in (0..).step_by(2).zip(secret.iter_mut()) {
            *to = u8::from_str_radix(text.get(at..at + 2)?, 16).ok()?;
        }
        Some(Secret(secret))
    }
}

#[cfg(any(test, fuzzing))]
impl Secret {
    /// Its hexadecimal digits.
    pub(crate) fn digits(&self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Secret) -> bool {
        self.0.ct_eq(&*other.0).into()
    }
}

impl Eq for Secret {}

/// Omits the digits, so that they never reach a log.
impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// A text with its length in front, zero-padded to a fixed size. A text longer than
/// [`CREDENTIAL_MAX`] is truncated, and its length differs from that of any valid name.
fn padded(text: &str) -> Zeroizing<[u8; CREDENTIAL_MAX + 3]> {
    let mut padded = Zeroizing::new([0; CREDENTIAL_MAX + 3]);
    let length = u16::try_from(text.len()).unwrap_or(u16::MAX).to_be_bytes();
    padded.iter_mut().zip(length.iter().chain(text.as_bytes())).for_each(|(to, from)| *to = *from);
    padded
}

/// The client of a section.
fn client(section: &Section, login: Login) -> Result<Client, (usize, SectionError)> {
    let error = |line, why| section_error(section, line, why);
    let mut client = Client {
        name: section.name.clone(),
        secret: None,
        from: From::Listed,
        rights: Rights::none(),
        line: Some(section.line),
    };
    for entry in &section.entries {
        set(&mut client, entry).map_err(|why| error(entry.line, why))?;
    }
    let can_log_in = client.secret.is_some() || login.certificates || client.name == LOCAL && login.local;
    if !can_log_in {
        return Err(error(section.line, ClientsError::NoPassword));
    }
    if client.from == From::Any && !login.certificates_required {
        let from = section.entries.iter().find(|entry| entry.name == "from");
        return Err(error(from.map_or(section.line, |entry| entry.line), ClientsError::FromAny));
    }
    Ok(client)
}

fn section_error(section: &Section, line: usize, why: ClientsError) -> (usize, SectionError) {
    (line, SectionError { client: section.name.clone(), why })
}

/// Sets what an option of a section says.
fn set(client: &mut Client, entry: &Entry) -> Result<(), ClientsError> {
    let text = entry.value.as_deref().map(String::as_str).unwrap_or_default();
    let option = entry.name;
    let wrong = |expected| ClientsError::Value(option, text.to_owned(), expected);
    let right = |error| ClientsError::Right(option, error);
    let rights = &mut client.rights;
    match option {
        "password" | "password.sha256" if client.secret.is_some() => return Err(ClientsError::TwoPasswords),
        "password" if text.is_empty() => return Err(ClientsError::NoValue(option)),
        "password" if text.len() > CREDENTIAL_MAX => return Err(ClientsError::LongPassword),
        "password" => client.secret = Some(Secret::of(text)),
        "password.sha256" => {
            client.secret = Some(Secret::parse(text).ok_or(ClientsError::Digest)?);
        }
        "from" => client.from = from(text)?,
        "allow" => rights.allow.push(Grant::parse(text).map_err(right)?),
        "lists" => rights.lists = Lists::parse(text).map_err(right)?,
        "expire.max" => {
            let longest = Interval::parse(text).map_err(|error| ClientsError::Expire(option, error))?;
            // Without an end is what the option is not for.
            rights.expire_max = Some(longest).filter(|longest| longest.seconds() > 0);
            rights.expire_max.ok_or_else(|| wrong("a time span above 0"))?;
        }
        "mask.min" => rights.mask_min = Some(MaskMin::parse(text).map_err(right)?),
        "entries.max" => {
            let digits = text.bytes().all(|byte| byte.is_ascii_digit());
            let number = text.parse().ok().filter(|number: &u32| digits && *number > 0);
            let number = number.and_then(|number| usize::try_from(number).ok());
            rights.entries_max = Some(number.ok_or_else(|| wrong("a number from 1 to 4294967295"))?);
        }
        "read" => rights.read = Read::parse(text).map_err(right)?,
        // The syntax lets no other through.
        _ => return Err(ClientsError::Unknown(option)),
    }
    Ok(())
}

/// Addresses, networks and ranges between white space, or `any`.
fn from(text: &str) -> Result<From, ClientsError> {
    if text == "any" {
        return Ok(From::Any);
    }
    let mut networks = Vec::new();
    for word in text.split_ascii_whitespace() {
        networks.extend(Network::parse_all(word).map_err(|error| ClientsError::From("from", error))?);
    }
    if networks.is_empty() { Err(ClientsError::NoValue("from")) } else { Ok(From::Of(networks)) }
}

/// An error in the section of a client.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("client {client}: {why}")]
pub(crate) struct SectionError {
    /// The name of the client.
    client: String,
    why: ClientsError,
}

/// Error in a section of a client; what is wrong with a password does not quote it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum ClientsError {
    /// The name is that of `auth.username`.
    #[error("already the client of auth.username")]
    Admin,
    /// It can't log in.
    #[error(
        "can't log in: expected password or password.sha256 in its section, or outward.server.clientcert"
    )]
    NoPassword,
    /// Both options.
    #[error("has two passwords: expected password or password.sha256")]
    TwoPasswords,
    /// More bytes than a password may have.
    #[error("password: longer than {CREDENTIAL_MAX} bytes")]
    LongPassword,
    /// Not that of a digest.
    #[error("password.sha256: expected 64 hexadecimal digits")]
    Digest,
    /// An option that is none of a client.
    #[error("unknown option \"{0}\"")]
    Unknown(&'static str),
    /// An option without a value.
    #[error("{0}: has no value")]
    NoValue(&'static str),
    /// An option, its value, and what is expected.
    #[error("{0}: \"{text}\": expected {2}", text = .1.escape_debug())]
    Value(&'static str, String, &'static str),
    /// An option whose value is no right.
    #[error("{0}: {1}")]
    Right(&'static str, RightsError),
    /// An option whose value is no time span.
    #[error("{0}: {1}")]
    Expire(&'static str, IntervalError),
    /// An option with a word that is no address.
    #[error("{0}: {1}")]
    From(&'static str, NetworkError),
    /// Any address may come, and a password would do.
    #[error("from: any: expected outward.server.clientcert = required beside it")]
    FromAny,
}

#[cfg(test)]
mod tests;
