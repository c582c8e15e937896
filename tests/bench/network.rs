//! A network of many servers on one machine, for the bench and for tests: a bridge, which is the machine
//! that asks, and behind it a network namespace for each server.
//!
//! It is made by a script, in a namespace whose `/run` is its own. All servers share a key and a certificate.

use std::fmt::Write as _;
use std::net::Ipv4Addr;

/// The address from which all servers are asked.
pub const ASKING: Ipv4Addr = Ipv4Addr::new(10, 77, 255, 254);

/// What has to come before rfw in a namespace: folders for its lock and its state that no other server sees.
pub const PREPARE: &str = r#"mount -t tmpfs tmpfs /run && mount -t tmpfs tmpfs /var/lib && exec "$0" "$@""#;

/// The name of a server and of its namespace, from `web1` on.
pub fn name(server: usize) -> String {
    format!("web{server}")
}

/// The address of a server.
pub fn address(server: usize) -> Ipv4Addr {
    let [.., high, low] = u32::try_from(server).unwrap().to_be_bytes();
    Ipv4Addr::new(10, 77, high, low)
}

/// The servers as a file of rfwctl has them.
pub fn servers(count: usize) -> String {
    (1..=count).map(|server| format!("{} https://{}:7393\n", name(server), address(server))).collect()
}

/// The script for `sh` that makes the network; `web1` is behind the port `web1` of the bridge.
pub fn script(count: usize) -> String {
    let mut script = format!(
        "set -e\nip link add bridge type bridge\nip link set bridge up\nip addr add {ASKING}/16 dev bridge\n"
    );
    let mut ports = String::new();
    for server in 1..=count {
        let name = name(server);
        writeln!(script, "ip netns add {name}").unwrap();
        write!(
            ports,
            "link add {name} type veth peer name eth0 netns {name}\nlink set {name} master bridge up\n"
        )
        .unwrap();
    }
    write!(script, "ip -batch - <<'.'\n{ports}.\n").unwrap();
    for server in 1..=count {
        let (name, address) = (name(server), address(server));
        write!(
            script,
            "ip -n {name} -batch - <<'.'\nlink set lo up\naddr add {address}/16 dev eth0\nlink set eth0 up\n.\n"
        )
        .unwrap();
    }
    script
}
