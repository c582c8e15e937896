//! TLS configuration of the HTTPS server: certificate chain, private key, protocol
//! versions and ALPN, and which certificates of clients it believes.

mod certificate;
mod clients;

pub(crate) use self::certificate::PeerCertificate;
pub(crate) use self::clients::{ClientFiles, ClientFilesError, reason};

use self::clients::ClientVerifier;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{Error, InconsistentKeys, ServerConfig};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use x509_cert::Certificate;
use x509_cert::der::Decode;
use zeroize::Zeroize;

/// The server's certificate chain and private key, checked to match, and what it asks of clients. Its
/// sessions can be resumed with it alone: they are kept in memory (256 of them), by its rustls
/// configuration, which makes no tickets that could be read with a key.
pub(crate) struct Identity {
    /// The rustls configuration: TLS 1.2 and 1.3.
    pub tls: Arc<ServerConfig>,
    /// The earliest expiry (`notAfter`) of the chain.
    pub ends: SystemTime,
    /// The addresses and DNS names of the certificate.
    pub names: Vec<String>,
    /// How certificates of clients are verified, if they are asked for.
    clients: Option<Arc<ClientVerifier>>,
    /// The chain in DER (X.690), the server's own certificate first.
    pub chain: Vec<CertificateDer<'static>>,
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
    /// The files for certificates of clients can't be used.
    Clients(ClientFilesError),
}

impl Identity {
    /// Reads a certificate chain and its private key (PKCS#8, SEC1 or PKCS#1), both in
    /// PEM (RFC 7468), and the files for certificates of clients, if they are asked for.
    ///
    /// # Errors
    /// The text is not PEM, a certificate is not X.509, or the key does not match.
    pub(crate) fn parse(
        certificates: &str,
        key: &str,
        clients: Option<&ClientFiles<'_>>,
    ) -> Result<Identity, TlsError> {
        let certificate_error = |why: &str| TlsError::Certificate(why.to_owned());
        let chain =
            parse_chain(certificates).ok_or_else(|| certificate_error("expected certificates in PEM"))?;
        let parsed: Result<Vec<Certificate>, _> =
            chain.iter().map(|der| Certificate::from_der(der)).collect();
        let parsed = parsed.map_err(|_| certificate_error("expected certificates of X.509"))?;
        let key = parse_key(key)
            .ok_or_else(|| TlsError::Key("expected one private key in PEM, not encrypted".to_owned()))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let clients = clients.map(|files| ClientVerifier::parse(files, &provider).map(Arc::new));
        let clients = clients.transpose().map_err(TlsError::Clients)?;
        let verifier = clients.clone().map(|verifier| verifier as Arc<dyn ClientCertVerifier>);
        let verifier = verifier.unwrap_or_else(WebPkiClientVerifier::no_client_auth);
        Ok(Identity {
            ends: parsed.iter().map(certificate::end).min().unwrap_or(UNIX_EPOCH),
            names: parsed.first().map(certificate::server_names).unwrap_or_default(),
            tls: Arc::new(server_config(provider, verifier, chain.clone(), key)?),
            chain,
            clients,
        })
    }

    /// Whether certificates of clients are verified with files of the same text, or both ask for none.
    pub(crate) fn verifies_as(&self, other: &Identity) -> bool {
        match (&self.clients, &other.clients) {
            (Some(own), Some(others)) => own.is_of_same_files(others),
            (own, others) => own.is_none() && others.is_none(),
        }
    }

    /// When the first CA for certificates of clients ends; what it has signed is refused then.
    pub(crate) fn authorities_end(&self) -> Option<SystemTime> {
        self.clients.as_ref()?.authorities_end()
    }

    /// When the first list of certificates that are taken back ends; all of its CA are refused then.
    pub(crate) fn revoked_until(&self) -> Option<SystemTime> {
        self.clients.as_ref()?.revoked_until()
    }

    /// The certificate of a client whose handshake is complete, from the chain of the session. It is
    /// verified again: a session that is resumed has the chain of the first, which may have ended since
    /// then, and the configuration may have been replaced while the handshake was made.
    ///
    /// # Errors
    /// Why the client is refused.
    pub(crate) fn admit(
        &self,
        chain: Option<&[CertificateDer<'static>]>,
        now: SystemTime,
    ) -> Result<Option<PeerCertificate>, String> {
        let certificate = chain.map(PeerCertificate::read).transpose().map_err(|error| error.to_string())?;
        self.still_accepts(certificate.as_ref(), now)?;
        Ok(certificate)
    }

    /// Whether a client that has shown that certificate, or none, would be admitted now: for connections
    /// that were made before the files, or the time, have changed.
    ///
    /// # Errors
    /// Why it would not.
    pub(crate) fn still_accepts(
        &self,
        certificate: Option<&PeerCertificate>,
        now: SystemTime,
    ) -> Result<(), String> {
        match (&self.clients, certificate) {
            (None, None) => Ok(()),
            (Some(clients), None) if !clients.is_required() => Ok(()),
            (Some(_), None) => Err(reason(&Error::NoCertificatesPresented)),
            (None, Some(_)) => Err("certificates of clients are not asked for any more".to_owned()),
            (Some(clients), Some(certificate)) => {
                let now = now.duration_since(UNIX_EPOCH).map_err(|error| error.to_string())?;
                let verified = clients.verify(certificate.chain(), UnixTime::since_unix_epoch(now));
                verified.map_err(|error| reason(&error))
            }
        }
    }
}

fn server_config(
    provider: Arc<rustls::crypto::CryptoProvider>,
    verifier: Arc<dyn ClientCertVerifier>,
    chain: Vec<CertificateDer<'static>>,
    mut key: PrivateKeyDer<'static>,
) -> Result<ServerConfig, TlsError> {
    let signing = rustls::crypto::ring::sign::any_supported_type(&key);
    // What signs has a form of its own of it.
    key.zeroize();
    let certified = CertifiedKey::new(chain, signing.map_err(|error| TlsError::Key(error.to_string()))?);
    match certified.keys_match() {
        // A kind of key that does not tell its public half.
        Ok(()) | Err(Error::InconsistentKeys(InconsistentKeys::Unknown)) => {}
        Err(Error::InconsistentKeys(_)) => return Err(TlsError::Mismatch),
        Err(error @ Error::InvalidCertificate(_)) => {
            return Err(TlsError::Certificate(format!("{error}: make a new one with rfwgen")));
        }
        Err(error) => return Err(TlsError::Key(error.to_string())),
    }
    let mut tls = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(|error| TlsError::Key(error.to_string()))?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
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

#[cfg(test)]
mod tests;
