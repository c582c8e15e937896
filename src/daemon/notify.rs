//! What rfw tells the service manager, by the protocol of sd_notify(3) and sd_watchdog_enabled(3): that it
//! is ready, reloads or ends; that its loop goes round; and in one line what it holds.
//!
//! Each message is a datagram that is sent without waiting. Where there is no room for one, which says what
//! state rfw is in, it is sent later. The socket is opened and connected at the start, before rfw gives up its
//! rights, and again where the service manager has another one of that name.

use crate::log_limit::LogLimit;
use rustix::time::{ClockId, clock_gettime};
use std::env;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

/// Time until what the service manager has had no room for is sent again.
const RETRY: Duration = Duration::from_secs(1);

/// Minimum time between two lines of what rfw holds; and as a multiple of what counting took.
const STATUS_INTERVAL: Duration = Duration::from_secs(5);
const STATUS_COST: u32 = 1_000;

/// Time after which entries are counted though no client has changed any: they end by themselves.
const STATUS_REFRESH: Duration = Duration::from_secs(60);

/// Time until they are counted again where the firewall was being changed.
const STATUS_RETRY: Duration = Duration::from_secs(1);

/// What the service manager says of itself in the environment.
#[derive(Debug, Default)]
pub(super) struct Manager {
    /// `NOTIFY_SOCKET`: a path, or a name behind `@`.
    socket: Option<OsString>,
    /// `WATCHDOG_USEC`: the time without a sign of life after which rfw is started again.
    watchdog: Option<OsString>,
    /// `WATCHDOG_PID`: the process that is meant.
    watched: Option<OsString>,
}

impl Manager {
    /// The one that has started this process.
    pub(super) fn of_environment() -> Manager {
        Manager {
            socket: env::var_os("NOTIFY_SOCKET"),
            watchdog: env::var_os("WATCHDOG_USEC"),
            watched: env::var_os("WATCHDOG_PID"),
        }
    }

    /// The time of the watchdog, if there is one for this process.
    fn watchdog_time(&self, process: u32) -> Option<Duration> {
        let number = |text: &OsStr| text.to_str().and_then(|text| text.parse::<u64>().ok());
        let is_meant = self.watched.as_ref().is_none_or(|watched| number(watched) == Some(process.into()));
        let micros = self.watchdog.as_deref().and_then(number).filter(|micros| *micros > 0 && is_meant);
        micros.map(Duration::from_micros)
    }
}

/// What tells the service manager; without one it does nothing.
pub(super) struct Notifier {
    channel: Option<UnixDatagram>,
    /// The name of the socket of the service manager.
    name: OsString,
    /// The last message about the state of rfw, until it is sent.
    unsent: Option<String>,
    /// Until when there is no room for messages.
    full_until: Option<Instant>,
    watchdog: Option<Watchdog>,
    status: Status,
    failures: LogLimit,
}

/// When a sign of life is due.
#[derive(Debug)]
struct Watchdog {
    time: Duration,
    fed: Option<Instant>,
}

/// When what rfw holds is to be told.
#[derive(Debug)]
struct Status {
    told: String,
    /// The number of changes by clients that it says.
    changes: u64,
    /// When it is counted at the earliest, and at the latest.
    not_before: Instant,
    refresh_at: Instant,
}

impl Watchdog {
    /// When it has to be fed: after half of its time, so that one that comes late is no harm.
    fn next(&self) -> Option<Instant> {
        self.fed.map(|fed| fed + self.time / 2)
    }

    /// Whether it is fed where the loop goes round anyway: a request may take long from now on.
    fn is_welcome(&self, now: Instant) -> bool {
        self.fed.is_none_or(|fed| now.saturating_duration_since(fed) >= self.time / 10)
    }
}

impl Status {
    fn new(now: Instant) -> Status {
        Status { told: String::new(), changes: 0, not_before: now, refresh_at: now }
    }

    /// When entries are to be counted, after so many changes.
    fn next(&self, changes: u64) -> Instant {
        if changes == self.changes { self.refresh_at } else { self.not_before }
    }

    /// Takes down that they have been counted, which took so long.
    fn counted(&mut self, changes: u64, now: Instant, took: Duration) {
        self.changes = changes;
        self.not_before = now + STATUS_INTERVAL.max(took.saturating_mul(STATUS_COST));
        self.refresh_at = self.not_before.max(now + STATUS_REFRESH);
    }

    /// Takes down that they could not be counted.
    fn put_off(&mut self, now: Instant) {
        (self.not_before, self.refresh_at) = (now + STATUS_RETRY, now + STATUS_RETRY);
    }
}

impl Notifier {
    /// Opens the socket, if there is a service manager.
    pub(super) fn open(manager: &Manager, now: Instant) -> Notifier {
        let channel = manager.socket.as_deref().and_then(|name| {
            channel(name)
                .inspect_err(|error| log::warn!("the service manager can't be told anything: {error}"))
                .ok()
        });
        let time = manager.watchdog_time(std::process::id()).filter(|_| channel.is_some());
        Notifier {
            channel,
            name: manager.socket.clone().unwrap_or_default(),
            unsent: None,
            full_until: None,
            watchdog: time.map(|time| Watchdog { time, fed: None }),
            status: Status::new(now),
            failures: LogLimit::default(),
        }
    }

    /// Tells that the start, or a reload, is over.
    pub(super) fn ready(&mut self, now: Instant) {
        self.tell("READY=1".to_owned(), now);
    }

    /// Tells that the configuration is read again.
    pub(super) fn reloading(&mut self, now: Instant) {
        let since_boot = Duration::try_from(clock_gettime(ClockId::Monotonic)).unwrap_or_default();
        self.tell(format!("RELOADING=1\nMONOTONIC_USEC={}", since_boot.as_micros()), now);
    }

    /// Tells that rfw ends.
    pub(super) fn stopping(&mut self, now: Instant) {
        self.tell("STOPPING=1".to_owned(), now);
    }

    /// Asks for more time for a step of the start that may take that long.
    pub(super) fn extend(&mut self, time: Duration, now: Instant) {
        self.send(&format!("EXTEND_TIMEOUT_USEC={}", time.as_micros()), now);
    }

    /// Tells the state that rfw is in: the one before is of no interest any more.
    fn tell(&mut self, message: String, now: Instant) {
        let sent = self.send(&message, now);
        self.unsent = Some(message).filter(|_| !sent);
    }

    /// Says that the loop goes round, and what there was no room for.
    pub(super) fn turn(&mut self, now: Instant) {
        if self.full_until.is_some_and(|until| now < until) {
            return;
        }
        if let Some(message) = self.unsent.take() {
            self.tell(message, now);
        }
        if self.watchdog.as_ref().is_some_and(|watchdog| watchdog.is_welcome(now))
            && self.send("WATCHDOG=1", now)
        {
            self.watchdog.iter_mut().for_each(|watchdog| watchdog.fed = Some(now));
        }
    }

    /// When there is something to tell, after so many changes by clients.
    pub(super) fn next(&self, changes: u64) -> Option<Instant> {
        self.channel.as_ref()?;
        let status = self.status.next(changes);
        let watchdog = self.watchdog.as_ref().and_then(Watchdog::next);
        let unsent = self.unsent.as_ref().and(self.full_until);
        let next = [Some(status), watchdog, unsent].into_iter().flatten().min()?;
        Some(self.full_until.map_or(next, |until| next.max(until)))
    }

    /// Whether entries are to be counted, after so many changes by clients.
    pub(super) fn wants_status(&self, changes: u64, now: Instant) -> bool {
        let is_full = self.full_until.is_some_and(|until| now < until);
        self.channel.is_some() && !is_full && self.status.next(changes) <= now
    }

    /// Tells in one line what rfw holds, which was counted from `begun` on; `None` if that could not be
    /// done.
    pub(super) fn status(&mut self, line: Option<String>, changes: u64, begun: Instant) {
        let now = Instant::now();
        let Some(line) = line else { return self.status.put_off(now) };
        // A message has one line for each thing.
        let line = line.replace(char::is_control, " ");
        self.status.counted(changes, now, now.saturating_duration_since(begun));
        if line != self.status.told {
            match self.send(&format!("STATUS={line}"), now) {
                true => self.status.told = line,
                false => self.status.put_off(now),
            }
        }
    }

    /// Sends a message; `false` if it is to be sent again, since there was no room.
    fn send(&mut self, message: &str, now: Instant) -> bool {
        let Some(socket) = &self.channel else { return true };
        self.full_until = None;
        let mut sent = socket.send(message.as_bytes());
        // Where the service manager has made its socket anew, the old one has nobody behind it.
        let is_gone = |error: &io::Error| {
            [io::ErrorKind::ConnectionRefused, io::ErrorKind::NotConnected].contains(&error.kind())
        };
        if sent.as_ref().is_err_and(is_gone)
            && let Ok(socket) = channel(&self.name)
        {
            sent = socket.send(message.as_bytes());
            self.channel = Some(socket);
        }
        match sent {
            Ok(_) => true,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.full_until = Some(now + RETRY);
                false
            }
            Err(error) => {
                let line = format_args!("the service manager can't be told anything: {error}");
                self.failures.log(now, log::Level::Warn, line);
                true
            }
        }
    }
}

/// A socket that is connected to the one that the service manager listens on.
fn channel(name: &OsStr) -> io::Result<UnixDatagram> {
    let address = match name.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(name)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(&address)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

#[cfg(test)]
mod tests;
