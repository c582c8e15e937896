//! rfw - remote firewall: blocks and allows addresses on request over HTTPS.
//!
//! One way through the code: bytes ([`http`]), request ([`api`]), command
//! ([`command`]), firewall ([`firewall`]), kernel ([`tool`]).

mod api;
mod body;
mod cli;
mod command;
mod config;
mod connection;
mod files;
mod firewall;
mod generation;
mod http;
mod instance;
mod ipset;
mod iptables;
mod lease;
mod limit;
mod list;
mod listing;
mod net;
mod resident;
mod rule;
mod server;
mod sets;
mod signals;
mod start;
mod sweeper;
mod table;
mod tls;
mod tool;
mod whitelist;

use cli::Call;
use start::Failure;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> =
        std::env::args_os().skip(1).map(|a| a.to_string_lossy().into_owned()).collect();
    let done = match cli::parse(&arguments) {
        Ok(Call::Print(text)) => start::print(&text),
        Ok(Call::Check(arguments)) => start::check(&arguments),
        Ok(Call::Flush(arguments)) => start::flush(&arguments),
        Ok(Call::Serve(arguments)) => start::serve(&arguments),
        Err(why) => Err(Failure::Usage(why)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}
