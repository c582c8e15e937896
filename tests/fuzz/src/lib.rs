//! The sources of rfw as a library for the fuzz targets: rfw itself is a program only.

#![allow(dead_code, reason = "what is asked of the parsers is not all that the program asks")]

#[path = "../../../src/api/mod.rs"]
mod api;
#[path = "../../../src/config/mod.rs"]
mod config;
#[path = "../../../src/firewall/mod.rs"]
mod firewall;
#[path = "../../../src/http/mod.rs"]
mod http;
#[path = "../../../src/kernel/mod.rs"]
mod kernel;
#[path = "../../../src/log_limit.rs"]
mod log_limit;
#[path = "../../../src/logfmt.rs"]
mod logfmt;
#[path = "../properties/mod.rs"]
mod properties;
#[path = "../../../src/rule/mod.rs"]
mod rule;
#[path = "../../../src/stop_signal.rs"]
mod stop_signal;

/// Checks the property of that name on an input; panics where it does not hold.
pub fn check(name: &str, data: &[u8]) {
    let property = properties::ALL.into_iter().find(|(known, _)| *known == name);
    property.expect("a property of that name").1(data);
}
