//! The TLS side of the HTTPS server: certificate, key and protocol versions.

use crate::config::file::{LocatedError, Outward};
use crate::config::trusted_file;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{Error, ServerConfig};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use x509_cert::Certificate;
use x509_cert::der::Decode;

/// A certificate that ends sooner than this is worth a warning.
pub const ENDS_SOON: Duration = Duration::from_secs(30 * 86_400);

/// Certificate and key of the server, found to fit each other.
pub struct Identity {
    /// TLS 1.2 and 1.3 with that certificate.
    pub tls: Arc<ServerConfig>,
    /// The first moment at which a certificate of the chain is not valid any more.
    pub ends: SystemTime,
}

/// Loads the certificate chain and the private key (PKCS#8, SEC1 or PKCS#1) that
/// the file `config` names.
///
/// # Errors
/// A file that is missing, not PEM or open to others; a key of another certificate.
pub fn load(config: &Path, outward: &Outward) -> Result<Identity, LocatedError> {
    let Outward { certfile, keyfile, .. } = outward;
    let in_file = |path: &Path, why: &dyn std::fmt::Display| format!("{}: {why}", path.display());
    let cert_error = |why: &dyn std::fmt::Display| certfile.error(config, in_file(&certfile.value, why));
    let key_error = |why: &dyn std::fmt::Display| keyfile.error(config, in_file(&keyfile.value, why));
    let text = trusted_file::read_trusted(&certfile.value).map_err(|e| cert_error(&e))?;
    let chain = parse_chain(&text).ok_or_else(|| cert_error(&"expected certificates in PEM"))?;
    let ends = earliest_end(&chain).ok_or_else(|| cert_error(&"expected certificates of X.509"))?;
    let text = trusted_file::read_secret(&keyfile.value).map_err(|e| key_error(&e))?;
    let key = parse_key(&text).ok_or_else(|| key_error(&"expected one private key in PEM, not encrypted"))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut tls = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(|e| key_error(&e))?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|error| match error {
            Error::InconsistentKeys(_) => {
                key_error(&format!("does not fit the certificate {}", certfile.value.display()))
            }
            Error::InvalidCertificate(_) => cert_error(&format!("{error}: make a new one with rfwgen")),
            _ => key_error(&error),
        })?;
    tls.alpn_protocols = vec![b"http/1.1".to_vec(), b"http/1.0".to_vec()];
    Ok(Identity { tls: Arc::new(tls), ends })
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
