//! The certificate that a client shows: the names that it may be known by, its end, and its chain, which
//! is kept so that it can be verified again. Who signed it is the matter of
//! [`ClientVerifier`](super::clients::ClientVerifier).

use crate::rule::client_name::is_client_name;
use rustls::pki_types::CertificateDer;
use std::net::IpAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use x509_cert::Certificate;
use x509_cert::der::asn1::{PrintableStringRef, Utf8StringRef};
use x509_cert::der::oid::db::rfc4519::COMMON_NAME;
use x509_cert::der::oid::db::rfc5280::ID_KP_CLIENT_AUTH;
use x509_cert::der::{self, Decode};
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{BasicConstraints, ExtendedKeyUsage, SubjectAltName};

/// Maximum size in bytes of a client's certificate and those between it and the CA together. They are kept
/// as long as the connection, and as the session that may be resumed.
const CHAIN_MAX: usize = 16 << 10;

/// Maximum number of these certificates. The ways from a certificate to a CA are as many as the orders of those
/// between them, and each takes signatures to verify.
const CERTIFICATES_MAX: usize = 4;

/// Maximum number of names of a client's certificate, those not counted that no client can have.
const NAMES_MAX: usize = 16;

/// The certificate that a client has shown, verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PeerCertificate {
    /// The common names of its subject and the DNS names of subjectAltName, the latter in lower case, each
    /// once: of 1 to 64 letters, digits, `.`, `_` and `-`, the first a letter or a digit. Others, such as
    /// `*.example.org`, no client can have, and they are left out. There may be none.
    pub names: Vec<String>,
    /// When it ends (`notAfter`).
    pub ends: SystemTime,
    /// It and those between it and the CA, as the client has sent them.
    chain: Vec<CertificateDer<'static>>,
}

/// Why the certificate of a client is of no use, whoever has signed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CertificateError {
    /// No certificate at all.
    #[error("no certificate of a client: expected one")]
    Missing,
    /// The number and the size of it and those behind it.
    #[error(
        "{0} certificates of a client with {1} bytes: expected at most {CERTIFICATES_MAX} with {CHAIN_MAX}"
    )]
    Large(usize, usize),
    /// It is not DER, or something in it is not as RFC 5280 has it.
    #[error("the certificate of a client can't be read: {0}")]
    Unreadable(der::Error),
    /// It does not say that it is for clients.
    #[error("the certificate is for no client: expected clientAuth in extendedKeyUsage")]
    Usage,
    /// It has too many names.
    #[error("the certificate of a client has more than {NAMES_MAX} names")]
    Names,
}

impl PeerCertificate {
    /// Reads the certificate at the head of a chain; whether it is to be believed is not looked at.
    ///
    /// # Errors
    /// It can't be read, or a client may not have such a one.
    pub(crate) fn read(chain: &[CertificateDer<'_>]) -> Result<PeerCertificate, CertificateError> {
        check_size(chain)?;
        let der = chain.first().ok_or(CertificateError::Missing)?;
        let certificate = Certificate::from_der(der).map_err(CertificateError::Unreadable)?;
        if !is_for_clients(&certificate)? {
            return Err(CertificateError::Usage);
        }
        Ok(PeerCertificate {
            names: names(&certificate)?,
            ends: end(&certificate),
            chain: chain.iter().map(|der| der.clone().into_owned()).collect(),
        })
    }

    /// The certificate, and those between it and the CA.
    pub(super) fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    /// Whether it has ended at `now`; it is good for the second of its end (RFC 5280, 4.1.2.5).
    pub(crate) fn has_ended(&self, now: SystemTime) -> bool {
        now.duration_since(self.ends).is_ok_and(|passed| passed >= Duration::from_secs(1))
    }
}

/// Checks how much a client has sent, before anything is made of it.
pub(super) fn check_size(chain: &[CertificateDer<'_>]) -> Result<(), CertificateError> {
    let size = chain.iter().map(|der| der.len()).sum();
    match chain.len() <= CERTIFICATES_MAX && size <= CHAIN_MAX {
        true => Ok(()),
        false => Err(CertificateError::Large(chain.len(), size)),
    }
}

/// When a certificate ends (RFC 5280, 4.1.2.5).
pub(super) fn end(certificate: &Certificate) -> SystemTime {
    let end: Duration = certificate.tbs_certificate.validity.not_after.to_unix_duration();
    UNIX_EPOCH.checked_add(end).unwrap_or(UNIX_EPOCH)
}

/// Whether a certificate may sign others (RFC 5280, 4.2.1.9).
pub(super) fn is_authority(certificate: &Certificate) -> bool {
    let constraints = certificate.tbs_certificate.get::<BasicConstraints>();
    constraints.is_ok_and(|constraints| constraints.is_some_and(|(_, constraints)| constraints.ca))
}

/// The addresses and DNS names of a server (RFC 5280, 4.2.1.6), which may have any characters but those of
/// control.
pub(super) fn server_names(certificate: &Certificate) -> Vec<String> {
    let names = certificate.tbs_certificate.get::<SubjectAltName>().ok().flatten();
    let names = names.map(|(_, names)| names.0).unwrap_or_default();
    names.iter().filter_map(server_name).collect()
}

fn server_name(name: &GeneralName) -> Option<String> {
    match name {
        GeneralName::DnsName(name) => Some(name.as_str().escape_debug().to_string()),
        GeneralName::IpAddress(octets) => {
            let octets = octets.as_bytes();
            let v4 = <[u8; 4]>::try_from(octets).map(IpAddr::from);
            let ip = v4.or_else(|_| <[u8; 16]>::try_from(octets).map(IpAddr::from));
            ip.ok().map(|ip| ip.to_string())
        }
        _ => None,
    }
}

/// Whether a certificate says that it is for clients. One that does not say what it is for would be for
/// everything (RFC 5280, 4.2.1.12), and so that of a server, which is not meant.
fn is_for_clients(certificate: &Certificate) -> Result<bool, CertificateError> {
    let usage = certificate.tbs_certificate.get::<ExtendedKeyUsage>();
    let usage = usage.map_err(CertificateError::Unreadable)?;
    Ok(usage.is_some_and(|(_, usage)| usage.0.contains(&ID_KP_CLIENT_AUTH)))
}

/// The names that a client may be known by, each once.
fn names(certificate: &Certificate) -> Result<Vec<String>, CertificateError> {
    let certificate = &certificate.tbs_certificate;
    let dns_names = certificate.get::<SubjectAltName>().map_err(CertificateError::Unreadable)?;
    let dns_names = dns_names.map(|(_, names)| names.0).unwrap_or_default();
    let dns_names = dns_names.iter().filter_map(|name| match name {
        GeneralName::DnsName(name) => Some(name.as_str().to_ascii_lowercase()),
        _ => None,
    });
    let attributes = certificate.subject.0.iter().flat_map(|part| part.0.iter());
    let common = attributes.filter(|attribute| attribute.oid == COMMON_NAME).filter_map(|attribute| {
        let utf8 = attribute.value.decode_as::<Utf8StringRef<'_>>().map(|text| text.as_str().to_owned());
        let printable = || attribute.value.decode_as::<PrintableStringRef<'_>>();
        utf8.or_else(|_| printable().map(|text| text.as_str().to_owned())).ok()
    });
    let mut names: Vec<String> = Vec::new();
    for name in common.chain(dns_names).filter(|name| is_client_name(name)) {
        if names.contains(&name) {
            continue;
        }
        if names.len() == NAMES_MAX {
            return Err(CertificateError::Names);
        }
        names.push(name);
    }
    Ok(names)
}

#[cfg(test)]
mod tests;
