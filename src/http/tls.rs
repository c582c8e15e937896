//! TLS configuration of the HTTPS server: certificate chain, private key, protocol
//! versions and ALPN.

use crate::http::certificate;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{Error, ServerConfig};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use x509_cert::Certificate;
use x509_cert::der::Decode;

/// The server's certificate chain and private key, checked to match.
pub(crate) struct Identity {
    /// The rustls configuration: TLS 1.2 and 1.3, no client authentication.
    pub tls: Arc<ServerConfig>,
    /// The earliest expiry (`notAfter`) of the chain.
    pub ends: SystemTime,
    /// The addresses and DNS names that the certificate is for, without characters of control.
    pub names: Vec<String>,
}

/// Why a certificate chain and private key are rejected, with the reason as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TlsError {
    /// The certificate chain can't be parsed or used.
    Certificate(String),
    /// The private key can't be parsed or used.
    Key(String),
    /// The private key does not match the public key of the certificate.
    Mismatch,
}

impl Identity {
    /// Reads a certificate chain and its private key (PKCS#8, SEC1 or PKCS#1), both in
    /// PEM (RFC 7468).
    ///
    /// # Errors
    /// The text is not PEM, a certificate is not X.509, or the key does not match.
    pub(crate) fn parse(certificates: &str, key: &str) -> Result<Identity, TlsError> {
        let certificate_error = |why: &str| TlsError::Certificate(why.to_owned());
        let chain =
            parse_chain(certificates).ok_or_else(|| certificate_error("expected certificates in PEM"))?;
        let ends = earliest_end(&chain).ok_or_else(|| certificate_error("expected certificates of X.509"))?;
        let names = chain.first().map(certificate::names).unwrap_or_default();
        let key = parse_key(key)
            .ok_or_else(|| TlsError::Key("expected one private key in PEM, not encrypted".to_owned()))?;
        Ok(Identity { tls: Arc::new(server_config(chain, key)?), ends, names })
    }
}

fn server_config(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<ServerConfig, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut tls = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(|error| TlsError::Key(error.to_string()))?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|error| match error {
            Error::InconsistentKeys(_) => TlsError::Mismatch,
            Error::InvalidCertificate(_) => {
                TlsError::Certificate(format!("{error}: make a new one with rfwgen"))
            }
            _ => TlsError::Key(error.to_string()),
        })?;
    tls.alpn_protocols = vec![b"http/1.1".to_vec(), b"http/1.0".to_vec()];
    Ok(tls)
}

fn parse_chain(text: &str) -> Option<Vec<CertificateDer<'static>>> {
    let chain: Result<Vec<_>, _> = rustls_pemfile::certs(&mut text.as_bytes()).collect();
    chain.ok().filter(|chain| !chain.is_empty())
}

fn parse_key(text: &str) -> Option<PrivateKeyDer<'static>> {
    rustls_pemfile::private_key(&mut text.as_bytes()).ok().flatten()
}

/// The earliest `notAfter` (RFC 5280, 4.1.2.5) of a chain.
fn earliest_end(chain: &[CertificateDer<'_>]) -> Option<SystemTime> {
    let ends = chain.iter().map(|der| {
        let certificate = Certificate::from_der(der).ok()?;
        let end = certificate.tbs_certificate.validity.not_after.to_unix_duration();
        UNIX_EPOCH.checked_add(end)
    });
    ends.collect::<Option<Vec<SystemTime>>>()?.into_iter().min()
}
