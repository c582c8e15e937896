//! What holds of the parsers for every input. libFuzzer looks for inputs for which it does not
//! (`make fuzz`), and `make test` goes through those in `tests/fuzz/corpus`.
//!
//! What comes from outside is read without a panic, within its bounds, in pieces as in one; and
//! what was read is printed, where rfw prints it, so that it is read as itself.

mod body;
mod certificate;
mod conversation;
mod files;
mod head;
mod input;
mod label;
mod list;
mod netlink;
#[cfg(test)]
mod replay;
mod save;
mod state;
mod url;

pub(crate) use input::Input;

/// A property: it panics where it does not hold.
type Property = fn(&[u8]);

/// All properties, by the names of their fuzz targets.
pub(crate) const ALL: [(&str, Property); 13] = [
    ("head", head::holds),
    ("body", body::holds),
    ("conversation", conversation::holds),
    ("url", url::holds),
    ("list", list::holds),
    ("config", files::config_holds),
    ("whitelist", files::white_list_holds),
    ("save", save::holds),
    ("netlink", netlink::holds),
    ("sets", crate::kernel::ipset::properties::holds),
    ("label", label::holds),
    ("state", state::holds),
    ("certificate", certificate::holds),
];
