//! fail2ban, the real one, with an action of its own beside rfw: it inserts a jump at the head of INPUT.

use super::overlay::choose_variant;
use super::{REPAIR, Site, foreign, with_rules_and_with_sets};
use crate::fail2ban::Fail2ban;
use crate::host::{Host, until};

const JAIL: &str = "[app]\nenabled = true\nfilter = app\nlogpath = app.log\nbackend = polling\nusedns = no\n\
    maxretry = 1\nbantime = 10m\nbanaction = iptables-allports\n";

#[test]
fn fail2ban_bans_in_the_same_chain() {
    with_rules_and_with_sets(|iptables, option| {
        let host = Host::new();
        choose_variant(&host, iptables);
        let site = Site::open(&host, iptables, option);
        let mut fail2ban = Fail2ban::start(&host, JAIL);
        fail2ban.tell(&["set", "app", "banip", "192.0.2.66"]);
        let bans =
            || foreign(&host, iptables).iter().any(|rule| rule.contains("-A f2b-app -s 192.0.2.66/32 "));
        until(REPAIR, "fail2ban bans", bans);
        let others = foreign(&host, iptables);
        site.leaves_others_alone(&others, "fail2ban bans");
        fail2ban.stop();
        site.leaves_others_alone(&[], "fail2ban has ended");
        assert!(!fail2ban.log().contains("ERROR"), "{}", fail2ban.log());
    });
}
