//! rfw - remote firewall: blocks and allows addresses on request over HTTPS.
//!
//! A request passes through the layers [`daemon`] (accept), [`http`] (message), [`api`]
//! (command), [`firewall`] (transaction) and [`kernel`] (iptables, ipset); [`rule`] has the
//! values that they share, and [`config`] the options.

mod api;
mod config;
mod daemon;
mod firewall;
#[cfg(test)]
#[path = "../tests/golden/read.rs"]
mod golden;
mod histogram;
mod http;
mod kernel;
mod log_limit;
mod logfmt;
#[cfg(test)]
#[path = "../tests/fuzz/properties/mod.rs"]
mod properties;
mod rule;
mod stop_signal;

use config::cli::{self, Call};
use daemon::check;
use daemon::failure::Failure;
use daemon::startup;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> =
        std::env::args_os().skip(1).map(|a| a.to_string_lossy().into_owned()).collect();
    let result = match cli::parse(&arguments) {
        Ok(Call::Print(text)) => startup::print(&text),
        Ok(Call::Check(arguments)) => check::run(&arguments),
        Ok(Call::Flush(arguments)) => startup::flush(&arguments),
        Ok(Call::Restore(arguments)) => startup::restore(&arguments),
        Ok(Call::Serve(arguments)) => startup::serve(&arguments),
        Err(why) => Err(Failure::Usage(why)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}
