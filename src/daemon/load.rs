//! The configuration and the files that it names, read and checked: at a start, and while rfw runs.

use crate::config::file::{ClientAuth, Config, LocatedError, Outward, Setting};
use crate::config::trusted_file;
use crate::firewall::Settings;
use crate::http::tls::{ClientFiles, ClientFilesError, Identity, TlsError};
use crate::rule::whitelist::WhiteList;
use std::fmt;
use std::path::{Path, PathBuf};

/// Reads `rfw.conf`.
///
/// # Errors
/// The file can't be read, others may read or change it, or it has an invalid line.
pub(super) fn config(file: &Path) -> Result<Config, LocatedError> {
    let text = trusted_file::read_secret(file).map_err(|error| LocatedError {
        file: file.to_owned(),
        line: None,
        why: error.to_string(),
    })?;
    Config::parse(file, &text)
}

/// Reads the white list that a configuration names.
///
/// # Errors
/// The file can't be read, is writable by others, or has an invalid line.
pub(super) fn white_list(config: &Config) -> Result<WhiteList, LocatedError> {
    let setting = &config.whitelist_file;
    let file = &setting.value;
    let text = trusted_file::read_trusted(file)
        .map_err(|error| setting.error(&config.file, format!("{}: {error}", file.display())))?;
    WhiteList::parse(&text).map_err(|error| LocatedError {
        file: file.clone(),
        line: error.line(),
        why: error.to_string(),
    })
}

/// Reads the certificate chain, the private key, and what certificates of clients are verified with;
/// `config` is the file that names them.
///
/// # Errors
/// A file can't be read, others may change it or read the key, or it is not what it has to be.
pub(super) fn identity(config: &Path, outward: &Outward) -> Result<Identity, LocatedError> {
    let identity = read_identity(config, outward)?;
    log::debug!("the certificate is for {}", identity.names.join(", "));
    Ok(identity)
}

fn read_identity(config: &Path, outward: &Outward) -> Result<Identity, LocatedError> {
    let Outward { certfile, keyfile, client_auth, .. } = outward;
    let error = |setting: &Setting<PathBuf>, why: &dyn fmt::Display| {
        setting.error(config, format!("{}: {why}", setting.value.display()))
    };
    let read = |setting: &Setting<PathBuf>| {
        trusted_file::read_trusted(&setting.value).map_err(|why| error(setting, &why))
    };
    let certificates = read(certfile)?;
    let key = trusted_file::read_secret(&keyfile.value).map_err(|why| error(keyfile, &why))?;
    let ClientAuth::On { required, ca, crl } = client_auth else {
        return Identity::parse(&certificates, &key, None).map_err(|why| tls_error(outward, why, error));
    };
    let (authorities, revoked) = (read(ca)?, crl.as_ref().map(read).transpose()?);
    let files = ClientFiles { required: *required, authorities: &authorities, revoked: revoked.as_deref() };
    Identity::parse(&certificates, &key, Some(&files)).map_err(|why| tls_error(outward, why, error))
}

/// An error of TLS as one of the option whose file it is about.
fn tls_error(
    outward: &Outward,
    why: TlsError,
    error: impl Fn(&Setting<PathBuf>, &dyn fmt::Display) -> LocatedError,
) -> LocatedError {
    let Outward { certfile, keyfile, client_auth, .. } = outward;
    match (why, client_auth) {
        (TlsError::Certificate(why), _) => error(certfile, &why),
        (TlsError::Key(why), _) => error(keyfile, &why),
        (TlsError::Mismatch, _) => {
            error(keyfile, &format_args!("does not fit the certificate {}", certfile.value.display()))
        }
        (TlsError::Clients(ClientFilesError::Authorities(why)), ClientAuth::On { ca, .. }) => error(ca, &why),
        (TlsError::Clients(ClientFilesError::Revoked(why)), ClientAuth::On { crl: Some(crl), .. }) => {
            error(crl, &why)
        }
        (TlsError::Clients(ClientFilesError::Authorities(why) | ClientFilesError::Revoked(why)), _) => {
            error(certfile, &why)
        }
    }
}

/// What the firewall keeps to.
pub(super) fn settings(config: &Config) -> Settings {
    let count = |number: u32| usize::try_from(number).unwrap_or(usize::MAX);
    Settings {
        set_use: config.use_sets.value,
        rules_max: count(config.rules_max),
        lists_max: count(config.lists_max),
        layout: config.layout.clone(),
        stay_first: config.stay_first,
        state_file: config.state_file.value.clone(),
    }
}
