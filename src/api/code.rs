//! The codes of errors, for programs: words that stay the same while sentences get better. A code that is
//! told once keeps its meaning; rfw(8) and openapi.yaml list them.

use crate::api::address_list::ListError;
use crate::api::error::ApiError;
use crate::api::url::UrlError;
use crate::firewall::FirewallError;
use crate::http::message::HttpError;
use crate::rule::RuleError;
use crate::rule::network::NetworkError;

/// The code of an error of a request.
pub(super) fn of(error: &ApiError) -> &'static str {
    match error {
        ApiError::NotLoggedIn => "not_logged_in",
        ApiError::WrongCredentials => "wrong_credentials",
        ApiError::Certificate(_) => "unknown_certificate",
        ApiError::CertificateEnded => "certificate_ended",
        ApiError::From(..) | ApiError::Right(_) => "no_right",
        ApiError::RightsChanged(_) => "rights_changed",
        ApiError::TooManyTries(..) => "too_many_tries",
        ApiError::Misdirected(_) => "wrong_host",
        ApiError::Url(error) => of_url(error),
        ApiError::WebPage => "web_page",
        ApiError::Body => "unexpected_body",
        ApiError::Compressed(_) => "compressed_body",
        ApiError::List(error) => of_list(error),
        ApiError::WhiteListed(_) | ApiError::Overlaps(..) => "whitelisted",
        ApiError::Never(_) | ApiError::OverlapsNever(..) => "never",
        ApiError::WhiteListChanged => "whitelist_changed",
        ApiError::Listings(_) => "too_many_listings",
        ApiError::Ending => "ending",
        ApiError::Firewall(error) => of_firewall(error),
    }
}

/// The code of a request that can't be read.
pub(super) fn of_http(error: &HttpError) -> &'static str {
    match error {
        HttpError::Slow => "too_slow",
        HttpError::HeadTooLarge => "head_too_large",
        HttpError::Malformed(_) => "malformed",
        HttpError::Version => "bad_version",
        HttpError::Coding(_) => "bad_transfer_coding",
        HttpError::BodyTooLarge(_) => "body_too_large",
        HttpError::Tls(_) | HttpError::Io(_) => "broken",
    }
}

fn of_url(error: &UrlError) -> &'static str {
    match error {
        UrlError::Method { .. } => "method_not_allowed",
        UrlError::NonRestful { .. } => "non_restful_off",
        UrlError::Action(_) => "unknown_path",
        UrlError::Path(_) | UrlError::EmptySegment(_) | UrlError::Missing(..) | UrlError::TooMuch(_) => {
            "bad_path"
        }
        UrlError::Encoding(_) => "bad_encoding",
        UrlError::Chain(_) => "bad_chain",
        UrlError::Network(NetworkError::Address(_) | NetworkError::Range(_)) => "bad_address",
        UrlError::Network(NetworkError::Prefix(..) | NetworkError::Mapped(_)) => "bad_mask",
        UrlError::Rule(error) => of_rule(error),
        UrlError::Parameter(..) => "unknown_parameter",
        UrlError::Repeated(_) => "repeated_parameter",
        UrlError::Value(..) => "bad_parameter",
        UrlError::Misplaced(_) | UrlError::ModifyWithoutGet => "misplaced_parameter",
        UrlError::Expire(_) => "bad_expire",
        UrlError::List(_) => "bad_list",
        UrlError::Reason(_) => "bad_reason",
        UrlError::Nothing => "nothing_named",
    }
}

fn of_rule(error: &RuleError) -> &'static str {
    match error {
        RuleError::Name(_) => "bad_interface",
        RuleError::Mask(_) => "mask_too_wide",
        RuleError::Families(..) => "two_families",
        RuleError::Interface(_) | RuleError::Side(_) => "bad_path",
        RuleError::AnyToAny | RuleError::Unspecified(_) => "any_address",
    }
}

fn of_list(error: &ListError) -> &'static str {
    match error {
        ListError::Line(..) => "bad_line",
        ListError::Right(..) => "no_right",
        ListError::Empty => "no_address",
        ListError::Glued(error) => of_list(error),
        ListError::AllSkipped(_) => "all_skipped",
        ListError::Http(error) => of_http(error),
    }
}

fn of_firewall(error: &FirewallError) -> &'static str {
    match error {
        FirewallError::Right(_) => "no_right",
        FirewallError::TooLong(_) => "expire_too_long",
        FirewallError::TooManyLists(_) => "too_many_lists",
        FirewallError::NoFamily(_) => "no_family",
        error if error.is_temporary() => "busy",
        FirewallError::Full(_) => "list_full",
        FirewallError::TooManyRules(_) | FirewallError::TooManyEntries(..) => "too_many_rules",
        FirewallError::Program(_)
        | FirewallError::Ipset(_)
        | FirewallError::Set(..)
        | FirewallError::Emptied(_)
        | FirewallError::Counters(_)
        | FirewallError::Busy
        | FirewallError::NoSets
        | FirewallError::Random(_)
        | FirewallError::ForeignSet(_) => "kernel",
    }
}
