//! Which clients are admitted, at a handshake and afterwards, with keys that the real rfwgen makes.

use super::*;
use rustls::pki_types::ServerName;
use rustls::{
    ClientConfig, ClientConnection, HandshakeKind, RootCertStore, ServerConnection, SupportedProtocolVersion,
};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError, Weak};
use std::time::Duration;

const DAY: Duration = Duration::from_secs(86_400);

/// Beside what rfwgen makes: a certificate that does not say what it is for, one below another CA, lists
/// of that CA, and of ours that ends in a week, and a certificate of our CA by which it has ended; a CA with
/// another below it, which signs a client.
const SCRIPT: &str = r#"set -e
"$0" 127.0.0.1 --dns fw.example.org ::1
"$0" client honeypot --days 30
"$0" client monitor
"$0" revoke monitor
mkdir other && (cd other && "$0" client honeypot && "$0" client old && "$0" revoke old)
cat client/ca.crt other/client/ca.crt >both.crt
cat offline/ca.crl other/offline/ca.crl >both.crl
cat offline/ca.crl offline/ca.crl >twice.crl
openssl req -new -key client_honeypot/client.key -subj /CN=honeypot -out any.csr
echo keyUsage=digitalSignature >any
openssl x509 -req -in any.csr -extfile any -CA client/ca.crt -CAkey offline/ca.key -set_serial 7 -days 30 -out any.crt
printf '[ca]\ndefault_ca=x\n[x]\ndatabase=db\ncrlnumber=number\ndefault_md=sha256\n[y]\nauthorityKeyIdentifier=keyid\n' >cnf
: >db && echo 01 >number
openssl req -new -key offline/ca.key -subj "$(openssl x509 -in client/ca.crt -noout -subject -nameopt compat | sed 's/^subject=//')" -out ca.csr
printf 'new_certs_dir=.\nserial=number\npolicy=z\n[z]\ncommonName=supplied\n' | cat cnf - | sed '/^\[y\]/,/^auth/d' >cnf-2
echo basicConstraints=critical,CA:TRUE >ca.ext
openssl ca -batch -notext -selfsign -config cnf-2 -keyfile offline/ca.key -in ca.csr -extfile ca.ext -out ended-ca.crt \
    -startdate 20200101000000Z -enddate 20210101000000Z
ca="openssl ca -gencrl -config cnf -keyfile offline/ca.key -cert client/ca.crt"
$ca -crlexts y -crldays 7 -out week.crl
mkdir deep && printf 'basicConstraints=critical,CA:TRUE\nkeyUsage=keyCertSign,cRLSign\n' >deep/ca.ext
echo extendedKeyUsage=clientAuth >deep/client.ext
for name in root middle client; do
    openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out deep/$name.key
    openssl req -new -key deep/$name.key -subj /CN=$name -out deep/$name.csr
done
openssl x509 -req -in deep/root.csr -signkey deep/root.key -extfile deep/ca.ext -days 30 -out deep/root.crt
openssl x509 -req -in deep/middle.csr -CA deep/root.crt -CAkey deep/root.key -set_serial 2 -extfile deep/ca.ext -days 30 -out deep/middle.crt
openssl x509 -req -in deep/client.csr -CA deep/middle.crt -CAkey deep/middle.key -set_serial 3 -extfile deep/client.ext -days 30 -out deep/leaf.crt
cat deep/leaf.crt deep/middle.crt >deep/client.crt
for name in root middle; do
    openssl ca -gencrl -config cnf -keyfile deep/$name.key -cert deep/$name.crt -crlexts y -crldays 7 -out deep/$name.crl
done
cat deep/root.crl deep/middle.crl >deep/both.crl
printf 'R\t491231235959Z\t260101000000Z\t02\tunknown\t/CN=middle\n' >db
openssl ca -gencrl -config cnf -keyfile deep/root.key -cert deep/root.crt -crlexts y -crldays 7 -out deep/root-2.crl
cat deep/root-2.crl deep/middle.crl >deep/revoked.crl
: >db
sed 's/^crlnumber.*//' cnf >cnf-1
openssl ca -gencrl -config cnf-1 -keyfile offline/ca.key -cert client/ca.crt -crldays 7 -out version-1.crl
"#;

/// A folder with keys, which goes with it.
struct Keys(PathBuf);

impl Keys {
    /// Those that another test has, if one has them.
    fn new() -> Arc<Keys> {
        static SHARED: Mutex<Weak<Keys>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        let keys = shared.upgrade().unwrap_or_else(|| Arc::new(Keys::make()));
        *shared = Arc::downgrade(&keys);
        keys
    }

    fn make() -> Keys {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("rfw-tls-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::SeqCst));
        let folder = std::env::temp_dir().join(name);
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        let rfwgen = concat!(env!("CARGO_MANIFEST_DIR"), "/etc/deploy/rfwgen");
        let made = Command::new("sh").args(["-c", SCRIPT, rfwgen]).current_dir(&folder).output().unwrap();
        assert!(made.status.success(), "{made:?}");
        Keys(folder)
    }

    fn read(&self, name: &str) -> String {
        let path: &Path = &self.0.join(name);
        fs::read_to_string(path).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    fn try_identity(&self, required: bool, ca: &str, crl: &str) -> Result<Identity, TlsError> {
        let (authorities, revoked) = (self.read(ca), Some(crl).filter(|crl| !crl.is_empty()));
        let revoked = revoked.map(|crl| self.read(crl));
        let files = ClientFiles { required, authorities: &authorities, revoked: revoked.as_deref() };
        self.parse(Some(&files))
    }

    fn parse(&self, files: Option<&ClientFiles<'_>>) -> Result<Identity, TlsError> {
        let (certificate, key) =
            (self.read("server_127.0.0.1/server.crt"), self.read("server_127.0.0.1/server.key"));
        Identity::parse(&certificate, &key, files)
    }

    fn identity(&self, required: bool, ca: &str, crl: &str) -> Identity {
        self.try_identity(required, ca, crl).unwrap_or_else(|error| panic!("{ca} {crl}: {error:?}"))
    }

    fn chain(&self, name: &str) -> Vec<CertificateDer<'static>> {
        parse_chain(&self.read(name)).unwrap()
    }

    /// A client, with a certificate or without one, that keeps its sessions.
    fn client(&self, folder: Option<&str>, version: &'static SupportedProtocolVersion) -> Arc<ClientConfig> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(self.chain("client/ca.crt").remove(0)).unwrap();
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots);
        Arc::new(match folder {
            Some(folder) => {
                let key = parse_key(&self.read(&format!("{folder}/client.key"))).unwrap();
                config.with_client_auth_cert(self.chain(&format!("{folder}/client.crt")), key).unwrap()
            }
            None => config.with_no_client_auth(),
        })
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A handshake, and what the server refuses it with.
fn shake(server: &Identity, client: &Arc<ClientConfig>) -> Result<ServerConnection, Error> {
    let name = ServerName::try_from("127.0.0.1").unwrap();
    let mut client = ClientConnection::new(Arc::clone(client), name).unwrap();
    let mut server = ServerConnection::new(Arc::clone(&server.tls)).unwrap();
    // TLS 1.3 sends what a session is resumed with behind the handshake.
    for _ in 0..6 {
        let mut bytes = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut bytes).unwrap();
        }
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            server.read_tls(&mut rest).unwrap();
            server.process_new_packets()?;
        }
        let mut bytes = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut bytes).unwrap();
        }
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            client.read_tls(&mut rest).unwrap();
            client.process_new_packets().unwrap();
        }
    }
    assert!(!server.is_handshaking() && !client.is_handshaking());
    Ok(server)
}

const VERSIONS: [&SupportedProtocolVersion; 2] = [&rustls::version::TLS12, &rustls::version::TLS13];

#[test]
fn a_certificate_is_verified_again_with_what_is_configured_by_then() {
    let keys = Keys::new();
    let (ca, both, other) = ("client/ca.crt", "both.crt", "other/client/ca.crt");
    let golden = [
        ("client_honeypot/client.crt", ca, "", 0, "ok"),
        ("client_honeypot/client.crt", both, "", 0, "ok"),
        ("client_honeypot/client.crt", other, "", 0, "of no CA in"),
        ("client_honeypot/client.crt", ca, "", 29, "ok"),
        ("client_honeypot/client.crt", ca, "", 31, "expired"),
        ("client_honeypot/client.crt", ca, "", -1, "not valid yet"),
        ("client_honeypot/client.crt", ca, "offline/ca.crl", 0, "ok"),
        ("client_honeypot/client.crt", ca, "week.crl", 6, "ok"),
        ("client_honeypot/client.crt", ca, "week.crl", 8, "revocation list"),
        ("client_monitor/client.crt", ca, "", 0, "ok"),
        ("client_monitor/client.crt", ca, "week.crl", 0, "ok"),
        ("client_monitor/client.crt", ca, "offline/ca.crl", 0, "taken back by"),
        ("client_monitor/client.crt", both, "both.crl", 0, "taken back by"),
        ("client_monitor/client.crt", ca, "", 3_651, "expired"),
        ("other/client_old/client.crt", both, "both.crl", 0, "taken back by"),
        ("other/client_honeypot/client.crt", both, "both.crl", 0, "ok"),
        ("other/client_honeypot/client.crt", ca, "", 0, "of no CA in"),
        ("server_127.0.0.1/server.crt", ca, "", 0, "clientAuth"),
        ("any.crt", ca, "", 0, "clientAuth"),
        ("client/ca.crt", ca, "", 0, "clientAuth"),
        // With an authority in between, which each list is asked about.
        ("deep/client.crt", "deep/root.crt", "", 0, "ok"),
        ("deep/leaf.crt", "deep/root.crt", "", 0, "of no CA in"),
        ("deep/leaf.crt", "deep/middle.crt", "", 0, "ok"),
        ("deep/client.crt", "deep/root.crt", "deep/both.crl", 0, "ok"),
        ("deep/client.crt", "deep/root.crt", "deep/root.crl", 0, "no list in"),
        ("deep/client.crt", "deep/root.crt", "deep/revoked.crl", 0, "taken back by"),
    ];
    let now = SystemTime::now();
    for (name, ca, crl, days, expected) in golden {
        let identity = keys.identity(true, ca, crl);
        let date = if days < 0 { now - DAY } else { now + DAY * days.try_into().unwrap() };
        let chain = keys.chain(name);
        let said = match identity.admit(Some(&chain), date) {
            Ok(Some(certificate)) => {
                identity.still_accepts(Some(&certificate), date).map(|()| "ok".to_owned())
            }
            Ok(None) => panic!("{name}: no certificate"),
            Err(why) => Err(why),
        };
        let said = said.unwrap_or_else(|why| why);
        assert!(
            said.contains(expected),
            "{name} by {ca} {crl:?} in {days} days: {said}, expected {expected}"
        );
    }
}

#[test]
fn a_ca_that_has_ended_admits_nobody() {
    let keys = Keys::new();
    let identity = keys.identity(true, "client/ca.crt", "");
    let chain = keys.chain("client_honeypot/client.crt");
    let now = SystemTime::now();
    assert!(identity.admit(Some(&chain), now).is_ok());
    // rfwgen makes no certificate that outlives its CA.
    let ended = keys.identity(true, "ended-ca.crt", "");
    assert_eq!(ended.admit(Some(&chain), now).unwrap_err(), "the CA of the certificate has expired");
    assert!(ended.authorities_end().unwrap() < now);
    assert!(identity.authorities_end().unwrap() > now + DAY * 7_300);
    assert_eq!(identity.revoked_until(), None);
    let list = keys.identity(true, "client/ca.crt", "week.crl").revoked_until().unwrap();
    assert!(list > now + DAY * 6 && list < now + DAY * 8);
}

#[test]
fn a_client_without_a_certificate_is_admitted_where_none_is_required() {
    let keys = Keys::new();
    let chain = keys.chain("client_honeypot/client.crt");
    let off = keys.parse(None).unwrap_or_else(|error| panic!("{error:?}"));
    let [optional, required] = [false, true].map(|required| keys.identity(required, "client/ca.crt", ""));
    let now = SystemTime::now();
    assert_eq!(off.admit(None, now), Ok(None));
    assert_eq!(optional.admit(None, now), Ok(None));
    assert!(required.admit(None, now).unwrap_err().contains("expected a certificate"));
    let certificate = optional.admit(Some(&chain), now).unwrap().unwrap();
    assert_eq!(certificate.names, ["honeypot"]);
    assert!(!certificate.has_ended(now) && certificate.has_ended(now + DAY * 31));
    let ends = certificate.ends;
    for (millis, has_ended) in [(0, false), (999, false), (1_000, true)] {
        let then = ends + Duration::from_millis(millis);
        assert_eq!(certificate.has_ended(then), has_ended, "{millis}");
        assert_eq!(optional.still_accepts(Some(&certificate), then).is_err(), has_ended, "{millis}");
    }
    assert_eq!(required.still_accepts(Some(&certificate), now), Ok(()));
    // What nobody verifies any more is nobody's name.
    assert!(off.still_accepts(Some(&certificate), now).unwrap_err().contains("not asked for"));
    assert_eq!(off.names, ["127.0.0.1", "fw.example.org", "::1"].map(str::to_owned));
}

#[test]
fn files_that_would_admit_the_wrong_ones_are_refused() {
    let keys = Keys::new();
    let golden = [
        ("server_127.0.0.1/server.crt", "", "is no CA"),
        ("client_honeypot/client.key", "", "expected certificates of CAs in PEM"),
        ("client/ca.crt", "client/ca.crt", "expected certificate revocation lists in PEM"),
        // A list of another CA says nothing.
        ("client/ca.crt", "other/offline/ca.crl", "no list of \"CN=rfw CA "),
        ("both.crt", "offline/ca.crl", "no list of \"CN=rfw CA "),
        ("client/ca.crt", "twice.crl", "two lists of \"CN=rfw CA "),
        ("client/ca.crt", "version-1.crl", "expected a list of version 2"),
    ];
    for (ca, crl, expected) in golden {
        let Err(TlsError::Clients(why)) = keys.try_identity(true, ca, crl) else { panic!("{ca} {crl}") };
        let why = match (why, crl) {
            (ClientFilesError::Authorities(why), "") | (ClientFilesError::Revoked(why), _) => why,
            (why, _) => panic!("{ca} {crl}: {why:?}"),
        };
        assert!(why.contains(expected), "{ca} {crl}: {why}");
    }
    let many = keys.read("client/ca.crt").repeat(9);
    let files = ClientFiles { required: true, authorities: &many, revoked: None };
    let Err(TlsError::Clients(ClientFilesError::Authorities(why))) = keys.parse(Some(&files)) else {
        panic!("nine CAs")
    };
    assert_eq!(why, "9 certificates: expected at most 8");
}

#[test]
fn a_session_is_resumed_with_its_certificate_and_with_the_same_identity_only() {
    let keys = Keys::new();
    for version in VERSIONS {
        let first = keys.identity(true, "client/ca.crt", "");
        let client = keys.client(Some("client_monitor"), version);
        let now = SystemTime::now();
        for kind in [HandshakeKind::Full, HandshakeKind::Resumed] {
            let session = shake(&first, &client).unwrap();
            assert_eq!(session.handshake_kind(), Some(kind), "{version:?}");
            let certificate = first.admit(session.peer_certificates(), now).unwrap().unwrap();
            assert_eq!(certificate.names, ["monitor"]);
            // rustls does not look at it when it resumes a session.
            assert!(first.admit(session.peer_certificates(), now + DAY * 3_651).is_err());
        }
        let same = keys.identity(true, "client/ca.crt", "");
        let session = shake(&same, &client).unwrap();
        assert_eq!(session.handshake_kind(), Some(HandshakeKind::Full), "{version:?}");
        let revoking = keys.identity(true, "client/ca.crt", "offline/ca.crl");
        assert!(reason(&shake(&revoking, &client).unwrap_err()).contains("taken back by"));
    }
}

#[test]
fn a_session_without_a_certificate_is_not_resumed_where_one_is_required() {
    let keys = Keys::new();
    for version in VERSIONS {
        let [optional, required] = [false, true].map(|required| keys.identity(required, "client/ca.crt", ""));
        let client = keys.client(None, version);
        for kind in [HandshakeKind::Full, HandshakeKind::Resumed] {
            let session = shake(&optional, &client).unwrap();
            assert_eq!(session.handshake_kind(), Some(kind), "{version:?}");
            assert_eq!(optional.admit(session.peer_certificates(), SystemTime::now()), Ok(None));
        }
        assert_eq!(shake(&required, &client).err(), Some(Error::NoCertificatesPresented), "{version:?}");
    }
}
