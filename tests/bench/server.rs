//! The server under load: requests a second, new connections against nginx, and an honest
//! client in a crowd.

use crate::client::{PORT, connect_from, head, secure};
use crate::crowd::{Crowd, Waits, sources};
use crate::{Bench, address, list, millis, output, run};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

/// How long each load lasts.
const TIME: Duration = Duration::from_secs(4);

/// How long the crowd stays.
const CROWD_TIME: Duration = Duration::from_secs(60);

/// The port of nginx.
const NGINX: u16 = 7399;

impl Bench {
    /// Requests and connections a second; rfw has a processor, and the load another.
    pub(crate) fn server(&self) {
        pin(std::process::id(), "1");
        self.kept();
        self.new_connections();
        self.idle_connections();
    }

    /// Requests a second of eight kept connections, and how equal they are served.
    fn kept(&self) {
        let rfw = self.rfw("iptables.path = iptables-nft\n");
        pin(rfw.pid(), "0");
        let path = |n| format!("/drop/input/any/{}?expire=0", address(n));
        for n in 0..8 {
            self.client().request("PUT", &path(n), "");
        }
        for (what, reach) in [("PUT", 4_700.0), ("GET", 9_900.0)] {
            let counts = load(8, |n, go| {
                let (mut client, mut count) = (self.client(), 0);
                client.request("GET", "/", "");
                go.ready.wait();
                while !go.is_over() {
                    match what {
                        "PUT" => client.request("PUT", &path(n), ""),
                        _ => client.request("GET", "/", ""),
                    };
                    count += 1;
                }
                count
            });
            let rate = counts.iter().sum::<usize>() as f64 / TIME.as_secs_f64();
            rate_row(
                &format!("{what} a second, nothing to change, 8 kept (nft)"),
                rate,
                reach,
                rate >= reach,
            );
            let (worst, best) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
            let ratio = *best as f64 / *worst as f64;
            rate_row("  best to worst of them", ratio, 1.3, ratio <= 1.3);
        }
    }

    /// New TLS 1.3 connections with one GET each, of 50 clients.
    fn new_connections(&self) {
        let rfw = self.rfw("");
        pin(rfw.pid(), "0");
        let ours = self.connections_a_second(PORT);
        drop(rfw);
        let Some(nginx) = Nginx::start(&self.dir) else {
            return println!("{:<52} {ours:>8.0} /s  (nginx is missing: apt-get install nginx-light)", NEW);
        };
        pin(nginx.0.id(), "0");
        let theirs = self.connections_a_second(NGINX);
        let mark = if ours / theirs >= 0.95 { "" } else { "  missed" };
        println!("{NEW:<52} {ours:>8.0} /s {theirs:>8.0} /s {:>7.2} {:>7.2}{mark}", ours / theirs, 0.95);
    }

    fn connections_a_second(&self, port: u16) -> f64 {
        // What the client spends on checking is not the server's.
        let mut tls = ClientConfig::builder_with_protocol_versions(&[&rustls::version::TLS13])
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anybody))
            .with_no_client_auth();
        tls.resumption = rustls::client::Resumption::disabled();
        let tls = Arc::new(tls);
        let request = head("GET", "/", 0).replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n");
        let sources: Vec<_> = sources().collect();
        let counts = load(50, |n, go| {
            let mut count = 0;
            go.ready.wait();
            while !go.is_over() {
                let socket = connect_from(sources[n % sources.len()], port).unwrap();
                let mut stream = secure(&tls, socket);
                stream.write_all(request.as_bytes()).unwrap();
                let mut answer = Vec::new();
                // nginx does not always say that it closes.
                let _ = stream.read_to_end(&mut answer);
                assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
                count += 1;
            }
            count
        });
        counts.iter().sum::<usize>() as f64 / TIME.as_secs_f64()
    }

    /// What connections that say nothing more cost.
    fn idle_connections(&self) {
        let rfw = self.rfw("");
        crate::memory_row("idle", rfw.memory("VmRSS"), 6);
        let idle: Vec<_> = (0..255)
            .zip(sources().cycle())
            .map(|(_, source)| {
                let mut stream = secure(&self.fresh_tls, connect_from(source, PORT).unwrap());
                stream.write_all(head("GET", "/", 0).as_bytes()).unwrap();
                assert!(stream.read(&mut [0; 10_000]).unwrap() > 0);
                stream
            })
            .collect();
        crate::memory_row("256 idle TLS connections", rfw.memory("VmRSS"), 18);
        self.client().request("GET", "/", "");
        drop(idle);
    }

    /// An honest client's PUT on a quiet server, and in a crowd.
    pub(crate) fn crowd(&self) {
        pin(std::process::id(), "1");
        let rfw = self.rfw("ipset\nlocal.server\n");
        pin(rfw.pid(), "0");
        let mut client = self.client();
        client.request("PUT", "/drop/output/any?expire=1h", &list(200_000));
        let quiet = Waits::measure(&self.fresh_tls, TIME).summary();
        for (what, again, longest) in [("in a crowd", false, 250.0), ("that comes again", true, 500.0)] {
            let crowd = Crowd::gather(&self.fresh_tls, again);
            let (kept, new, most) = Waits::measure(&self.fresh_tls, CROWD_TIME).summary();
            drop(crowd);
            for (how, ours, bare) in [("kept", kept, quiet.0), ("new", new, quiet.1)] {
                crate::row(&format!("a PUT {what}, {how} connection, against quiet"), ours, bare, 1.5);
            }
            rate_row("  the longest, in ms", millis(most), longest, millis(most) <= longest);
        }
        let megabytes = rfw.memory("VmHWM");
        println!("{:<52} {megabytes:>8.1} MB", "memory: peak with the crowd");
    }
}

const NEW: &str = "new TLS connections, 50 clients, against nginx";

fn rate_row(what: &str, rate: f64, reach: f64, reached: bool) {
    let mark = if reached { "" } else { "  missed" };
    println!("{what:<52} {rate:>8.1} {:>19} {reach:>7.1}{mark}", "");
}

/// Has so many clients work at the same time, once all of them are ready, and gives what
/// each has done.
fn load(clients: usize, work: impl Fn(usize, &Go) -> usize + Sync) -> Vec<usize> {
    let go = Go { ready: Barrier::new(clients + 1), over: AtomicBool::new(false) };
    thread::scope(|scope| {
        let (work, go) = (&work, &go);
        let threads: Vec<_> = (0..clients).map(|n| scope.spawn(move || work(n, go))).collect();
        go.ready.wait();
        thread::sleep(TIME);
        go.over.store(true, Ordering::Relaxed);
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

/// When clients begin and end.
struct Go {
    ready: Barrier,
    over: AtomicBool,
}

impl Go {
    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }
}

/// Binds a process to a processor, if there are two.
fn pin(process: u32, processor: &str) {
    if thread::available_parallelism().is_ok_and(|count| count.get() > 1) || processor == "0" {
        run("taskset", &["-apc", processor, &process.to_string()]);
    }
}

/// nginx with one worker and a static file of the size of rfw's help.
struct Nginx(Child);

impl Nginx {
    fn start(dir: &Path) -> Option<Nginx> {
        let at = dir.display();
        fs::create_dir_all(dir.join("www")).unwrap();
        fs::write(dir.join("www/index.html"), "x".repeat(2_000)).unwrap();
        let conf = format!(
            "worker_processes 1; daemon off; master_process off; pid {at}/nginx.pid; error_log {at}/nginx.log;\n\
             events {{ worker_connections 1024; }}\nhttp {{ access_log off; server {{\n\
             listen 127.0.0.1:{NGINX} ssl backlog=511; root {at}/www;\nssl_protocols TLSv1.3;\n\
             ssl_session_tickets off; ssl_session_cache off;\n\
             ssl_certificate {at}/server_127.0.0.1/server.crt;\n\
             ssl_certificate_key {at}/server_127.0.0.1/server.key; }} }}\n"
        );
        let file = dir.join("nginx.conf");
        fs::write(&file, conf).unwrap();
        let child = Command::new("nginx").arg("-c").arg(&file).stderr(Stdio::null()).spawn().ok()?;
        let start = Instant::now();
        while TcpStream::connect(("127.0.0.1", NGINX)).is_err() {
            assert!(start.elapsed() < TIME, "{}", output("cat", &[&format!("{at}/nginx.log")]));
            thread::sleep(Duration::from_millis(10));
        }
        Some(Nginx(child))
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        run("kill", &[&self.0.id().to_string()]);
        let _ = self.0.wait();
    }
}

/// Believes any certificate.
#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let provider: &Arc<CryptoProvider> = CryptoProvider::get_default().unwrap();
        provider.signature_verification_algorithms.supported_schemes()
    }
}
