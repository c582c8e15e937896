//! The accept loop: one thread, one client at a time.
//!
//! A single poll waits for the listeners, the open connection and the signals. A
//! connection is kept for the client's next request only as long as nobody else
//! waits. Somebody who is not in the white list is let go before a byte is read.

use crate::api::{self, Peer, Service};
use crate::config::file::{Config, LocatedError};
use crate::config::trusted_file;
use crate::daemon::signals::{Signal, Signals};
use crate::http::body::{Body, Paced};
use crate::http::connection::Connection;
use crate::http::message::{Buffer, Delivery, HttpError};
use crate::log_limit::LogLimit;
use crate::rule::whitelist::WhiteList;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, listen, socket_with, sockopt};
use rustls::ServerConfig;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

/// The handshake and the head of a request have to be there by then.
const REQUEST_TIME: Duration = Duration::from_secs(5);

/// How long a new client may say nothing at all while somebody else waits.
const SILENT_TIME: Duration = Duration::from_secs(1);

/// How long a connection may be idle though nobody else waits.
const IDLE_TIME: Duration = Duration::from_secs(300);

/// How many strangers are turned away before a signal or a client gets a turn.
const STRANGERS_MAX: usize = 64;

/// Connections that the kernel holds for us while we are busy.
const BACKLOG: i32 = 128;

/// A socket that has its address and does not listen yet.
pub struct Bound {
    socket: OwnedFd,
    address: SocketAddr,
}

impl Bound {
    /// Takes an address; `::` serves IPv4 as well.
    ///
    /// # Errors
    /// The address is in use or not of this host.
    pub fn new(address: SocketAddr) -> Result<Bound, ServerError> {
        let take = || -> Result<OwnedFd, Errno> {
            let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
            let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
            sockopt::set_socket_reuseaddr(&socket, true)?;
            if address.is_ipv6() {
                sockopt::set_ipv6_v6only(&socket, false)?;
            }
            bind(&socket, &address)?;
            Ok(socket)
        };
        let socket = take().map_err(|error| ServerError::Bind(address, error.into()))?;
        Ok(Bound { socket, address })
    }

    fn listen(self) -> Result<TcpListener, ServerError> {
        let error = |error| ServerError::Bind(self.address, error);
        listen(&self.socket, BACKLOG).map_err(|errno| error(errno.into()))?;
        let listener = TcpListener::from(self.socket);
        listener.set_nonblocking(true).map_err(error)?;
        Ok(listener)
    }
}

/// A listener and what it speaks.
struct Listener {
    listener: TcpListener,
    tls: Option<Arc<ServerConfig>>,
    authentication: bool,
}

/// Somebody who is at a door.
struct Visitor {
    socket: TcpStream,
    tls: Option<Arc<ServerConfig>>,
    peer: Peer,
}

/// The server.
pub struct Server {
    listeners: Vec<Listener>,
    signals: Signals,
    service: Service,
    waiting: Option<Visitor>,
    unlisted: LogLimit,
    failures: LogLimit,
}

/// A connection between two requests.
struct Session {
    connection: Connection,
    buffer: Buffer,
    peer: Peer,
    idle_until: Instant,
}

impl Server {
    /// A server that nobody can reach yet.
    pub fn new(service: Service, signals: Signals) -> Server {
        Server {
            listeners: Vec::new(),
            signals,
            service,
            waiting: None,
            unlisted: LogLimit::default(),
            failures: LogLimit::default(),
        }
    }

    /// Begins to listen for HTTPS.
    ///
    /// # Errors
    /// The port has been taken meanwhile.
    pub fn open_outward(&mut self, bound: Bound, tls: Arc<ServerConfig>) -> Result<(), ServerError> {
        let listener = bound.listen()?;
        self.listeners.push(Listener { listener, tls: Some(tls), authentication: true });
        Ok(())
    }

    /// Begins to listen for HTTP.
    ///
    /// # Errors
    /// The port has been taken meanwhile.
    pub fn open_local(&mut self, bound: Bound, authentication: bool) -> Result<(), ServerError> {
        let listener = bound.listen()?;
        self.listeners.push(Listener { listener, tls: None, authentication });
        Ok(())
    }

    /// Serves until SIGTERM or SIGINT.
    ///
    /// # Errors
    /// A listener is broken.
    pub fn run(&mut self) -> Result<(), ServerError> {
        let mut open: Option<Session> = None;
        loop {
            if self.waiting.is_none() {
                self.wait(open.as_ref())?;
            }
            while let Some(signal) = self.signals.take() {
                match signal {
                    Signal::Stop => return Ok(()),
                    Signal::Reload => self.reload(),
                }
            }
            self.look_out()?;
            open = match (self.waiting.take(), open) {
                // A request that has come already is answered before its connection goes.
                (Some(visitor), Some(session)) if is_ready(&session.connection) => {
                    self.waiting = Some(visitor);
                    self.serve(session)?
                }
                (Some(visitor), open) => {
                    open.into_iter().for_each(|session| session.connection.close(false));
                    self.receive(visitor)?
                }
                (None, Some(session)) if is_ready(&session.connection) => self.serve(session)?,
                (None, Some(session)) if Instant::now() >= session.idle_until => {
                    session.connection.close(false);
                    None
                }
                (None, open) => open,
            };
        }
    }

    /// Sleeps until there is something to do.
    fn wait(&self, open: Option<&Session>) -> Result<(), ServerError> {
        let mut fds: Vec<PollFd<'_>> =
            self.listeners.iter().map(|listener| PollFd::new(&listener.listener, PollFlags::IN)).collect();
        fds.push(PollFd::new(&self.signals, PollFlags::IN));
        fds.extend(open.map(|session| PollFd::new(&session.connection, PollFlags::IN)));
        sleep_on(&mut fds, open.map(|session| session.idle_until.saturating_duration_since(Instant::now())))
    }

    /// Looks who is at the doors: strangers are turned away, the first client waits.
    fn look_out(&mut self) -> Result<(), ServerError> {
        for turn in 0..STRANGERS_MAX {
            if self.waiting.is_some() {
                return Ok(());
            }
            let Some(listener) = self.listeners.get(turn % self.listeners.len().max(1)) else {
                return Ok(());
            };
            match listener.listener.accept() {
                Ok((socket, address)) => {
                    let peer = Peer {
                        address: address.ip().to_canonical(),
                        authentication: listener.authentication,
                        local: listener.tls.is_none(),
                    };
                    // A door without TLS is one of this host alone.
                    if listener.tls.is_none() || self.service.knows(peer.address) {
                        self.waiting = Some(Visitor { socket, tls: listener.tls.clone(), peer });
                    } else {
                        let line = format_args!("{}: not in the white list, turned away", peer.address);
                        self.unlisted.log(Instant::now(), log::Level::Warn, line);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if turn + 1 >= self.listeners.len() {
                        return Ok(());
                    }
                }
                Err(error) => return self.accept_failed(error),
            }
        }
        Ok(())
    }

    /// A connection that broke on the way in is nobody's fault; want of descriptors
    /// or memory passes; anything else is the end of the listener.
    fn accept_failed(&mut self, error: io::Error) -> Result<(), ServerError> {
        match Errno::from_io_error(&error) {
            Some(Errno::BADF | Errno::INVAL | Errno::NOTSOCK | Errno::OPNOTSUPP | Errno::FAULT) | None => {
                Err(ServerError::Listener(error))
            }
            Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => {
                let line = format_args!("no connection can be accepted for now: {error}");
                self.failures.log(Instant::now(), log::Level::Error, line);
                thread::sleep(Duration::from_millis(100));
                Ok(())
            }
            Some(_) => Ok(()),
        }
    }

    /// Shakes hands with a new client and serves its first request.
    fn receive(&mut self, visitor: Visitor) -> Result<Option<Session>, ServerError> {
        let Visitor { socket, tls, peer } = visitor;
        let start = Instant::now();
        // Who is to make room has had all the time there is for him.
        let heard = self.hears_from(&socket, start)?;
        let deadline = if heard { start + REQUEST_TIME } else { Instant::now() };
        let connection = match tls {
            Some(tls) => Connection::tls(socket, deadline, self.signals.stop_signal(), &tls),
            None => Connection::plain(socket, deadline, self.signals.stop_signal()),
        };
        match connection {
            Ok(connection) => {
                let session = Session { connection, buffer: Buffer::default(), peer, idle_until: deadline };
                self.converse(session)
            }
            Err(error) => {
                let line = format_args!("{}: no TLS handshake: {error}", peer.address);
                self.failures.log(Instant::now(), log::Level::Info, line);
                Ok(None)
            }
        }
    }

    /// Waits for the first byte of a new client, as long as it has for its request;
    /// `false` is one that was silent for a second while somebody else waits, or rfw is
    /// told to end.
    fn hears_from(&mut self, socket: &TcpStream, start: Instant) -> Result<bool, ServerError> {
        while !is_ready(socket) {
            let silent = start.elapsed();
            if silent >= REQUEST_TIME {
                return Ok(true);
            }
            if silent >= SILENT_TIME {
                self.look_out()?;
            }
            if self.signals.is_pending() || silent >= SILENT_TIME && self.waiting.is_some() {
                return Ok(false);
            }
            let next = if silent < SILENT_TIME { SILENT_TIME } else { REQUEST_TIME };
            self.wait_for(socket, next.saturating_sub(silent), silent >= SILENT_TIME)?;
        }
        Ok(true)
    }

    /// Sleeps until something can be read from a socket, a signal comes, or, where
    /// `doors` are to be heard as well, somebody is at one.
    fn wait_for(&self, socket: &TcpStream, limit: Duration, listeners: bool) -> Result<(), ServerError> {
        let mut fds = vec![PollFd::new(socket, PollFlags::IN), PollFd::new(&self.signals, PollFlags::IN)];
        fds.extend(
            self.listeners
                .iter()
                .filter(|_| listeners)
                .map(|listener| PollFd::new(&listener.listener, PollFlags::IN)),
        );
        sleep_on(&mut fds, Some(limit))
    }

    /// Serves the next request of a client that has been idle.
    fn serve(&mut self, mut session: Session) -> Result<Option<Session>, ServerError> {
        session.connection.set_deadline(Instant::now() + REQUEST_TIME);
        self.converse(session)
    }

    /// Serves requests as long as they are there; gives the connection back if more
    /// may come.
    fn converse(&mut self, mut session: Session) -> Result<Option<Session>, ServerError> {
        loop {
            match self.exchange(&mut session)? {
                Exchange::RuleCache if session.buffer.is_empty() && !session.connection.has_pending() => {
                    session.idle_until = Instant::now() + IDLE_TIME;
                    return Ok(Some(session));
                }
                Exchange::RuleCache => session.connection.set_deadline(Instant::now() + REQUEST_TIME),
                Exchange::Last { client_is_sending } => {
                    session.connection.close(client_is_sending);
                    return Ok(None);
                }
            }
        }
    }

    /// Reads one request and answers it.
    fn exchange(&mut self, session: &mut Session) -> Result<Exchange, ServerError> {
        let Session { connection, buffer, peer, .. } = session;
        let request = match buffer.read_head(connection) {
            Ok(Some(request)) => request,
            Ok(None) => return Ok(Exchange::Last { client_is_sending: false }),
            Err(error) => return Ok(self.refuse(&error, connection, peer)),
        };
        let mut body = Body::new(buffer, Paced::new(connection), request.body, request.expects_continue);
        let answer = self.service.answer(*peer, &request, &mut body);
        let unread = !body.is_ended();
        self.look_out()?;
        let close = !request.keep_alive || unread || self.waiting.is_some() || self.signals.is_pending();
        match answer.write(&mut Paced::new(connection), Delivery::to(&request, close)) {
            Ok(()) if !close => Ok(Exchange::RuleCache),
            Ok(()) => Ok(Exchange::Last { client_is_sending: unread }),
            Err(_) => Ok(Exchange::Last { client_is_sending: false }),
        }
    }

    /// Tells a client why its request can't be read, if it is there to hear.
    fn refuse(&mut self, error: &HttpError, connection: &mut Connection, peer: &Peer) -> Exchange {
        let line = format_args!("{}: {error}", peer.address);
        self.failures.log(Instant::now(), log::Level::Info, line);
        let Some(answer) = api::unreadable(error) else { return Exchange::Last { client_is_sending: false } };
        connection.set_deadline(Instant::now() + Duration::from_secs(1));
        let written = answer.write(connection, Delivery::last());
        Exchange::Last { client_is_sending: written.is_ok() }
    }

    /// Reads the white list again; a bad one is refused and the old one stays.
    fn reload(&mut self) {
        let loaded = load_whitelist(self.service.config());
        match loaded.map_err(|error| error.to_string()).and_then(|list| {
            let count = list.networks().count();
            self.service.replace_whitelist(list).map_err(|error| error.to_string())?;
            Ok(count)
        }) {
            Ok(count) => log::info!("the white list has been read again: {count} networks"),
            Err(error) => log::error!("the old white list stays, since the new one is refused: {error}"),
        }
    }
}

/// What became of a connection.
enum Exchange {
    /// It stays open for the next request.
    RuleCache,
    /// That was all.
    Last {
        /// Whether bytes may come that nobody has read.
        client_is_sending: bool,
    },
}

/// Whether something can be read from it now.
fn is_ready(stream: &impl AsFd) -> bool {
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut [PollFd::new(stream, PollFlags::IN)], Some(&now)).is_ok_and(|ready| ready > 0)
}

/// Sleeps until one of them is ready, at most that long.
fn sleep_on(fds: &mut [PollFd<'_>], limit: Option<Duration>) -> Result<(), ServerError> {
    let limit = limit.and_then(|limit| Timespec::try_from(limit).ok());
    match poll(fds, limit.as_ref()) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(ServerError::Listener(error.into())),
    }
}

/// Reads the white list that a configuration names.
///
/// # Errors
/// It can't be read, is open to others, or has a wrong line.
pub fn load_whitelist(config: &Config) -> Result<WhiteList, LocatedError> {
    let setting = &config.whitelist_file;
    let file = &setting.value;
    let text = trusted_file::read_trusted(file)
        .map_err(|error| setting.error(&config.file, format!("{}: {error}", file.display())))?;
    WhiteList::parse(&text).map_err(|error| LocatedError {
        file: file.clone(),
        line: error.line(),
        why: error.to_string(),
    })
}

/// Why the server can't go on.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// An address that can't be taken.
    #[error("can't listen on {0}: {1}")]
    Bind(SocketAddr, io::Error),
    /// A listener that is broken.
    #[error("can't accept connections any more: {0}")]
    Listener(io::Error),
}
