//! What the files of firewalld say of a TCP port: firewalld.zone(5), firewalld.service(5) and
//! firewalld.conf(5). No I/O.
//!
//! Only tags and their attributes are looked at: who could write nonsense there is root.

/// The zone that firewalld.conf(5) names as that of interfaces without one.
pub(super) fn default_zone(conf: &str) -> &str {
    let mut values = conf.lines().filter_map(|line| line.trim().strip_prefix("DefaultZone="));
    values.next_back().map(str::trim).filter(|zone| is_name(zone)).unwrap_or("public")
}

/// Whether it is the name of a zone or service, and so of a file.
fn is_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
}

/// Whether a zone takes all packets that nothing says more of.
pub(super) fn accepts_all(zone: &str) -> bool {
    tags(zone, "zone").iter().any(|tag| attribute(tag, "target") == Some("ACCEPT"))
}

/// The services that a zone opens.
pub(super) fn services(zone: &str) -> Vec<&str> {
    let tags = tags(zone, "service");
    tags.into_iter().filter_map(|tag| attribute(tag, "name")).filter(|name| is_name(name)).collect()
}

/// Whether a zone or a service has a TCP port: by itself or in a range, in a rule or beside.
pub(super) fn has_port(text: &str, port: u16) -> bool {
    tags(text, "port").into_iter().any(|tag| {
        let is_tcp = attribute(tag, "protocol") == Some("tcp");
        is_tcp && attribute(tag, "port").is_some_and(|ports| is_in(ports, port))
    })
}

/// Whether a port is in `80` or `80-90`.
fn is_in(ports: &str, port: u16) -> bool {
    let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
    let end = |text: &str| text.trim().parse::<u16>();
    end(first).is_ok_and(|first| first <= port) && end(last).is_ok_and(|last| port <= last)
}

/// What stands in the tags of that name behind it, outside of comments.
fn tags<'a>(text: &'a str, name: &str) -> Vec<&'a str> {
    let (mut found, mut rest) = (Vec::new(), text);
    while let Some((_, tag)) = rest.split_once('<') {
        if let Some(comment) = tag.strip_prefix("!--") {
            rest = comment.split_once("-->").map_or("", |(_, rest)| rest);
            continue;
        }
        let (inside, behind) = tag.split_once('>').unwrap_or((tag, ""));
        if let Some(attributes) = inside.strip_prefix(name)
            && attributes.starts_with(|c: char| c.is_ascii_whitespace() || c == '/')
        {
            found.push(attributes);
        }
        rest = behind;
    }
    found
}

/// The value of an attribute.
fn attribute<'a>(tag: &'a str, name: &str) -> Option<&'a str> {
    let mut rest = tag;
    loop {
        let (key, value) = rest.split_once('=')?;
        let value = value.trim_start();
        let quote = value.chars().next().filter(|c| ['"', '\''].contains(c))?;
        let (value, behind) = value.get(1..)?.split_once(quote)?;
        if key.trim() == name {
            return Some(value);
        }
        rest = behind;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As firewall-cmd writes it.
    const ZONE: &str = "<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<zone>\n  <short>Public</short>\n  \
        <description>For use in public areas.</description>\n  <service name=\"ssh\"/>\n  \
        <!-- <port port=\"443\" protocol=\"tcp\"/> -->\n  <port port=\"7393\" protocol=\"tcp\"/>\n  \
        <port protocol='tcp' port = '8000-8010'/>\n  <port port=\"53\" protocol=\"udp\"/>\n  \
        <rule family=\"ipv4\">\n    <source address=\"10.0.0.0/8\"/>\n    \
        <port port=\"25\" protocol=\"tcp\"/>\n    <accept/>\n  </rule>\n  <forward/>\n</zone>\n";

    #[test]
    fn the_ports_of_a_zone_are_read() {
        for (port, expected) in [
            (7393, true),
            (7392, false),
            (8000, true),
            (8010, true),
            (8011, false),
            (53, false),
            (25, true),
            (443, false),
        ] {
            assert_eq!(has_port(ZONE, port), expected, "{port}");
        }
        assert_eq!(services(ZONE), ["ssh"]);
        for text in [
            "<port port=\"1-2-3\" protocol=\"tcp\"/>",
            "<port port=\"2",
            "<port",
            "<",
            "<ports port=\"2\" protocol=\"tcp\"/>",
        ] {
            assert!(!has_port(text, 2), "{text}");
        }
        assert!(services("<service name=\"../../etc/x\"/>").is_empty());
    }

    #[test]
    fn a_zone_may_take_all() {
        assert!(
            accepts_all("<zone target=\"ACCEPT\">") && accepts_all("<zone version=\"1\" target='ACCEPT'/>")
        );
        assert!(!accepts_all(ZONE) && !accepts_all("<zone target=\"DROP\">") && !accepts_all(""));
    }

    #[test]
    fn the_default_zone_is_that_of_the_configuration() {
        let golden = [
            ("", "public"),
            ("# DefaultZone=x\nDefaultZone=home\nCleanupOnExit=yes\n", "home"),
            ("DefaultZone= work \n", "work"),
            ("DefaultZone=../x\n", "public"),
        ];
        for (conf, expected) in golden {
            assert_eq!(default_zone(conf), expected, "{conf}");
        }
    }
}
