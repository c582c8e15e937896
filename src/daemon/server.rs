//! The accept loop: one thread, one client at a time.
//!
//! A single poll(2) waits for the listeners, the idle connection and the signals. A
//! persistent connection is closed as soon as another client is pending. A peer of the HTTPS
//! listener that is not in the white list is closed after accept(2), before a byte is read.

use crate::api::{self, Peer, Service};
use crate::config::file::{Config, LocatedError};
use crate::config::trusted_file;
use crate::daemon::instance::Instance;
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

/// Maximum duration of the TLS handshake and the first request head together, and of each
/// further request head.
const REQUEST_TIME: Duration = Duration::from_secs(5);

/// Until rewritten: time allowed before the first byte while another client is pending.
const SILENT_TIME: Duration = Duration::from_secs(1);

/// Maximum idle time of a persistent connection while no other client is pending.
const IDLE_TIME: Duration = Duration::from_secs(300);

/// Until rewritten: maximum number of accept(2) calls in a row before signals and the open
/// connection are looked at again.
const STRANGERS_MAX: usize = 64;

/// Maximum length of the queue of connections not yet accepted (listen(2)).
const BACKLOG: i32 = 128;

/// A socket that is bound to its address and does not listen yet.
pub(super) struct Bound {
    socket: OwnedFd,
    address: SocketAddr,
}

impl Bound {
    /// Binds a TCP socket to an address; `::` accepts IPv4 as well (`IPV6_V6ONLY` off, ipv6(7)).
    ///
    /// # Errors
    /// The address is in use or is not an address of this host.
    pub(super) fn new(address: SocketAddr) -> Result<Bound, ServerError> {
        let bind_socket = || -> Result<OwnedFd, Errno> {
            let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
            let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
            sockopt::set_socket_reuseaddr(&socket, true)?;
            if address.is_ipv6() {
                sockopt::set_ipv6_v6only(&socket, false)?;
            }
            bind(&socket, &address)?;
            Ok(socket)
        };
        let socket = bind_socket().map_err(|error| ServerError::Bind(address, error.into()))?;
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

/// A listening socket, its TLS configuration (`None` is plain HTTP) and whether its clients
/// authenticate.
struct Listener {
    listener: TcpListener,
    tls: Option<Arc<ServerConfig>>,
    authentication: bool,
}

/// A client whose connection is accepted and not yet served.
struct Visitor {
    socket: TcpStream,
    tls: Option<Arc<ServerConfig>>,
    peer: Peer,
}

/// The listeners, what they serve, and the client that is served next.
pub(super) struct Server {
    listeners: Vec<Listener>,
    signals: Signals,
    instance: Instance,
    service: Service,
    waiting: Option<Visitor>,
    unlisted: LogLimit,
    failures: LogLimit,
}

/// A connection, its unparsed input, and its deadline while it is idle.
struct Session {
    connection: Connection,
    buffer: Buffer,
    peer: Peer,
    idle_until: Instant,
}

impl Server {
    /// A server without listeners.
    pub(super) fn new(service: Service, signals: Signals, instance: Instance) -> Server {
        Server {
            listeners: Vec::new(),
            signals,
            instance,
            service,
            waiting: None,
            unlisted: LogLimit::default(),
            failures: LogLimit::default(),
        }
    }

    /// Starts to listen for HTTPS, with authentication.
    ///
    /// # Errors
    /// listen(2) fails, as where another socket listens on the port since it was bound.
    pub(super) fn open_outward(&mut self, bound: Bound, tls: Arc<ServerConfig>) -> Result<(), ServerError> {
        let listener = bound.listen()?;
        self.listeners.push(Listener { listener, tls: Some(tls), authentication: true });
        Ok(())
    }

    /// Starts to listen for HTTP.
    ///
    /// # Errors
    /// As with [`Server::open_outward`].
    pub(super) fn open_local(&mut self, bound: Bound, authentication: bool) -> Result<(), ServerError> {
        let listener = bound.listen()?;
        self.listeners.push(Listener { listener, tls: None, authentication });
        Ok(())
    }

    /// Serves until SIGTERM or SIGINT.
    ///
    /// # Errors
    /// poll(2), or accept(2) for a reason that does not pass.
    pub(super) fn run(&mut self) -> Result<(), ServerError> {
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
            self.instance.drain();
            self.look_out()?;
            open = match (self.waiting.take(), open) {
                // A request that is already received is answered before its connection closes.
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

    /// Waits for a new connection, a signal, input on the idle connection or its deadline.
    fn wait(&self, open: Option<&Session>) -> Result<(), ServerError> {
        let mut fds: Vec<PollFd<'_>> =
            self.listeners.iter().map(|listener| PollFd::new(&listener.listener, PollFlags::IN)).collect();
        fds.push(PollFd::new(&self.signals, PollFlags::IN));
        fds.extend(self.instance.poll_fd());
        fds.extend(open.map(|session| PollFd::new(&session.connection, PollFlags::IN)));
        poll_for(&mut fds, open.map(|session| session.idle_until.saturating_duration_since(Instant::now())))
    }

    /// Accepts connections without blocking until one client is pending; closes unlisted peers.
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
                    // The listener without TLS is bound to a loopback address.
                    if listener.tls.is_none() || self.service.admits(peer.address) {
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

    /// Sorts the errors of accept(2). Lack of descriptors or memory is logged and retried
    /// after 100 ms. An error of the listening socket itself ends the server. Any other is one
    /// of the incoming connection, such as ECONNABORTED, and is ignored.
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

    /// Performs the TLS handshake with a new client and serves its first requests.
    fn receive(&mut self, visitor: Visitor) -> Result<Option<Session>, ServerError> {
        let Visitor { socket, tls, peer } = visitor;
        let start = Instant::now();
        // A client that sends nothing while another is pending is closed at once.
        let received = self.hears_from(&socket, start)?;
        let deadline = if received { start + REQUEST_TIME } else { Instant::now() };
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

    /// Waits for the first byte of a new client, at most [`REQUEST_TIME`]. `false` means that
    /// the connection is to be closed: nothing is received within [`SILENT_TIME`] and another
    /// client is pending, or a signal is.
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

    /// Waits until the socket is readable, a signal is pending or, with `listeners`, a
    /// connection can be accepted.
    fn wait_for(&self, socket: &TcpStream, limit: Duration, listeners: bool) -> Result<(), ServerError> {
        let mut fds = vec![PollFd::new(socket, PollFlags::IN), PollFd::new(&self.signals, PollFlags::IN)];
        fds.extend(
            self.listeners
                .iter()
                .filter(|_| listeners)
                .map(|listener| PollFd::new(&listener.listener, PollFlags::IN)),
        );
        poll_for(&mut fds, Some(limit))
    }

    /// Serves the next requests on an idle connection.
    fn serve(&mut self, mut session: Session) -> Result<Option<Session>, ServerError> {
        session.connection.set_deadline(Instant::now() + REQUEST_TIME);
        self.converse(session)
    }

    /// Serves requests while input is buffered; returns the connection if it stays open for
    /// more.
    fn converse(&mut self, mut session: Session) -> Result<Option<Session>, ServerError> {
        loop {
            match self.exchange(&mut session)? {
                Exchange::KeepAlive if session.buffer.is_empty() && !session.connection.has_pending() => {
                    session.idle_until = Instant::now() + IDLE_TIME;
                    return Ok(Some(session));
                }
                Exchange::KeepAlive => session.connection.set_deadline(Instant::now() + REQUEST_TIME),
                Exchange::Close { client_is_sending } => {
                    session.connection.close(client_is_sending);
                    return Ok(None);
                }
            }
        }
    }

    /// Reads one request and sends its answer.
    fn exchange(&mut self, session: &mut Session) -> Result<Exchange, ServerError> {
        let Session { connection, buffer, peer, .. } = session;
        let request = match buffer.read_head(connection) {
            Ok(Some(request)) => request,
            Ok(None) => return Ok(Exchange::Close { client_is_sending: false }),
            Err(error) => return Ok(self.refuse(&error, connection, peer)),
        };
        let mut body = Body::new(buffer, Paced::new(connection), request.body, request.expects_continue);
        let answer = self.service.answer(*peer, &request, &mut body);
        let unread = !body.is_ended();
        self.look_out()?;
        let close = !request.keep_alive || unread || self.waiting.is_some() || self.signals.is_pending();
        match answer.write(&mut Paced::new(connection), Delivery::to(&request, close)) {
            Ok(()) if !close => Ok(Exchange::KeepAlive),
            Ok(()) => Ok(Exchange::Close { client_is_sending: unread }),
            Err(_) => Ok(Exchange::Close { client_is_sending: false }),
        }
    }

    /// Logs why a request can't be read and answers with it, unless the connection is broken.
    fn refuse(&mut self, error: &HttpError, connection: &mut Connection, peer: &Peer) -> Exchange {
        let line = format_args!("{}: {error}", peer.address);
        self.failures.log(Instant::now(), log::Level::Info, line);
        let Some(answer) = api::unreadable(error) else {
            return Exchange::Close { client_is_sending: false };
        };
        connection.set_deadline(Instant::now() + Duration::from_secs(1));
        let written = answer.write(connection, Delivery::last());
        Exchange::Close { client_is_sending: written.is_ok() }
    }

    /// Reloads the white list; if that fails the old one stays in force.
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

/// State of a connection after a request.
enum Exchange {
    /// It persists for the next request.
    KeepAlive,
    /// It is to be closed.
    Close {
        /// Whether part of the request may still be unread.
        client_is_sending: bool,
    },
}

/// Whether a read would not block: input or the end of the stream.
fn is_ready(stream: &impl AsFd) -> bool {
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut [PollFd::new(stream, PollFlags::IN)], Some(&now)).is_ok_and(|ready| ready > 0)
}

/// Waits until one of the descriptors is ready, at most `limit`; `None` has no limit.
fn poll_for(fds: &mut [PollFd<'_>], limit: Option<Duration>) -> Result<(), ServerError> {
    let limit = limit.and_then(|limit| Timespec::try_from(limit).ok());
    match poll(fds, limit.as_ref()) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(ServerError::Listener(error.into())),
    }
}

/// Reads the white list that a configuration names.
///
/// # Errors
/// The file can't be read, is writable by others, or has an invalid line.
pub(super) fn load_whitelist(config: &Config) -> Result<WhiteList, LocatedError> {
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

/// Error that ends the server.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServerError {
    /// bind(2) or listen(2) fails for this address.
    #[error("can't listen on {0}: {1}")]
    Bind(SocketAddr, io::Error),
    /// poll(2) or accept(2) fails for good.
    #[error("can't accept connections any more: {0}")]
    Listener(io::Error),
}
