//! The options for certificates of clients (mutual TLS).

use super::syntax::{CA, CERT, CRL};
use super::{ConfigError, Located, Options, Setting};
use std::path::{Path, PathBuf};

/// Whether clients of the HTTPS server show certificates, and how these are verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ClientAuth {
    /// None is asked for; CA and lists, if they are set, are not read.
    Off,
    /// A client is asked for one.
    On {
        /// Whether a client without one is refused.
        required: bool,
        /// The certificates of the CAs, in PEM (RFC 7468).
        ca: Setting<PathBuf>,
        /// Their lists of certificates that are taken back, in PEM (RFC 7468).
        crl: Option<Setting<PathBuf>>,
    },
}

impl ClientAuth {
    /// The files of CA and lists.
    pub(crate) fn files(&self) -> impl Iterator<Item = &Path> {
        let (ca, crl) = self.settings();
        ca.into_iter().chain(crl).map(|setting| setting.value.as_path())
    }

    /// The options in which it differs from another, by name.
    pub(in crate::config) fn differences(&self, other: &ClientAuth) -> Vec<&'static str> {
        let value = |setting: Option<&Setting<PathBuf>>| setting.map(|setting| setting.value.clone());
        let ((ca, crl), (other_ca, other_crl)) = (self.settings(), other.settings());
        let options = [
            (CERT, self.required() != other.required()),
            (CA, value(ca) != value(other_ca)),
            (CRL, value(crl) != value(other_crl)),
        ];
        options.into_iter().filter(|(_, differs)| *differs).map(|(option, _)| option).collect()
    }

    fn required(&self) -> Option<bool> {
        match self {
            ClientAuth::Off => None,
            ClientAuth::On { required, .. } => Some(*required),
        }
    }

    fn settings(&self) -> (Option<&Setting<PathBuf>>, Option<&Setting<PathBuf>>) {
        match self {
            ClientAuth::Off => (None, None),
            ClientAuth::On { ca, crl, .. } => (Some(ca), crl.as_ref()),
        }
    }
}

impl Options<'_> {
    /// The options `outward.server.clientcert`, `clientca` and `clientcrl`.
    pub(super) fn client_auth(&self) -> Located<ClientAuth> {
        let mode = self.parse(CERT, None, |text| match text {
            "off" => Ok(None),
            "optional" => Ok(Some(false)),
            "required" => Ok(Some(true)),
            _ => Err(ConfigError::Value(CERT, text.to_owned(), "off, optional or required")),
        })?;
        let given = |name| self.flag(name).then(|| self.path(name, "")).transpose();
        match (mode.value, given(CA)?, given(CRL)?) {
            (None, _, _) => Ok(ClientAuth::Off),
            (Some(_), None, _) => Err((mode.line, ConfigError::NoAuthority(CA, CERT))),
            (Some(required), Some(ca), crl) => Ok(ClientAuth::On { required, ca, crl }),
        }
    }
}
