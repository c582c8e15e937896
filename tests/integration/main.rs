//! rfw and what is shipped with it, driven from outside: real clients, real tools
//! and the real kernel, each test on a host of its own.

#![allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

#[path = "../bench/client.rs"]
mod client;
#[path = "../bench/crowd.rs"]
mod crowd;
#[path = "../golden/read.rs"]
mod golden;
mod host;
#[path = "../bench/network.rs"]
mod network;

mod confinement;
mod deb;
mod deletions;
mod demo;
mod documents;
mod dry_run;
mod expiry;
mod fail2ban;
mod faults;
mod feed;
mod fleet;
mod guard;
mod health;
mod install;
mod layout;
mod limits;
mod listing;
mod lists;
mod metrics;
mod named_lists;
mod neighbours;
mod openapi;
mod page;
mod readings;
mod release;
mod repair;
mod rfwctl;
mod rfwgen;
mod rights;
mod rules;
mod server;
mod sets;
mod start;
mod state;
mod week;
