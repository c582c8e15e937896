use crate::config::clients::{Client, From};
use crate::config::file::{ClientAuth, Config, LocatedError, effective};
use crate::rule::SetUse;
use crate::rule::client_name::is_client_name;
use crate::rule::network::{Family, Network};
use crate::rule::whitelist::{WhiteList, WhiteListError};
use std::path::Path;

/// Input: a file `rfw.conf`.
pub(super) fn config_holds(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    let result = parse(text);
    // Comments and line ends of another system mean nothing, but for the numbers of lines.
    let commented: String = text.lines().map(|line| format!("\t{line}\r\n; x = y\r\n")).collect();
    match (&result, parse(&commented)) {
        (Ok(config), Ok(other)) => assert_eq!(print(config), print(&other)),
        (Err(error), Err(other)) => {
            let why = error.why.split(" in line ").next();
            assert_eq!(why, other.why.split(" in line ").next());
            assert_eq!(error.line.map(|line| 2 * line - 1), other.line);
            assert!(!error.why.contains(char::is_control), "{error}");
            assert!(error.line.is_none_or(|line| (1..=text.lines().count()).contains(&line)));
        }
        (_, other) => panic!("{result:?}, with comments {other:?}"),
    }
    let Ok(config) = result else { return };
    assert!(config.outward.is_some() || config.local.is_some());
    assert!(config.rules_max > 0 && config.connections_max > 0 && config.maxelem > 0);
    for client in config.clients.iter() {
        assert!(
            (1..=255).contains(&client.name.len()) && (client.line.is_none() || is_client_name(&client.name))
        );
        let told = client.secret.iter().all(|secret| format!("{secret:?}") == "Secret(…)");
        assert!(told, "the password is not told");
        assert!(
            client.rights.entries_max != Some(0)
                && client.rights.expire_max.is_none_or(|time| time.seconds() > 0)
        );
    }
    let printed = print(&config);
    assert_eq!(parse(&printed).map(|config| print(&config)).as_ref(), Ok(&printed));
    check_effective(&config);
}

fn parse(text: &str) -> Result<Config, LocatedError> {
    Config::parse(Path::new("rfw.conf"), text)
}

/// What `--check -v` prints has no passwords, and says the same once they are put in, unless it had to
/// escape something.
fn check_effective(config: &Config) {
    let text = effective::text(config);
    if !text.contains('\\') {
        let again = parse(&text.replace("; not shown", "x"));
        assert_eq!(again.map(|config| effective::text(&config)), Ok(text));
    }
}

/// A file that says the same; a value may begin with `;`, which behind a blank begins a comment.
fn print(config: &Config) -> String {
    let mut lines = vec!["[config]".to_owned()];
    if let Some(outward) = &config.outward {
        lines.push("outward.server".to_owned());
        lines.push(format!("outward.server.ip={}", outward.address.ip()));
        lines.push(format!("outward.server.port={}", outward.address.port()));
        lines.push(format!("outward.server.certfile={}", outward.certfile.value.display()));
        lines.push(format!("outward.server.keyfile={}", outward.keyfile.value.display()));
        if let ClientAuth::On { required, ca, crl } = &outward.client_auth {
            let mode = if *required { "required" } else { "optional" };
            lines.push(format!("outward.server.clientcert={mode}"));
            lines.push(format!("outward.server.clientca={}", ca.value.display()));
            lines.extend(crl.iter().map(|crl| format!("outward.server.clientcrl={}", crl.value.display())));
        }
    }
    if let Some(local) = &config.local {
        lines.push(format!("local.server\nlocal.server.port={}", local.address.port()));
        lines.extend(local.authentication.then(|| "local.server.authentication".to_owned()));
    }
    for client in config.clients.iter().filter(|client| client.line.is_none()) {
        // Of the password there is but the SHA-256.
        lines.push(format!("auth.username={}\nauth.password=x", client.name));
    }
    lines.extend(config.non_restful.then(|| "non.restful".to_owned()));
    let use_sets = match config.use_sets.value {
        SetUse::Off => "off",
        SetUse::On => "on",
        SetUse::Auto => "auto",
    };
    for (name, value) in [
        ("default.expire", config.default_expire.to_string()),
        ("whitelist.file", config.whitelist_file.value.display().to_string()),
        ("iptables.path", config.iptables.value.display().to_string()),
        ("ip6tables.path", config.ip6tables.value.display().to_string()),
        ("ipset", use_sets.to_owned()),
        ("ipset.path", config.ipset.value.display().to_string()),
        ("ipset.maxelem", config.maxelem.to_string()),
        ("rules.max", config.rules_max.to_string()),
        ("lists.max", config.lists_max.to_string()),
        ("connections.max", config.connections_max.to_string()),
        ("connections.max.source", config.connections_max_source.to_string()),
    ] {
        lines.push(format!("{name}={value}"));
    }
    let sections = config.clients.iter().filter(|client| client.line.is_some());
    sections.for_each(|client| lines.extend(section(client)));
    lines.join("\n") + "\n"
}

/// The section of a client.
fn section(client: &Client) -> Vec<String> {
    let mut lines = vec![format!("[client {}]", client.name)];
    let rights = &client.rights;
    lines.extend(client.secret.iter().map(|secret| format!("password.sha256={}", secret.digits())));
    lines.extend(rights.allow.iter().map(|grant| format!("allow={grant}")));
    lines.push(format!("lists={}\nread={}", rights.lists, rights.read.word()));
    lines.extend(rights.expire_max.map(|longest| format!("expire.max={longest}")));
    lines.extend(rights.mask_min.map(|shortest| format!("mask.min={shortest}")));
    lines.extend(rights.entries_max.map(|most| format!("entries.max={most}")));
    match &client.from {
        From::Listed => {}
        From::Any => lines.push("from=any".to_owned()),
        From::Of(networks) => {
            let words: Vec<String> = networks.iter().map(Network::to_string).collect();
            lines.push(format!("from={}", words.join(" ")));
        }
    }
    lines
}

/// Input: a file `white.list`.
pub(super) fn white_list_holds(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    let list = match WhiteList::parse(text) {
        Ok(list) => list,
        Err(error) => {
            assert!(error.line().is_none_or(|line| (1..=text.lines().count()).contains(&line)));
            assert!(!error.to_string().contains(char::is_control), "{error}");
            return;
        }
    };
    let (listed, never): (Vec<&Network>, Vec<&Network>) = (list.networks().collect(), list.never().collect());
    let clients = listed.iter().map(|network| format!("{network} # x\r\n"));
    let printed: String = never.iter().map(|network| format!("never\t{network}\n")).chain(clients).collect();
    // A range may have networks without an address of a client; as lines of their own they are refused.
    match WhiteList::parse(&printed) {
        Ok(again) => assert_eq!(again, list),
        Err(error) => assert!(matches!(error, WhiteListError::NoClient(..)) && text.contains('-'), "{error}"),
    }
    for network in listed.iter().chain(&never) {
        assert!(network.prefix() > 0 && !network.is_unspecified());
        assert!(list.overlap(network).is_some());
        let is_never = never.iter().any(|one| one.covers(&Network::host(network.addr())));
        assert_eq!(list.contains(network.addr()), !is_never && listed.iter().any(|one| one.covers(network)));
    }
    let merged: Vec<Network> =
        [Family::V4, Family::V6].into_iter().flat_map(|family| list.merged(family)).collect();
    check_merged(&merged);
    // Around each network, all of the list says the same as the networks one by one.
    let has = |networks: &[&Network], network: &Network| networks.iter().any(|one| one.overlaps(network));
    for network in listed.iter().chain(&never).take(50).flat_map(|network| around(network)) {
        let overlaps = has(&listed, &network) || has(&never, &network);
        assert_eq!(list.overlap(&network).is_some(), overlaps, "{network}");
        let admitted = has(&merged.iter().collect::<Vec<_>>(), &network);
        assert!(has(&listed, &network) || !admitted, "{network}");
        if network.is_host() {
            assert_eq!(admitted, has(&listed, &network) && !has(&never, &network), "{network}");
            assert_eq!(admitted, list.contains(network.addr()), "{network}");
        }
    }
}

/// Networks without overlap, in ascending order, none of them superfluous.
fn check_merged(merged: &[Network]) {
    assert!(!merged.is_empty() && merged.is_sorted());
    for pair in merged.windows(2) {
        assert!(!pair[0].overlaps(&pair[1]));
        assert!(pair[0].joined(&pair[1]).is_none_or(|whole| whole.prefix() == 0), "{pair:?}");
    }
}

/// A network, what it is a half of, and its neighbours.
fn around(network: &Network) -> Vec<Network> {
    let wider = network.prefix().checked_sub(1).and_then(|prefix| Network::new(network.addr(), prefix).ok());
    let bits = |addr| match addr {
        std::net::IpAddr::V4(addr) => u128::from(addr.to_bits()),
        std::net::IpAddr::V6(addr) => addr.to_bits(),
    };
    let next = |step: i8| {
        let bits = bits(network.addr()).checked_add_signed(step.into())?;
        let addr = match network.family() {
            Family::V4 => std::net::Ipv4Addr::from_bits(u32::try_from(bits).ok()?).into(),
            Family::V6 => std::net::Ipv6Addr::from_bits(bits).into(),
        };
        Some(Network::host(addr))
    };
    [Some(*network), wider, next(-1), next(1)].into_iter().flatten().collect()
}
