//! The names of a server's certificate, for people; no decision rests on them.

use rustls::pki_types::CertificateDer;
use std::net::IpAddr;
use x509_cert::Certificate;
use x509_cert::der::Decode;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

/// The addresses and DNS names of subjectAltName (RFC 5280, 4.2.1.6), those that clients compare with the
/// host that they asked for; what may do something to a terminal is escaped. None where there is no such
/// extension, or one that can't be read.
pub(super) fn names(der: &CertificateDer<'_>) -> Vec<String> {
    let certificate = Certificate::from_der(der).ok();
    let names =
        certificate.and_then(|certificate| certificate.tbs_certificate.get::<SubjectAltName>().ok()?);
    names.map(|(_, names)| names.0).unwrap_or_default().iter().filter_map(name).collect()
}

fn name(name: &GeneralName) -> Option<String> {
    match name {
        GeneralName::DnsName(name) => Some(name.as_str().escape_debug().to_string()),
        GeneralName::IpAddress(octets) => {
            let v4 = <[u8; 4]>::try_from(octets.as_bytes()).map(IpAddr::from);
            let ip = v4.or_else(|_| <[u8; 16]>::try_from(octets.as_bytes()).map(IpAddr::from));
            ip.ok().map(|ip| ip.to_string())
        }
        _ => None,
    }
}
