//! Whether packets that pass a bridge pass the table `raw` too (br_netfilter): with the option
//! `input.table`, what INPUT drops is dropped there as well.

use crate::rule::layout::{InputTable, Layout};
use std::fs;

/// The settings of br_netfilter, one for each family.
const SETTINGS: [&str; 2] = ["bridge-nf-call-iptables", "bridge-nf-call-ip6tables"];

/// What an administrator has to know of bridged packets, if what input drops stands in the table `raw`.
pub(crate) fn warning(layout: &Layout) -> Option<String> {
    warning_of(layout, |name| fs::read_to_string(format!("/proc/sys/net/bridge/{name}")).ok())
}

fn warning_of(layout: &Layout, read: impl Fn(&str) -> Option<String>) -> Option<String> {
    let is_on = |name: &&str| read(name).is_some_and(|value| value.trim() != "0");
    let on = SETTINGS.into_iter().find(is_on).filter(|_| layout.input == InputTable::Raw)?;
    Some(format!(
        "net.bridge.{on} is on, so that packets between the ports of a bridge pass the table raw: what input \
         drops is dropped there too, as between containers or virtual machines"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bridged_packets_are_told_of_where_they_pass_the_table() {
        let raw = Layout { input: InputTable::Raw, ..Layout::default() };
        let six = |name: &str| Some(if name.ends_with("ip6tables") { "1\n" } else { "0\n" }.to_owned());
        let told = warning_of(&raw, six).unwrap();
        assert!(told.starts_with("net.bridge.bridge-nf-call-ip6tables is on"), "{told}");
        assert_eq!(warning_of(&Layout::default(), six), None);
        assert_eq!(warning_of(&raw, |_| Some("0\n".to_owned())), None);
        assert_eq!(warning_of(&raw, |_| None), None);
    }
}
