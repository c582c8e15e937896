//! Where the rules of a scope stand: the options `input.table` and `forward.chain`.

use crate::rule::{Chain, Scope, Target};
use std::fmt;
use std::str::FromStr;

/// The table that holds what drops packets to this host (`input.table`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) enum InputTable {
    /// INPUT of the table `filter`, behind the rules of the host and connection tracking.
    #[default]
    Filter,
    /// A chain of rfw's own that PREROUTING of the table `raw` jumps to: it sees each packet that is
    /// received, those that are forwarded too, before connection tracking and address translation.
    Raw,
}

/// The name of a chain of the table `filter` that another program may make.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ChainName(String);

/// The longest name of a chain in bytes: `XT_EXTENSION_MAXNAMELEN` of linux/netfilter/x_tables.h without
/// the NUL, which iptables(8) takes.
const CHAIN_MAX: usize = 28;

impl ChainName {
    /// The chain that is always there.
    pub(crate) fn forward() -> ChainName {
        ChainName("FORWARD".to_owned())
    }

    /// Whether it is the chain that is always there.
    pub(crate) fn is_builtin(&self) -> bool {
        self.0 == "FORWARD"
    }

    /// The name.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// The text is no name of a chain that packets which are forwarded may pass.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{}\" is not the name of a chain", .0.escape_debug())]
pub(crate) struct ChainNameError(String);

impl FromStr for ChainName {
    type Err = ChainNameError;

    fn from_str(text: &str) -> Result<ChainName, ChainNameError> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
        // Not those that other packets pass, nor what stands for a target.
        let reserved = ["INPUT", "OUTPUT", "PREROUTING", "POSTROUTING", "ACCEPT", "DROP", "REJECT", "RETURN"];
        let is_name = (1..=CHAIN_MAX).contains(&text.len())
            && !text.starts_with('-')
            && !reserved.contains(&text)
            && text.bytes().all(allowed);
        if is_name { Ok(ChainName(text.to_owned())) } else { Err(ChainNameError(text.to_owned())) }
    }
}

impl fmt::Display for ChainName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where the rules of each chain stand.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Layout {
    /// Those of `input` that drop.
    pub input: InputTable,
    /// Those of `forward`.
    pub forward: ChainName,
}

impl Default for Layout {
    fn default() -> Layout {
        Layout { input: InputTable::default(), forward: ChainName::forward() }
    }
}

/// A table of the kernel that holds rules of rfw.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum TableName {
    /// `filter`.
    Filter,
    /// `raw`, with `input.table = raw`.
    Raw,
}

impl TableName {
    /// The name in iptables' spelling.
    pub(crate) fn name(self) -> &'static str {
        match self {
            TableName::Filter => "filter",
            TableName::Raw => "raw",
        }
    }
}

/// The chain of rfw in the table `raw`.
pub(crate) const RAW_CHAIN: &str = "RFW";

/// A chain of the kernel that rules of rfw stand in.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum KernelChain {
    /// INPUT of the table `filter`.
    Input,
    /// FORWARD of the table `filter`, or the chain of `forward.chain`.
    Forward(ChainName),
    /// OUTPUT of the table `filter`.
    Output,
    /// The chain of rfw in the table `raw`.
    Raw,
    /// PREROUTING of the table `raw`, which jumps to that.
    Prerouting,
}

impl KernelChain {
    /// The chain of that name; `None` if no rule of rfw stands in one of that name.
    pub(crate) fn named(table: TableName, name: &str) -> Option<KernelChain> {
        match (table, name) {
            (TableName::Filter, "INPUT") => Some(KernelChain::Input),
            (TableName::Filter, "OUTPUT") => Some(KernelChain::Output),
            (TableName::Filter, name) => name.parse().ok().map(KernelChain::Forward),
            (TableName::Raw, RAW_CHAIN) => Some(KernelChain::Raw),
            (TableName::Raw, "PREROUTING") => Some(KernelChain::Prerouting),
            (TableName::Raw, _) => None,
        }
    }

    /// The name in its table.
    pub(crate) fn name(&self) -> &str {
        match self {
            KernelChain::Input => "INPUT",
            KernelChain::Forward(name) => name.as_str(),
            KernelChain::Output => "OUTPUT",
            KernelChain::Raw => RAW_CHAIN,
            KernelChain::Prerouting => "PREROUTING",
        }
    }

    /// Its table.
    pub(crate) fn table(&self) -> TableName {
        match self {
            KernelChain::Input | KernelChain::Forward(_) | KernelChain::Output => TableName::Filter,
            KernelChain::Raw | KernelChain::Prerouting => TableName::Raw,
        }
    }
}

impl fmt::Display for KernelChain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KernelChain::Raw => f.write_str("RFW of the table raw"),
            KernelChain::Prerouting => f.write_str("PREROUTING of the table raw"),
            KernelChain::Input | KernelChain::Forward(_) | KernelChain::Output => f.write_str(self.name()),
        }
    }
}

impl Layout {
    /// The chain that the rules of a scope stand in: of an input accept that of its ACCEPT.
    pub(crate) fn chain(&self, scope: &Scope) -> KernelChain {
        match scope.chain() {
            Chain::Input if self.is_raw() && scope.target() == Target::Drop => KernelChain::Raw,
            Chain::Input => KernelChain::Input,
            Chain::Forward => KernelChain::Forward(self.forward.clone()),
            Chain::Output => KernelChain::Output,
        }
    }

    /// Whether rules of a scope stand in the table `raw` as exceptions too, as RETURN.
    pub(crate) fn has_exception(&self, scope: &Scope) -> bool {
        self.is_raw() && (scope.chain(), scope.target()) == (Chain::Input, Target::Accept)
    }

    /// Whether rules of a scope have a rule in the table `raw`.
    pub(crate) fn is_in_raw(&self, scope: &Scope) -> bool {
        self.is_raw() && scope.chain() == Chain::Input && scope.target() != Target::Reject
    }

    /// The chains that the rules of a chain stand in.
    pub(crate) fn chains(&self, chain: Chain) -> Vec<KernelChain> {
        match chain {
            Chain::Input if self.is_raw() => vec![KernelChain::Input, KernelChain::Raw],
            Chain::Input => vec![KernelChain::Input],
            Chain::Forward => vec![KernelChain::Forward(self.forward.clone())],
            Chain::Output => vec![KernelChain::Output],
        }
    }

    fn is_raw(&self) -> bool {
        self.input == InputTable::Raw
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::rule_of;

    #[test]
    fn rules_stand_where_the_options_say() {
        let raw = Layout { input: InputTable::Raw, forward: "DOCKER-USER".parse().unwrap() };
        for (path, by_default, with_raw, in_raw) in [
            ("/drop/input/any/1.2.3.4", "INPUT", "RFW of the table raw", true),
            ("/accept/input/any/1.2.3.4", "INPUT", "INPUT", true),
            ("/reject/input/any/1.2.3.4", "INPUT", "INPUT", false),
            ("/drop/output/any/1.2.3.4", "OUTPUT", "OUTPUT", false),
            ("/drop/forward/any/1.2.3.4", "FORWARD", "DOCKER-USER", false),
        ] {
            let (rule, filter) = (rule_of(path), Layout::default());
            let scope = rule.scope();
            assert_eq!(filter.chain(scope).to_string(), by_default, "{path}");
            assert_eq!(raw.chain(scope).to_string(), with_raw, "{path}");
            assert_eq!((raw.is_in_raw(scope), filter.is_in_raw(scope)), (in_raw, false), "{path}");
            assert_eq!(raw.has_exception(scope), path.starts_with("/accept/input"), "{path}");
            let chain = raw.chain(scope);
            assert_eq!(KernelChain::named(chain.table(), chain.name()), Some(chain), "{path}");
        }
    }

    #[test]
    fn a_chain_has_a_name_that_iptables_takes() {
        for (text, expected) in [
            ("FORWARD", true),
            ("DOCKER-USER", true),
            ("a.b_c", true),
            ("abcdefghijklmnopqrstuvwxyz12", true),
            ("abcdefghijklmnopqrstuvwxyz123", false),
            ("", false),
            ("-j", false),
            ("DOCKER USER", false),
            ("INPUT", false),
            ("DROP", false),
            ("x\n", false),
        ] {
            assert_eq!(text.parse::<ChainName>().is_ok(), expected, "{text:?}");
        }
    }
}
