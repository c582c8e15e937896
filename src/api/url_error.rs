//! Why a method or a request target is refused.

use crate::rule::RuleError;
use crate::rule::lease::IntervalError;
use crate::rule::list_name::ListNameError;
use crate::rule::network::NetworkError;
use crate::rule::note::ReasonError;

/// Error in a method or a request target.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UrlError {
    /// The method is not allowed for this path.
    #[error("this path takes {allow} only")]
    Method {
        /// The allowed methods, as a value of `Allow` (RFC 9110, 10.2.1).
        allow: &'static str,
    },
    /// A GET that is to change rules, where none may.
    #[error(
        "this path takes {allow} only: a GET with the parameter \"modify\" is for non.restful in rfw.conf"
    )]
    NonRestful {
        /// The allowed methods.
        allow: &'static str,
    },
    /// A path that does not begin with a slash.
    #[error("the path \"{}\" does not begin with /", .0.escape_debug())]
    Path(String),
    /// The path has an empty segment.
    #[error("the path \"{}\" has an empty part", .0.escape_debug())]
    EmptySegment(String),
    /// Invalid percent-encoding, or octets that are not UTF-8.
    #[error("\"{}\" is not percent-encoded UTF-8", .0.escape_debug())]
    Encoding(String),
    /// The first segment is neither a target nor a path that is read.
    #[error("\"{}\" is not an action: expected drop, accept, reject, list, lists, changes, health or metrics", .0.escape_debug())]
    Action(String),
    /// Not a chain.
    #[error("\"{}\" is not a chain: expected input, output or forward", .0.escape_debug())]
    Chain(String),
    /// Not an address or a mask.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// An interface or an address that is not valid in a rule.
    #[error(transparent)]
    Rule(#[from] RuleError),
    /// A segment is missing: the path, and what is expected.
    #[error("the path \"{path}\" ends too early: expected {1}", path = .0.escape_debug())]
    Missing(String, &'static str),
    /// A surplus segment.
    #[error("\"{}\" is too much: expected the end of the path", .0.escape_debug())]
    TooMuch(String),
    /// An unknown parameter, and the known ones.
    #[error("unknown parameter \"{}\": expected {}", .0.escape_debug(), listed(.1))]
    Parameter(String, &'static [&'static str]),
    /// A repeated parameter.
    #[error("the parameter \"{}\" is given twice", .0.escape_debug())]
    Repeated(String),
    /// A parameter, its invalid value, and what is expected.
    #[error("{0}: \"{value}\" is wrong: expected {2}", value = .1.escape_debug())]
    Value(&'static str, String, &'static str),
    /// An invalid `expire`.
    #[error("expire: {0}")]
    Expire(IntervalError),
    /// An invalid `list`.
    #[error("list: {0}")]
    List(#[from] ListNameError),
    /// An invalid `reason`.
    #[error("reason: {0}")]
    Reason(#[from] ReasonError),
    /// A parameter of lists of addresses, with another request.
    #[error(
        "the parameter \"{0}\" goes with the PUT of a list of addresses only, whose path ends with the interface"
    )]
    Misplaced(&'static str),
    /// A DELETE of lists that says nothing of what.
    #[error("nothing is named: expected list=NAME, list=* for all lists, or address=ADDRESS")]
    Nothing,
    /// The parameter `modify` with a method other than GET or HEAD.
    #[error("the parameter \"modify\" goes with GET only")]
    ModifyWithoutGet,
}

/// Parameter names for an error message.
fn listed(names: &[&str]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}
