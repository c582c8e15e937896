//! The server as its clients meet it: TLS, credentials, HTTP as bytes, connections
//! that are kept, slow and silent clients, and what of all this gets into the log.
//! The kernel matters little here, so most tests use one variant of iptables.

mod access;
mod client_certificates;
mod connections;
mod crowd;
mod http;
mod log;
mod throttle;
mod tls;

use crate::host::{Host, Reply, Rfw, Talk};
use std::time::{Duration, Instant};

const IPTABLES: &str = "iptables-nft";

/// `me:secret` as HTTP Basic has it.
const LOGIN: &str = "Authorization: Basic bWU6c2VjcmV0";

/// What a request takes with a machine that has other things to do too.
const AT_ONCE: Duration = Duration::from_secs(1);

/// How long a client that is slow or silent may stay.
const SIX_SECONDS: Duration = Duration::from_secs(6);

/// All rules that rfw made for clients.
fn rules(host: &Host) -> Vec<String> {
    ["INPUT", "OUTPUT", "FORWARD"].iter().flat_map(|chain| host.rules(IPTABLES, chain)).collect()
}

/// Runs curl without any expectation and gives its exit status and what `-w` or the
/// server said.
fn try_curl(rfw: &Rfw<'_>, arguments: &[&str]) -> (Option<i32>, String) {
    let said =
        rfw.host.run("curl", &[&["-sS", "--max-time", "10", "--cacert", "ca.crt"], arguments].concat());
    (said.status, said.out + &said.err)
}

/// Sends one request to the local server and gives the response.
#[track_caller]
fn local(host: &Host, request: &str) -> Reply {
    let mut talk = host.connect(7390);
    talk.say(request.as_bytes());
    talk.reply()
}

/// Has a good request answered by HTTPS and tells how long it took.
#[track_caller]
fn time_of_a_request(rfw: &Rfw<'_>) -> Duration {
    let start = Instant::now();
    rfw.ok("GET", "/");
    start.elapsed()
}

/// Opens a TLS connection that stays open.
fn connect_tls(host: &Host) -> Talk {
    let arguments = ["s_client", "-quiet", "-verify_return_error", "-CAfile", "ca.crt", "-connect"];
    host.talk("openssl", &[&arguments[..], &["127.0.0.1:7393"]].concat())
}
