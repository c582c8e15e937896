//! Where the rules of a scope stand: the options `input.table` and `forward.chain`.

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

#[cfg(test)]
mod tests {
    use super::*;

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
