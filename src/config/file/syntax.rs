//! The first stage of reading `rfw.conf`: its sections, the names of options, and repetitions. Values
//! are not looked at.

use crate::rule::client_name::is_client_name;
use zeroize::Zeroizing;

/// Options without a value.
pub(super) const FLAGS: [&str; 4] =
    ["outward.server", "local.server", "local.server.authentication", "non.restful"];
/// Options that take a value, or are on without one.
pub(super) const SWITCHES: [&str; 1] = ["ipset"];
/// Options with a value.
pub(super) const VALUES: [&str; 24] = [
    "outward.server.port",
    "outward.server.ip",
    "outward.server.certfile",
    "outward.server.keyfile",
    CERT,
    CA,
    CRL,
    "local.server.port",
    "connections.max",
    "connections.max.source",
    "auth.username",
    "auth.password",
    "default.expire",
    "whitelist.file",
    "iptables.path",
    "ip6tables.path",
    "ipset.path",
    "ipset.maxelem",
    "rules.max",
    "lists.max",
    "input.table",
    "forward.chain",
    "stay.first",
    "state.file",
];

/// Whether clients show certificates, and the files that these are verified with.
pub(super) const CERT: &str = "outward.server.clientcert";
pub(super) const CA: &str = "outward.server.clientca";
pub(super) const CRL: &str = "outward.server.clientcrl";

/// Options of a section `[client NAME]`, each with a value.
const CLIENT_VALUES: [&str; 9] = [
    "password",
    "password.sha256",
    "from",
    "allow",
    "lists",
    "expire.max",
    "mask.min",
    "entries.max",
    "read",
];

/// The option that may stand several times in a section of a client.
const REPEATABLE: &str = "allow";

/// An option of the file, its value not validated; it may be the password.
pub(in crate::config) struct Entry {
    /// The line, counted from 1.
    pub line: usize,
    /// The name of the option.
    pub name: &'static str,
    /// What stands behind it, if there is something.
    pub value: Option<Zeroizing<String>>,
}

/// A section `[client NAME]`.
pub(in crate::config) struct Section {
    /// The line of its header, counted from 1.
    pub line: usize,
    /// The name of the client.
    pub name: String,
    /// Its options.
    pub entries: Vec<Entry>,
}

/// What stands in the file.
#[derive(Default)]
pub(in crate::config) struct Sections {
    /// The options of `[config]`.
    pub config: Vec<Entry>,
    /// The clients, in the order of the file.
    pub clients: Vec<Section>,
}

/// A line of the file, counted from 1, and what is wrong with it.
type Located<T> = Result<T, (usize, SyntaxError)>;

/// Where options of the file belong.
enum Place {
    Nowhere,
    Config,
    Client,
}

/// Reads the sections.
///
/// # Errors
/// The first line that is none.
pub(super) fn read(text: &str) -> Located<Sections> {
    let mut sections = Sections::default();
    let (mut place, mut has_config) = (Place::Nowhere, false);
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with(['#', ';']) {
            continue;
        }
        if line.starts_with('[') {
            place = begin(line, number, &mut sections, &mut has_config)?;
            continue;
        }
        let entry = match place {
            Place::Nowhere => Err(SyntaxError::Section(line.to_owned())),
            Place::Config => option(line, number, &sections.config),
            Place::Client => client_option(line, number, sections.clients.last()),
        };
        let entry = entry.map_err(|error| (number, error))?;
        match (&place, sections.clients.last_mut()) {
            (Place::Client, Some(section)) => section.entries.push(entry),
            _ => sections.config.push(entry),
        }
    }
    Ok(sections)
}

/// Begins a section.
fn begin(line: &str, number: usize, sections: &mut Sections, has_config: &mut bool) -> Located<Place> {
    let error = |error| (number, error);
    if line == "[config]" && !std::mem::replace(has_config, true) {
        return Ok(Place::Config);
    }
    let inner = line.strip_prefix("[client").and_then(|rest| rest.strip_suffix(']'));
    let name = inner.filter(|name| name.starts_with([' ', '\t'])).map(str::trim);
    let name = name.ok_or_else(|| error(SyntaxError::Section(line.to_owned())))?;
    if !is_client_name(name) {
        return Err(error(SyntaxError::ClientName(name.to_owned())));
    }
    if let Some(first) = sections.clients.iter().find(|section| section.name == name) {
        return Err(error(SyntaxError::Twice(name.to_owned(), first.line)));
    }
    sections.clients.push(Section { line: number, name: name.to_owned(), entries: Vec::new() });
    Ok(Place::Client)
}

fn option(line: &str, number: usize, entries: &[Entry]) -> Result<Entry, SyntaxError> {
    let (name, value) = split(line, &[" ;", "\t;"]);
    let mut known = FLAGS.iter().chain(&SWITCHES).chain(&VALUES);
    let known = known.find(|known| known.eq_ignore_ascii_case(name));
    let name = known.ok_or_else(|| SyntaxError::Unknown(name.to_owned()))?;
    not_repeated(name, entries)?;
    Ok(Entry { line: number, name, value })
}

/// An option of a client. There `#` behind white space begins a comment too.
fn client_option(line: &str, number: usize, section: Option<&Section>) -> Result<Entry, SyntaxError> {
    let (name, value) = split(line, &[" ;", "\t;", " #", "\t#"]);
    let known = CLIENT_VALUES.iter().find(|known| known.eq_ignore_ascii_case(name));
    let name = known.ok_or_else(|| SyntaxError::Unknown(name.to_owned()))?;
    if *name != REPEATABLE {
        not_repeated(name, section.map(|section| section.entries.as_slice()).unwrap_or_default())?;
    }
    match value {
        Some(_) => Ok(Entry { line: number, name, value }),
        None => Err(SyntaxError::NoValue(name)),
    }
}

fn not_repeated(name: &'static str, entries: &[Entry]) -> Result<(), SyntaxError> {
    match entries.iter().find(|entry| entry.name == name) {
        Some(first) => Err(SyntaxError::Repeated(name, first.line)),
        None => Ok(()),
    }
}

/// Splits a line as Python's ConfigParser does: at the first `=` or `:`. One of `comments` starts a
/// comment, as `;` after a space or a tab does.
fn split<'a>(line: &'a str, comments: &[&str]) -> (&'a str, Option<Zeroizing<String>>) {
    let comment = comments.iter().filter_map(|start| line.find(start)).min();
    let line = comment.and_then(|at| line.get(..at)).unwrap_or(line).trim_end();
    match line.split_once(['=', ':']) {
        Some((name, value)) => (name.trim(), Some(value.trim().to_owned().into())),
        None => (line, None),
    }
}

/// What is wrong with a line, whatever its value means.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(in crate::config) enum SyntaxError {
    /// No section where there has to be one, or one that there is not.
    #[error("\"{}\": expected a section before all options, [config] once or [client NAME]", .0.escape_debug())]
    Section(String),
    /// The name of a section that no client can have.
    #[error(
        "\"{}\" is not the name of a client: expected 1 to 64 of letters, digits, dot, _ and -, a letter or digit first",
        .0.escape_debug()
    )]
    ClientName(String),
    /// The name of a client, and the line of the section that has it already.
    #[error("client {0}: already a client in line {1}")]
    Twice(String, usize),
    /// An option that is none in this section.
    #[error("unknown option \"{}\"", .0.escape_debug())]
    Unknown(String),
    /// An option, and the line that it is set in already.
    #[error("{0}: already set in line {1}")]
    Repeated(&'static str, usize),
    /// An option of a client without a value.
    #[error("{0}: has no value: expected {0} = value")]
    NoValue(&'static str),
}
