//! CrowdSec, the real one (1.4.6 of Debian 12): `rfwctl feed` takes what `cscli decisions list -o raw` prints.

use super::overlay::{Daemon, lay_over};
use crate::feed::{SHELLS, rfwctl, started};
use crate::host::{Host, SOON, until};

/// Its local API alone, with a database of its own and nothing to watch.
const CONFIG: &str = "\
common: {daemonize: false, log_media: stdout, log_level: info}
config_paths:
  config_dir: .
  data_dir: .
  simulation_path: /etc/crowdsec/simulation.yaml
  hub_dir: /usr/share/crowdsec/hub
  index_path: /usr/share/crowdsec/hub/.index.json
crowdsec_service: {enable: false}
db_config: {type: sqlite, db_path: crowdsec.db}
api:
  client: {credentials_path: credentials.yaml}
  server: {listen_uri: '127.0.0.1:8080', profiles_path: /etc/crowdsec/profiles.yaml}
prometheus: {enabled: false}
";

#[test]
fn decisions_of_crowdsec_are_a_list_of_rfw() {
    let host = Host::new();
    lay_over(&host, "iptables-nft", "crowdsec");
    host.write("crowdsec.yaml", 0o600, CONFIG);
    host.write("credentials.yaml", 0o600, "");
    let cscli = |words: &[&str]| host.run("cscli", &[&["-c", "crowdsec.yaml"], words].concat());
    cscli(&["machines", "add", "test", "--password", "secret", "-f", "credentials.yaml"]).ok();
    let _crowdsec = Daemon::start(&host, "crowdsec", "crowdsec", &["-c", "crowdsec.yaml", "-no-cs"]);
    until(SOON, "CrowdSec answers", || cscli(&["lapi", "status"]).status == Some(0));
    let rfw = started(&host, "iptables-nft", "");

    cscli(&["decisions", "add", "--ip", "44.33.22.11", "--reason", "ssh \"brute\" force, twice"]).ok();
    cscli(&["decisions", "add", "--range", "44.33.21.0/24", "--reason", "scan"]).ok();
    cscli(&["decisions", "add", "--ip", "2001:470::7"]).ok();
    cscli(&["decisions", "add", "--ip", "44.33.22.12", "--type", "captcha"]).ok();
    let list = || cscli(&["decisions", "list", "-o", "raw", "-a", "--limit", "0"]).ok();
    let said = rfwctl(&host, SHELLS[0], "feed crowdsec - --replace -t 1h --min 0", &list());
    assert_eq!(said.err, "rfwctl: standard input: 1 of the decisions left out: captcha\n");
    assert!(said.ok().starts_with("one: crowdsec: 3 inserted, 0 refreshed, 0 removed, until "));
    let rows = rfw.ok("GET", "/list?list=crowdsec");
    let reason = |address: &str| {
        let row = rows.as_array().unwrap().iter().find(|row| row["source"] == address);
        row.unwrap_or_else(|| panic!("no {address} in {rows}"))["reason"].clone()
    };
    assert_eq!(reason("44.33.22.11"), "ssh 'brute' force, twice");
    assert_eq!(reason("44.33.21.0/24"), "scan");
    assert!(reason("2001:470::7").as_str().unwrap().starts_with("manual 'ban' from "));
    let kept = host.kept("iptables-nft");
    assert!(kept.contains(&"-A INPUT -s 44.33.21.0/24 -j DROP".to_owned()), "{kept:?}");

    // What CrowdSec lifts goes with the next feed, and so does the last of all.
    cscli(&["decisions", "delete", "--ip", "44.33.22.11"]).ok();
    let said = rfwctl(&host, SHELLS[1], "feed crowdsec - --replace -t 1h --min 0", &list()).ok();
    assert!(said.starts_with("one: crowdsec: 0 inserted, 2 refreshed, 1 removed, until "), "{said}");
    cscli(&["decisions", "delete", "--all"]).ok();
    let said = rfwctl(&host, SHELLS[1], "feed crowdsec - --replace -t 1h --min 0", &list()).ok();
    assert_eq!(said, "one: crowdsec: 2 removed\n");
    assert_eq!(host.kept("iptables-nft"), Vec::<String>::new());
}
