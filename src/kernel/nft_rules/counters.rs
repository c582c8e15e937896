//! What the rules of a chain of nf_tables have counted: one listing by netlink, where iptables-nft-save would be a
//! process for each table. Of each rule it reads the counter, the comment and the target, as iptables-nft writes
//! them: expressions `counter`, `match` of the name `comment`, and `immediate` or `target`.

use super::{DeletionError, NftRules, handle_in};
use crate::kernel::Counters;
use crate::kernel::netlink::{Attribute, Attributes, Malformed, Message};
use crate::rule::Target;
use crate::rule::network::Family;

/// `NFTA_RULE_EXPRESSIONS`.
const RULE_EXPRESSIONS: u16 = 4;
/// `NFTA_EXPR_NAME` and `NFTA_EXPR_DATA`, of each element of a list of them.
const EXPR_NAME: u16 = 1;
const EXPR_DATA: u16 = 2;
/// `NFTA_COUNTER_BYTES` and `NFTA_COUNTER_PACKETS`.
const COUNTER_BYTES: u16 = 1;
const COUNTER_PACKETS: u16 = 2;
/// `NFTA_MATCH_NAME` and `NFTA_MATCH_INFO`; the numbers of `NFTA_TARGET_NAME` are the same.
const MATCH_NAME: u16 = 1;
const MATCH_INFO: u16 = 3;
/// `NFTA_IMMEDIATE_DATA`, `NFTA_DATA_VERDICT` and `NFTA_VERDICT_CODE`.
const IMMEDIATE_DATA: u16 = 2;
const DATA_VERDICT: u16 = 2;
const VERDICT_CODE: u16 = 1;
/// `NF_DROP` and `NF_ACCEPT` (linux/netfilter.h).
const NF_DROP: u32 = 0;
const NF_ACCEPT: u32 = 1;

/// A rule with a comment and a counter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Counted {
    /// Its handle, by which its table tells it from others.
    pub handle: u64,
    /// Its comment.
    pub comment: String,
    /// Its target, if that is one that rfw has.
    pub target: Option<Target>,
    /// What it has counted.
    pub counters: Counters,
}

impl NftRules {
    /// The rules of a chain that have comments, in their order; none where there is no such chain.
    ///
    /// # Errors
    /// The kernel does not list them, or others change the ruleset meanwhile.
    pub(crate) fn counted(
        &mut self,
        family: Family,
        table: &str,
        chain: &str,
    ) -> Result<Vec<Counted>, DeletionError> {
        let mut all = Vec::new();
        self.list(family, table, chain, |message| {
            if let Some(handle) = handle_in(message, table, chain)? {
                all.extend(read(message, handle)?);
            }
            Ok(())
        })?;
        Ok(all)
    }
}

/// A rule in a listing; nothing if it has no comment.
fn read(message: &Message<'_>, handle: u64) -> Result<Option<Counted>, Malformed> {
    let (mut comment, mut target, mut counters) = (None, None, Counters::default());
    for attribute in message.attributes()? {
        let attribute = attribute?;
        if attribute.kind != RULE_EXPRESSIONS {
            continue;
        }
        for expression in attribute.nested() {
            let (name, data) = expression_of(expression?.nested())?;
            match name {
                b"counter" => counters = counters_of(data)?,
                b"match" => comment = comment_of(data)?.or(comment),
                b"immediate" => target = verdict_of(data)?.or(target),
                b"target" => target = target_of(data)?.or(target),
                _ => {}
            }
        }
    }
    Ok(comment.map(|comment| Counted { handle, comment, target, counters }))
}

/// Name and attributes of an expression.
fn expression_of<'a>(attributes: Attributes<'a>) -> Result<(&'a [u8], Attributes<'a>), Malformed> {
    let (mut name, mut data): (&[u8], _) = (&[], Attributes::default());
    for attribute in attributes {
        let attribute = attribute?;
        match attribute.kind {
            EXPR_NAME => name = attribute.string()?,
            EXPR_DATA => data = attribute.nested(),
            _ => {}
        }
    }
    Ok((name, data))
}

fn counters_of(attributes: Attributes<'_>) -> Result<Counters, Malformed> {
    let mut counters = Counters::default();
    for attribute in attributes {
        let attribute = attribute?;
        match attribute.kind {
            COUNTER_BYTES => counters.bytes = attribute.u64_be()?,
            COUNTER_PACKETS => counters.packets = attribute.u64_be()?,
            _ => {}
        }
    }
    Ok(counters)
}

/// The text of a `match` that is a comment: `struct xt_comment_info`, which ends with NULs.
fn comment_of(attributes: Attributes<'_>) -> Result<Option<String>, Malformed> {
    let (mut is_comment, mut text) = (false, None);
    for attribute in attributes {
        let attribute = attribute?;
        match attribute.kind {
            MATCH_NAME => is_comment = attribute.string()? == b"comment",
            MATCH_INFO => text = attribute.bytes().split(|byte| *byte == 0).next(),
            _ => {}
        }
    }
    Ok(text.filter(|_| is_comment).map(|text| String::from_utf8_lossy(text).into_owned()))
}

fn verdict_of(attributes: Attributes<'_>) -> Result<Option<Target>, Malformed> {
    let data = found(attributes, IMMEDIATE_DATA).map(|data| data.nested());
    let verdict = data.and_then(|data| found(data, DATA_VERDICT)).map(|verdict| verdict.nested());
    let Some(code) = verdict.and_then(|verdict| found(verdict, VERDICT_CODE)) else { return Ok(None) };
    Ok(match code.u32_be()? {
        NF_DROP => Some(Target::Drop),
        NF_ACCEPT => Some(Target::Accept),
        _ => None,
    })
}

/// The attribute of a kind.
fn found<'a>(mut attributes: Attributes<'a>, kind: u16) -> Option<Attribute<'a>> {
    attributes.find_map(|attribute| attribute.ok().filter(|attribute| attribute.kind == kind))
}

fn target_of(attributes: Attributes<'_>) -> Result<Option<Target>, Malformed> {
    for attribute in attributes {
        let attribute = attribute?;
        if attribute.kind == MATCH_NAME && attribute.string()? == b"REJECT" {
            return Ok(Some(Target::Reject));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::alone::{alone, program};
    use std::process::Command as Process;

    /// The rules are those of the real iptables-nft, and the packets pass through the real kernel.
    #[test]
    fn a_chain_tells_what_its_rules_have_counted() {
        alone("kernel::nft_rules::counters::tests::a_chain_tells_what_its_rules_have_counted", || {
            program("ip link set lo up");
            for (family, iptables, address) in
                [(Family::V4, "iptables-nft", "127.0.0.1"), (Family::V6, "ip6tables-nft", "::1")]
            {
                for (comment, target) in [
                    ("rfw permanent list tor", "DROP"),
                    ("rfw set", "REJECT"),
                    ("rfw until 2036-11-22T10:05:00Z", "ACCEPT"),
                    ("of others", "RETURN"),
                ] {
                    let rule = ["-I", "OUTPUT", "-d", address, "-m", "comment", "--comment", comment, "-j"];
                    let output = Process::new(iptables).args(rule).arg(target).output().unwrap();
                    assert!(output.status.success(), "{output:?}");
                }
                program(&format!("{iptables} -A OUTPUT -d {address} -j RETURN"));
                let ping =
                    Process::new("ping").args(["-c", "1", "-W", "1", "-s", "72", address]).output().unwrap();
                assert!(ping.status.success(), "{ping:?}");
                let mut rules = NftRules::default();
                let all = rules.counted(family, "filter", "OUTPUT").unwrap();
                let told: Vec<(&str, Option<Target>, bool)> = all
                    .iter()
                    .map(|rule| (rule.comment.as_str(), rule.target, rule.counters.packets > 0))
                    .collect();
                // The first rule counts each packet, and none goes on behind it.
                assert_eq!(
                    told,
                    [
                        ("of others", None, true),
                        ("rfw until 2036-11-22T10:05:00Z", Some(Target::Accept), false),
                        ("rfw set", Some(Target::Reject), false),
                        ("rfw permanent list tor", Some(Target::Drop), false),
                    ]
                );
                let Counters { packets, bytes } = all[0].counters;
                assert!(packets >= 2 && bytes >= packets * 80, "{all:?}");
                assert_eq!(rules.counted(family, "filter", "NONE").unwrap(), []);
                assert_eq!(rules.counted(family, "none", "OUTPUT").unwrap(), []);
            }
        });
    }
}
