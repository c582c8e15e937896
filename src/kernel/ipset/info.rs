//! What the kernel tells about a set itself.

use super::error::IpsetError;
use super::message::{
    IPSET_ATTR_BUCKETSIZE, IPSET_ATTR_CADT_FLAGS, IPSET_ATTR_DATA, IPSET_ATTR_ELEMENTS, IPSET_ATTR_FAMILY,
    IPSET_ATTR_HASHSIZE, IPSET_ATTR_INITVAL, IPSET_ATTR_MAXELEM, IPSET_ATTR_MEMSIZE, IPSET_ATTR_REFERENCES,
    IPSET_ATTR_REVISION, IPSET_ATTR_SETNAME, IPSET_ATTR_SIZE, IPSET_ATTR_TIMEOUT, IPSET_ATTR_TYPENAME,
    IPSET_FLAG_WITH_COMMENT, IPSET_FLAG_WITH_COUNTERS, SetType,
};
use crate::kernel::netlink::Attributes;

/// A set as `IPSET_CMD_HEADER` tells it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Header {
    /// Its name.
    pub name: String,
    /// Its type, if rfw makes such sets.
    pub set_type: Option<SetType>,
    /// The revision of its type.
    pub revision: u8,
}

/// A set as a listing without entries tells it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct SetInfo {
    /// Name, type and revision.
    pub header: Header,
    /// The most entries.
    pub maxelem: u32,
    /// The number of entries whose time is not over.
    pub elements: u32,
    /// How many rules and lists refer to it.
    pub references: u32,
    /// What it takes, in bytes.
    pub memory: u32,
    /// The timeout of entries that are added without one, where there are timeouts.
    pub timeout: Option<u32>,
    /// Whether entries have counters.
    pub counters: bool,
    /// Whether entries may have comments.
    pub comments: bool,
    /// Whether it has anything that rfw's own do not have, such as `forceadd`, `skbinfo`
    /// or a netmask.
    pub other: bool,
}

/// Reads what is about a set itself in an answer to `IPSET_CMD_HEADER` or
/// `IPSET_CMD_LIST`.
pub(super) fn read_info(attributes: Attributes<'_>) -> Result<SetInfo, IpsetError> {
    let mut info = SetInfo::default();
    let (mut type_name, mut nfproto) = (&[][..], 0);
    for attribute in attributes {
        let attribute = attribute?;
        match attribute.kind {
            IPSET_ATTR_SETNAME => info.header.name = text(attribute.string()?),
            IPSET_ATTR_TYPENAME => type_name = attribute.string()?,
            IPSET_ATTR_FAMILY => nfproto = attribute.u8()?,
            IPSET_ATTR_REVISION => info.header.revision = attribute.u8()?,
            IPSET_ATTR_DATA => read_definition(attribute.nested(), &mut info)?,
            _ => {}
        }
    }
    info.header.set_type = SetType::from_kernel(type_name, nfproto);
    Ok(info)
}

fn read_definition(attributes: Attributes<'_>, info: &mut SetInfo) -> Result<(), IpsetError> {
    for attribute in attributes {
        let attribute = attribute?;
        match attribute.kind {
            IPSET_ATTR_MAXELEM | IPSET_ATTR_SIZE => info.maxelem = attribute.u32_be()?,
            IPSET_ATTR_ELEMENTS => info.elements = attribute.u32_be()?,
            IPSET_ATTR_REFERENCES => info.references = attribute.u32_be()?,
            IPSET_ATTR_MEMSIZE => info.memory = attribute.u32_be()?,
            IPSET_ATTR_TIMEOUT => info.timeout = Some(attribute.u32_be()?),
            IPSET_ATTR_CADT_FLAGS => {
                let flags = attribute.u32_be()?;
                info.counters = flags & IPSET_FLAG_WITH_COUNTERS != 0;
                info.comments = flags & IPSET_FLAG_WITH_COMMENT != 0;
                info.other |= flags & !(IPSET_FLAG_WITH_COUNTERS | IPSET_FLAG_WITH_COMMENT) != 0;
            }
            // How the kernel lays out its table.
            IPSET_ATTR_HASHSIZE | IPSET_ATTR_BUCKETSIZE | IPSET_ATTR_INITVAL => {}
            _ => info.other = true,
        }
    }
    Ok(())
}

/// Text of the kernel, which need not be UTF-8.
fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
