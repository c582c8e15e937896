//! Which certificates of clients are believed: those that a CA of the configuration has signed for clients,
//! that have not ended, and that no list of the CA takes back.
//!
//! [`WebPkiClientVerifier`] does the work. What it lets pass, by its sources, and this does not: a certificate
//! that does not say what it is for, one of a CA that has ended, and a CA that is none. It consults only
//! the first list of a CA, so that a second is refused when the files are read.

use super::certificate::{self, CertificateError, PeerCertificate};
use ring::digest::{SHA256, digest};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{self, CryptoProvider, WebPkiSupportedAlgorithms};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError as Refusal, DigitallySignedStruct, DistinguishedName, Error, ExtendedKeyPurpose,
    OtherError, RootCertStore, SignatureScheme,
};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use x509_cert::Certificate;
use x509_cert::crl::CertificateList;
use x509_cert::der::Decode;
use x509_cert::name::Name;

/// Maximum number of CAs, since the certificate of a client is compared with each.
const AUTHORITIES_MAX: usize = 8;

/// What the configuration has for certificates of clients: texts in PEM (RFC 7468).
pub(crate) struct ClientFiles<'a> {
    /// Whether a client without a certificate is refused.
    pub required: bool,
    /// The certificates of the CAs.
    pub authorities: &'a str,
    /// Their lists of certificates that are taken back (RFC 5280, 5). With one of them, each CA has to
    /// have one.
    pub revoked: Option<&'a str>,
}

/// Why these are refused, with the reason as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ClientFilesError {
    /// The certificates of CAs.
    Authorities(String),
    /// The lists of certificates that are taken back.
    Revoked(String),
}

/// Verifies certificates of clients.
#[derive(Debug)]
pub(crate) struct ClientVerifier {
    required: bool,
    authorities: Vec<Authority>,
    hints: Vec<DistinguishedName>,
    algorithms: WebPkiSupportedAlgorithms,
    revoked_until: Option<SystemTime>,
    /// The SHA-256 of each file that it comes from.
    files: [Option<Vec<u8>>; 2],
}

/// A CA whose certificates are believed.
#[derive(Debug)]
struct Authority {
    verifier: Arc<dyn ClientCertVerifier>,
    ends: SystemTime,
}

/// The CA of a certificate has ended, which is no trouble to [`WebPkiClientVerifier`].
#[derive(Debug, thiserror::Error)]
#[error("the CA of the certificate has expired")]
struct AuthorityEnded;

impl ClientVerifier {
    /// Reads the certificates of the CAs and their lists.
    ///
    /// # Errors
    /// One of them can't be read, is no CA, or is a second list of a CA.
    pub(super) fn parse(
        files: &ClientFiles<'_>,
        provider: &Arc<CryptoProvider>,
    ) -> Result<ClientVerifier, ClientFilesError> {
        let lists = files.revoked.map(read_lists).transpose().map_err(ClientFilesError::Revoked)?;
        let lists = lists.unwrap_or_default();
        let ders = super::parse_chain(files.authorities)
            .ok_or_else(|| ClientFilesError::Authorities("expected certificates of CAs in PEM".to_owned()))?;
        if ders.len() > AUTHORITIES_MAX {
            let why = format!("{} certificates: expected at most {AUTHORITIES_MAX}", ders.len());
            return Err(ClientFilesError::Authorities(why));
        }
        let authorities = ders.into_iter().map(|der| Authority::new(der, &lists, provider));
        let authorities: Vec<Authority> = authorities.collect::<Result<_, _>>()?;
        let hints = authorities.iter().flat_map(|authority| authority.verifier.root_hint_subjects());
        Ok(ClientVerifier {
            required: files.required,
            hints: hints.cloned().collect(),
            authorities,
            algorithms: provider.signature_verification_algorithms,
            revoked_until: lists.iter().map(|list| list.until).min(),
            files: [Some(files.authorities), files.revoked]
                .map(|text| text.map(|text| digest(&SHA256, text.as_bytes()).as_ref().to_vec())),
        })
    }

    /// Whether it comes from files with the same text.
    pub(super) fn is_of_same_files(&self, other: &ClientVerifier) -> bool {
        self.files == other.files
    }

    /// Whether a client has to have a certificate.
    pub(super) fn is_required(&self) -> bool {
        self.required
    }

    /// When the first of the CAs ends.
    pub(super) fn authorities_end(&self) -> Option<SystemTime> {
        self.authorities.iter().map(|authority| authority.ends).min()
    }

    /// When the first of the lists ends (`nextUpdate`); the certificates of its CA are all refused then.
    pub(super) fn revoked_until(&self) -> Option<SystemTime> {
        self.revoked_until
    }

    /// Verifies a chain as in a handshake.
    ///
    /// # Errors
    /// Why it is refused.
    pub(super) fn verify(&self, chain: &[CertificateDer<'_>], now: UnixTime) -> Result<(), Error> {
        certificate::check_size(chain).map_err(refusal)?;
        let (first, rest) = chain.split_first().ok_or(Error::NoCertificatesPresented)?;
        let mut refused = Error::InvalidCertificate(Refusal::UnknownIssuer);
        for authority in &self.authorities {
            match authority.verifier.verify_client_cert(first, rest, now) {
                Ok(_) if Duration::from_secs(now.as_secs()) > authority.since_epoch() => {
                    refused = Refusal::Other(OtherError(Arc::new(AuthorityEnded))).into();
                }
                Ok(_) => {
                    return PeerCertificate::read(chain).map(drop).map_err(|error| refusal(error).into());
                }
                Err(Error::InvalidCertificate(Refusal::UnknownIssuer)) => {}
                Err(error) => refused = error,
            }
        }
        Err(refused)
    }
}

/// Why a handshake fails, in words that say more of certificates than the names of rustls.
pub(crate) fn reason(error: &Error) -> String {
    let what = match error {
        Error::NoCertificatesPresented => "expected a certificate of a client".to_owned(),
        Error::InvalidCertificate(Refusal::UnknownIssuer) => {
            "the certificate is of no CA in outward.server.clientca".to_owned()
        }
        Error::InvalidCertificate(Refusal::Revoked) => {
            "the certificate is taken back by a list in outward.server.clientcrl".to_owned()
        }
        Error::InvalidCertificate(Refusal::UnknownRevocationStatus) => {
            "no list in outward.server.clientcrl is of the CA of the certificate".to_owned()
        }
        Error::InvalidCertificate(Refusal::InvalidPurpose | Refusal::InvalidPurposeContext { .. }) => {
            CertificateError::Usage.to_string()
        }
        Error::InvalidCertificate(Refusal::Other(OtherError(why))) => why.to_string(),
        error => error.to_string(),
    };
    what.escape_debug().to_string()
}

/// A reason of ours in the words of rustls, which makes an alert of it.
fn refusal(error: CertificateError) -> Refusal {
    match error {
        CertificateError::Usage => {
            Refusal::InvalidPurposeContext { required: ExtendedKeyPurpose::ClientAuth, presented: Vec::new() }
        }
        error => Refusal::Other(OtherError(Arc::new(error))),
    }
}

impl Authority {
    /// Makes a CA of its certificate.
    fn new(
        der: CertificateDer<'static>,
        lists: &[RevocationList],
        provider: &Arc<CryptoProvider>,
    ) -> Result<Authority, ClientFilesError> {
        let unusable = |why: String| ClientFilesError::Authorities(why);
        let certificate = Certificate::from_der(&der)
            .map_err(|error| unusable(format!("no certificate of X.509: {error}")))?;
        if !certificate::is_authority(&certificate) {
            let subject = certificate.tbs_certificate.subject.to_string();
            let subject = subject.escape_debug();
            return Err(unusable(format!("\"{subject}\" is no CA: expected CA:TRUE in basicConstraints")));
        }
        let subject = &certificate.tbs_certificate.subject;
        if !lists.is_empty() && !lists.iter().any(|list| list.issuer == *subject) {
            let subject = subject.to_string();
            let why =
                format!("no list of \"{}\", which is in outward.server.clientca", subject.escape_debug());
            return Err(ClientFilesError::Revoked(why));
        }
        let mut roots = RootCertStore::empty();
        roots.add(der).map_err(|error| unusable(error.to_string()))?;
        // Each certificate below the CA is looked up, one of unknown state or in a list that has ended is
        // refused.
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
            .with_crls(lists.iter().map(|list| list.der.clone()))
            .enforce_revocation_expiration()
            .build()
            .map_err(|error| ClientFilesError::Revoked(error.to_string()))?;
        Ok(Authority { verifier, ends: certificate::end(&certificate) })
    }

    /// When it ends, from 1970 on.
    fn since_epoch(&self) -> Duration {
        self.ends.duration_since(UNIX_EPOCH).unwrap_or_default()
    }
}

/// A list of certificates that are taken back.
struct RevocationList {
    der: CertificateRevocationListDer<'static>,
    issuer: Name,
    /// When it ends (`nextUpdate`).
    until: SystemTime,
}

/// Reads the lists; that a CA has signed them is verified when it is looked into them.
fn read_lists(text: &str) -> Result<Vec<RevocationList>, String> {
    let ders: Result<Vec<_>, _> = rustls_pemfile::crls(&mut text.as_bytes()).collect();
    let ders = ders.ok().filter(|ders| !ders.is_empty());
    let ders = ders.ok_or("expected certificate revocation lists in PEM (X509 CRL)")?;
    let mut lists: Vec<RevocationList> = Vec::new();
    for der in ders {
        let list = RevocationList::new(der)?;
        if lists.iter().any(|known| known.issuer == list.issuer) {
            let name = list.issuer.to_string();
            return Err(format!("two lists of \"{}\": expected the newest alone", name.escape_debug()));
        }
        lists.push(list);
    }
    Ok(lists)
}

impl RevocationList {
    fn new(der: CertificateRevocationListDer<'static>) -> Result<RevocationList, String> {
        let list = CertificateList::from_der(&der);
        let list = list.map_err(|error| format!("expected a list of version 2: {error}"))?.tbs_cert_list;
        let until = list.next_update.and_then(|next| UNIX_EPOCH.checked_add(next.to_unix_duration()));
        let name = list.issuer.to_string();
        let until =
            until.ok_or_else(|| format!("the list of \"{}\" has no nextUpdate", name.escape_debug()))?;
        Ok(RevocationList { der, issuer: list.issuer, until })
    }
}

impl ClientCertVerifier for ClientVerifier {
    fn client_auth_mandatory(&self) -> bool {
        self.required
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn verify_client_cert(
        &self,
        first: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let chain: Vec<CertificateDer<'_>> = [first].into_iter().chain(rest).cloned().collect();
        self.verify(&chain, now).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        crypto::verify_tls12_signature(message, certificate, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        crypto::verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
