//! A client connection, plain or TLS, on which every read and write has a deadline, so
//! that a slow or silent client occupies the server for a bounded time. After SIGTERM or
//! SIGINT the deadline is shortened by [`StopSignal::limit`].

use crate::stop_signal::StopSignal;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Time for which unread input is drained after the last answer (lingering close,
/// RFC 9112, 9.6).
const LINGER: Duration = Duration::from_millis(500);

/// Maximum number of bytes drained in a lingering close. It exceeds the largest accepted
/// body, since most clients read the answer only after sending the whole body.
const LINGER_MAX: usize = 20 << 20;

/// An established connection; with TLS, the handshake is complete.
pub(crate) enum Connection {
    /// HTTP.
    Plain(DeadlineStream),
    /// HTTP over TLS.
    Tls(Box<StreamOwned<ServerConnection, DeadlineStream>>),
}

/// A blocking TCP socket whose reads and writes fail with `TimedOut` after a deadline.
pub(crate) struct DeadlineStream {
    socket: TcpStream,
    deadline: Instant,
    stop: StopSignal,
}

impl Connection {
    /// Wraps an accepted socket without TLS.
    ///
    /// # Errors
    /// A socket option can't be set.
    pub(crate) fn plain(socket: TcpStream, deadline: Instant, stop: &StopSignal) -> io::Result<Connection> {
        Ok(Connection::Plain(DeadlineStream::new(socket, deadline, stop)?))
    }

    /// Wraps an accepted socket and completes the TLS handshake before the deadline.
    ///
    /// # Errors
    /// The handshake fails or exceeds the deadline, or a socket option can't be set.
    pub(crate) fn tls(
        socket: TcpStream,
        deadline: Instant,
        stop: &StopSignal,
        config: &Arc<ServerConfig>,
    ) -> io::Result<Connection> {
        let mut socket = DeadlineStream::new(socket, deadline, stop)?;
        let mut tls = ServerConnection::new(Arc::clone(config)).map_err(io::Error::other)?;
        while tls.is_handshaking() {
            tls.complete_io(&mut socket)?;
        }
        Ok(Connection::Tls(Box::new(StreamOwned::new(tls, socket))))
    }

    /// Sets the deadline of all subsequent reads and writes.
    pub(crate) fn set_deadline(&mut self, deadline: Instant) {
        self.stream().deadline = deadline;
    }

    /// Whether decrypted bytes are buffered in the TLS session, which poll(2) of the
    /// socket does not report.
    pub(crate) fn has_pending(&mut self) -> bool {
        match self {
            Connection::Plain(_) => false,
            Connection::Tls(tls) => {
                tls.conn.process_new_packets().is_ok_and(|state| state.plaintext_bytes_to_read() > 0)
            }
        }
    }

    /// Sends close_notify (TLS) and FIN. If the client is still sending, drains its input
    /// for at most [`LINGER`] and [`LINGER_MAX`]: closing a socket with unread input sends
    /// RST, which may discard the answer before the client reads it (RFC 9112, 9.6).
    pub(crate) fn close(mut self, client_is_sending: bool) {
        if let Connection::Tls(tls) = &mut self {
            tls.conn.send_close_notify();
            let _ = tls.flush();
        }
        let stream = self.stream();
        let _ = stream.socket.shutdown(Shutdown::Write);
        stream.deadline = Instant::now() + LINGER;
        let mut received = 0;
        while client_is_sending && received < LINGER_MAX {
            match stream.read(&mut [0; 16 << 10]) {
                Ok(0) | Err(_) => return,
                Ok(length) => received += length,
            }
        }
    }

    fn stream(&mut self) -> &mut DeadlineStream {
        match self {
            Connection::Plain(stream) => stream,
            Connection::Tls(tls) => &mut tls.sock,
        }
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Connection::Plain(stream) => stream.socket.as_fd(),
            Connection::Tls(tls) => tls.sock.socket.as_fd(),
        }
    }
}

impl Read for Connection {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        match self {
            Connection::Plain(stream) => stream.read(bytes),
            Connection::Tls(tls) => tls.read(bytes),
        }
    }
}

impl Write for Connection {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Connection::Plain(stream) => stream.write(bytes),
            Connection::Tls(tls) => tls.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Connection::Plain(stream) => stream.flush(),
            Connection::Tls(tls) => tls.flush(),
        }
    }
}

impl DeadlineStream {
    fn new(socket: TcpStream, deadline: Instant, stop: &StopSignal) -> io::Result<DeadlineStream> {
        socket.set_nonblocking(false)?;
        socket.set_nodelay(true)?;
        Ok(DeadlineStream { socket, deadline, stop: stop.clone() })
    }

    /// The time until the deadline, as a socket time-out. It is never zero, which stands for
    /// no time-out in SO_RCVTIMEO and SO_SNDTIMEO (socket(7)).
    fn left(&self) -> io::Result<Option<Duration>> {
        match self.stop.limit(self.deadline).checked_duration_since(Instant::now()) {
            None | Some(Duration::ZERO) => Err(io::ErrorKind::TimedOut.into()),
            left => Ok(left),
        }
    }
}

/// Maps `WouldBlock`, which SO_RCVTIMEO and SO_SNDTIMEO give (EAGAIN, socket(7)), to
/// `TimedOut`.
fn timed_out(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::WouldBlock => io::ErrorKind::TimedOut.into(),
        _ => error,
    }
}

impl Read for DeadlineStream {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        loop {
            self.socket.set_read_timeout(self.left()?)?;
            match self.socket.read(bytes) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result.map_err(timed_out),
            }
        }
    }
}

impl Write for DeadlineStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            self.socket.set_write_timeout(self.left()?)?;
            match self.socket.write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result.map_err(timed_out),
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
