//! The server: one thread, all clients.
//!
//! A single poll(2) waits for the listeners, the signals, the next deadline and every
//! connection. Nothing else waits for a client, so that none costs another anything but the
//! execution of its requests, which are executed one at a time, each source in its turn. A
//! peer of the HTTPS listener that is not in the white list is closed after accept(2), before
//! a byte is read.

mod reload;

use crate::api::{Outcome, Peer, Refused, Service, Surroundings};
use crate::config::file::Config;
use crate::daemon::certificate::{CertificateWatch, Expiry};
use crate::daemon::confinement::Confinement;
use crate::daemon::crowd::{Client, Crowd, Room};
use crate::daemon::instance::Instance;
use crate::daemon::listener::{Listener, ServerError};
use crate::daemon::notify::Notifier;
use crate::daemon::reception::{Lines, Reception};
use crate::daemon::signals::{Signal, Signals};
use crate::daemon::uncovered::Uncovered;
use crate::http::connection::Connection;
use crate::http::conversation::Event;
use crate::http::tls::Identity;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};
use std::io;
use std::time::{Duration, Instant, SystemTime};

/// Maximum duration of TLS handshakes in a row before complete requests get their turn.
const HANDSHAKES_TIME: Duration = Duration::from_millis(20);

/// Duration of executing requests in a row after which new bytes are looked at.
const EXECUTE_TIME: Duration = Duration::from_millis(5);

/// Duration of reading rows of a listing before others get their turn.
const PIECE_TIME: Duration = Duration::from_millis(2);

/// Duration of work after which deadlines are moved by it.
const WORK_TIME: Duration = Duration::from_millis(100);

/// Maximum number of connections accepted in a row from one listener.
const ACCEPTED_MAX: usize = 64;

/// Time for which nothing is accepted where there is no room or no descriptor for it.
const FULL_TIME: Duration = Duration::from_millis(20);

/// Minimum time between two readings of the configuration, however many SIGHUP come.
const RELOAD_INTERVAL: Duration = Duration::from_millis(500);

/// Maximum time for answers under way after SIGTERM or SIGINT.
const END_TIME: Duration = Duration::from_millis(1_000);

/// Descriptors left for everything but connections: programs, sockets of the kernel, files.
const RESERVED: u64 = 40;

/// The listeners, what they serve, and all clients.
pub(super) struct Server {
    listeners: Vec<Listener>,
    signals: Signals,
    instance: Instance,
    notifier: Notifier,
    confinement: Confinement,
    service: Service,
    crowd: Crowd,
    /// What the HTTPS server shows clients and asks of them.
    identity: Option<Identity>,
    certificate: Option<CertificateWatch>,
    uncovered: Uncovered,
    lines: Lines,
    /// The client for which a piece of a listing was read last.
    last_piece: usize,
    /// Until when nothing is accepted.
    full_until: Option<Instant>,
    /// When the configuration is read again, and from when on it may be.
    reload_at: Option<Instant>,
    reload_from: Instant,
    /// The end, after a signal.
    end_at: Option<Instant>,
}

/// What poll(2) has found.
struct Ready {
    signals: bool,
    listeners: Vec<bool>,
    clients: Vec<PollFlags>,
}

impl Server {
    /// A server without listeners.
    pub(super) fn new(
        service: Service,
        signals: Signals,
        instance: Instance,
        notifier: Notifier,
        confinement: Confinement,
    ) -> Server {
        let config = service.config();
        let crowd = Crowd::new(checked_most_connections(config), wide(config.connections_max_source));
        Server {
            listeners: Vec::new(),
            signals,
            instance,
            notifier,
            confinement,
            service,
            crowd,
            identity: None,
            certificate: None,
            uncovered: Uncovered::default(),
            lines: Lines::default(),
            last_piece: 0,
            full_until: None,
            reload_at: None,
            reload_from: Instant::now(),
            end_at: None,
        }
    }

    /// Serves what connects to a listener.
    pub(super) fn open(&mut self, listener: Listener) {
        self.listeners.push(listener);
    }

    /// Has clients asked for what an identity says. Warns now, and then once a day, where a certificate of it
    /// ends soon or has ended.
    pub(super) fn identify(&mut self, identity: Identity) {
        let now = Instant::now();
        self.certificate = Some(CertificateWatch::new(Expiry::of(&identity), now));
        self.identity = Some(identity);
        self.look_at_certificate(now);
    }

    /// Warns of what this host can't live without and the white list does not have, if that is new.
    pub(super) fn warn_of_uncovered(&mut self) {
        self.uncovered.tell(self.service.whitelist());
    }

    /// Looks once a day at what ends, and tells whether it has.
    fn look_at_certificate(&mut self, now: Instant) -> bool {
        let Some(watch) = self.certificate.as_mut().filter(|watch| watch.next() <= now) else { return false };
        let warnings = watch.look(now, SystemTime::now());
        warnings.iter().for_each(|warning| log::warn!("{warning}"));
        true
    }

    /// Serves until SIGTERM or SIGINT.
    ///
    /// # Errors
    /// poll(2), or accept(2) for a reason that does not pass.
    pub(super) fn run(&mut self) -> Result<(), ServerError> {
        self.notifier.ready(Instant::now());
        loop {
            let ready = self.wait()?;
            let now = Instant::now();
            self.notifier.turn(now);
            self.heed_signals(ready.signals, now);
            self.converse(&ready.clients, now);
            self.execute(now);
            self.collect();
            self.expire(now);
            self.crowd.bury();
            if self.look_at_certificate(now) {
                // What was good when they were opened may have ended since.
                self.turn_out();
            }
            self.tell_status();
            self.accept(&ready.listeners)?;
            if self.end_at.is_some_and(|end| self.crowd.clients.is_empty() || Instant::now() >= end) {
                return Ok(());
            }
        }
    }

    /// Waits until something can be done.
    fn wait(&mut self) -> Result<Ready, ServerError> {
        let now = Instant::now();
        let held = self.crowd.hold(now);
        let limit = self.wake_at().map(|at| at.saturating_duration_since(now));
        let listeners = if self.full_until.is_none() { self.listeners.as_slice() } else { &[] };
        let clients = &self.crowd.clients;
        let mut fds = Vec::with_capacity(4 + clients.len());
        fds.extend(listeners.iter().map(|listener| PollFd::new(listener, PollFlags::IN)));
        fds.extend(clients.iter().zip(held).map(|(client, held)| {
            let interest = if held { PollFlags::empty() } else { client.connection.interest() };
            PollFd::new(&client.connection, interest)
        }));
        fds.push(PollFd::new(&self.signals, PollFlags::IN));
        fds.extend(self.instance.poll_fd());
        match poll(&mut fds, limit.and_then(|limit| Timespec::try_from(limit).ok()).as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(ServerError::Listener(error.into())),
        }
        let mut found = fds.iter().map(PollFd::revents);
        let listeners = found.by_ref().take(listeners.len()).map(|flags| !flags.is_empty()).collect();
        let clients = found.by_ref().take(clients.len()).collect();
        let signals = found.next().is_some_and(|flags| !flags.is_empty());
        if found.any(|flags| !flags.is_empty()) {
            self.instance.drain();
        }
        Ok(Ready { signals, listeners, clients })
    }

    /// When to go on even if nothing comes: at once where there is work, else at the next
    /// deadline.
    fn wake_at(&self) -> Option<Instant> {
        let has_work =
            |client: &Client| client.connection.state().is_waiting() || client.collecting.is_some();
        if self.crowd.clients.iter().any(has_work) {
            return Some(Instant::now());
        }
        let deadlines = self.crowd.clients.iter().filter_map(|client| client.connection.state().deadline());
        let certificate = self.certificate.as_ref().map(CertificateWatch::next);
        let notice = self.notifier.next(self.service.changes());
        let others = [self.full_until, self.reload_at, self.end_at, certificate, notice];
        deadlines.chain(others.into_iter().flatten()).min()
    }

    fn heed_signals(&mut self, came: bool, now: Instant) {
        match self.signals.take_if(came) {
            Some(Signal::Stop) => self.stop(now),
            Some(Signal::Reload) => self.reload_at = Some(self.reload_from.max(now)),
            None => {}
        }
        if self.reload_at.is_some_and(|at| at <= now) {
            self.reload();
            self.reload_at = None;
            self.reload_from = Instant::now() + RELOAD_INTERVAL;
        }
    }

    /// Refuses what is new and closes what does not have an answer on its way.
    fn stop(&mut self, now: Instant) {
        if self.end_at.is_some() {
            return;
        }
        self.notifier.stopping(now);
        self.end_at = Some(now + END_TIME);
        self.reload_at = None;
        self.listeners.clear();
        for index in 0..self.crowd.clients.len() {
            self.with(index, |client, reception| {
                client.connection.step(Event::Close, now, reception);
                if let Some(pending) = client.connection.conversation().take_request() {
                    client.connection.answer(pending.end_of_service(), now, reception);
                }
            });
        }
    }

    /// Accepts connections; closes unlisted peers. Their time begins now, not when poll(2) found
    /// them: others may have been worked for since.
    fn accept(&mut self, ready: &[bool]) -> Result<(), ServerError> {
        let now = Instant::now();
        if self.full_until.is_some_and(|until| until <= now) {
            self.full_until = None;
        }
        for (index, _) in ready.iter().enumerate().filter(|(_, ready)| **ready) {
            for _ in 0..ACCEPTED_MAX {
                let Some(listener) = self.listeners.get(index) else { break };
                let (tls, authentication) = (listener.tls.clone(), listener.authentication);
                match listener.accept() {
                    Ok((socket, address)) => {
                        let address = address.ip().to_canonical();
                        let local = tls.is_none();
                        let (certificate, logged_in) = (None, None);
                        let peer = Peer { address, authentication, local, certificate, logged_in };
                        let Some(has_closed) = self.makes_room(&peer, now) else { continue };
                        if let Ok(connection) = Connection::new(socket, tls.as_ref(), now) {
                            let is_unlisted = !peer.local && !self.service.whitelist().contains(peer.address);
                            self.crowd.admit(connection, peer, is_unlisted);
                        }
                        // What it says is heard before it may have to go for the next one.
                        if has_closed {
                            break;
                        }
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) => self.accept_failed(error, now)?,
                }
                if self.full_until.is_some() {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Lets a peer connect: whether another had to be closed for it, as at a bound; `None` if it may not.
    fn makes_room(&mut self, peer: &Peer, now: Instant) -> Option<bool> {
        // The listener without TLS is bound to a loopback address.
        if !peer.local && !self.service.admits(peer.address) {
            let line = format_args!("{}: not in the white list as a client, turned away", peer.address);
            self.lines.unlisted.log(now, log::Level::Warn, line);
            self.service.count_refused(Refused::Unlisted);
            return None;
        }
        match self.crowd.room(peer) {
            Room::Free => Some(false),
            Room::After(index) => {
                let line =
                    format_args!("{}: too many connections, the most silent one is closed", peer.address);
                self.lines.crowded.log(now, log::Level::Warn, line);
                self.with(index, |client, reception| client.connection.cut(now, reception));
                self.crowd.bury();
                self.service.count_refused(Refused::Crowded);
                Some(true)
            }
            Room::None => {
                let line = format_args!("{}: too many connections, turned away", peer.address);
                self.lines.crowded.log(now, log::Level::Warn, line);
                self.service.count_refused(Refused::Crowded);
                None
            }
        }
    }

    /// Sorts the errors of accept(2). Lack of descriptors or memory is logged, the most silent
    /// client goes, and after [`FULL_TIME`] it is tried again. An error of the listening socket
    /// itself ends the server. Any other is one of the incoming connection, such as
    /// ECONNABORTED, and is ignored.
    fn accept_failed(&mut self, error: io::Error, now: Instant) -> Result<(), ServerError> {
        match Errno::from_io_error(&error) {
            Some(Errno::BADF | Errno::INVAL | Errno::NOTSOCK | Errno::OPNOTSUPP | Errno::FAULT) | None => {
                Err(ServerError::Listener(error))
            }
            Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => {
                let line = format_args!("no connection can be accepted for now: {error}");
                self.lines.accept.log(now, log::Level::Error, line);
                self.full_until = Some(now + FULL_TIME);
                // The limit may have been lowered meanwhile (prlimit(1)).
                self.crowd.bound(most_connections(self.service.config()));
                self.let_go(now);
                while self.crowd.is_over() && self.let_go(now) {}
                Ok(())
            }
            Some(_) => Ok(()),
        }
    }

    /// Closes the connection of the most silent client, if there is one.
    fn let_go(&mut self, now: Instant) -> bool {
        let index = self.crowd.most_silent(None);
        let gone =
            index.map(|index| self.with(index, |client, reception| client.connection.cut(now, reception)));
        self.crowd.bury();
        gone.is_some()
    }

    /// Reads and writes where that is possible; handshakes come last and for a limited time.
    fn converse(&mut self, ready: &[PollFlags], now: Instant) {
        let ready = |index: usize| ready.get(index).copied().unwrap_or(PollFlags::empty());
        let is_handshaking = |client: &Client| client.connection.state().is_handshaking();
        let all = self.crowd.clients.iter().enumerate().filter(|(index, _)| !ready(*index).is_empty());
        let (handshakes, others): (Vec<_>, Vec<_>) = all.partition(|(_, client)| is_handshaking(client));
        let numbers = |clients: Vec<(usize, &Client)>| clients.into_iter().map(|(index, _)| index).collect();
        let (handshakes, mut others): (Vec<usize>, Vec<usize>) = (numbers(handshakes), numbers(others));
        self.crowd.by_last_turn(&mut others);
        others.into_iter().for_each(|index| self.drive(index, ready(index), now));
        for index in self.crowd.in_turns(handshakes) {
            self.drive(index, ready(index), now);
            if now.elapsed() >= HANDSHAKES_TIME {
                break;
            }
        }
    }

    fn drive(&mut self, index: usize, flags: PollFlags, now: Instant) {
        let broken = flags.intersects(PollFlags::HUP | PollFlags::ERR);
        // It is polled for only where that is an end.
        let gone = broken || flags.contains(PollFlags::RDHUP);
        self.with(index, |client, reception| {
            let state = client.connection.state();
            if state.is_waiting() {
                // It is executed in a moment.
            } else if gone && state.is_slowed() || broken && client.connection.interest().is_empty() {
                client.connection.cut(now, reception);
                client.collecting = None;
            } else {
                client.connection.drive(broken || flags.contains(PollFlags::IN), now, reception);
            }
        });
        self.crowd.note(index);
    }

    /// Executes requests that have come whole.
    fn execute(&mut self, start: Instant) {
        if self.crowd.has_request() {
            self.tell_surroundings();
        }
        let mut begun = start;
        while let Some(index) = self.crowd.next_turn() {
            self.with(index, |client, reception| {
                let Some(pending) = client.connection.conversation().take_request() else { return };
                match reception.service.execute(pending) {
                    Outcome::Answer(answer) => client.connection.answer(answer, Instant::now(), reception),
                    Outcome::Listing(collecting) => {
                        client.collecting = Some(collecting);
                        read_piece(client, reception);
                    }
                }
            });
            self.crowd.note(index);
            let now = Instant::now();
            // What handshakes took before does not count.
            begun = if begun == start { now } else { begun };
            if now.duration_since(begun) >= EXECUTE_TIME {
                break;
            }
        }
    }

    /// Reads a piece of one listing, those of others in turn.
    fn collect(&mut self) {
        if let Some(index) = self.crowd.next_collecting(self.last_piece) {
            self.last_piece = index;
            self.with(index, read_piece);
            self.crowd.note(index);
        }
    }

    /// Tells the connections whose deadline had passed when poll(2) last looked. What rfw has
    /// worked since then is not to the cost of those who had to wait for it.
    fn expire(&mut self, now: Instant) {
        let worked = now.elapsed();
        for index in 0..self.crowd.clients.len() {
            self.with(index, |client, reception| {
                if client.connection.state().deadline().is_some_and(|deadline| deadline <= now) {
                    client.connection.step(Event::Late, now, reception);
                } else if worked >= WORK_TIME {
                    client.connection.conversation().postpone(worked);
                }
            });
        }
    }

    /// Works on a client with all that its requests need.
    fn with<T>(
        &mut self,
        index: usize,
        work: impl FnOnce(&mut Client, &mut Reception<'_>) -> T,
    ) -> Option<T> {
        let client = self.crowd.clients.get_mut(index)?;
        let (service, lines, identity) = (&mut self.service, &mut self.lines, self.identity.as_ref());
        let mut reception = Reception { service, lines, identity, peer: client.peer.clone() };
        let done = work(client, &mut reception);
        // The end of a handshake has shown its certificate.
        client.peer = reception.peer;
        Some(done)
    }

    /// Tells the API what only the server knows.
    fn tell_surroundings(&mut self) {
        self.service.set_surroundings(Surroundings {
            certificate_ends: self.identity.as_ref().map(|identity| identity.ends),
            connections: self.crowd.clients.len(),
            ended: self.certificate.as_ref().map_or(Vec::new(), |watch| watch.ended(SystemTime::now())),
        });
    }

    /// Tells the service manager what rfw holds, where that may have changed.
    fn tell_status(&mut self) {
        let (changes, now) = (self.service.changes(), Instant::now());
        if self.notifier.wants_status(changes, now) {
            self.notifier.status(self.service.status(SystemTime::now()), changes, now);
        }
    }
}

/// Reads a piece of a client's listing, if it has one, and answers when all is read.
fn read_piece(client: &mut Client, reception: &mut Reception<'_>) {
    let Some(collecting) = &mut client.collecting else { return };
    if let Some(answer) = collecting.advance(Instant::now() + PIECE_TIME) {
        reception.service.count_listing(collecting, &answer);
        client.collecting = None;
        client.connection.answer(answer, Instant::now(), reception);
    }
}

/// The bound of connections: that of the configuration, or what the limit of descriptors
/// leaves (getrlimit(2)).
fn most_connections(config: &Config) -> usize {
    let left = getrlimit(Resource::Nofile).current.map(|limit| limit.saturating_sub(RESERVED).max(2));
    let left = left.map_or(usize::MAX, |left| usize::try_from(left).unwrap_or(usize::MAX));
    wide(config.connections_max).min(left)
}

/// The same, with a warning where the limit leaves less than the configuration says.
fn checked_most_connections(config: &Config) -> usize {
    let most = most_connections(config);
    if most < wide(config.connections_max) {
        log::warn!("the limit of open files leaves room for {most} connections only (connections.max)");
    }
    most
}

fn wide(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
