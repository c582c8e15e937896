//! One client's connection, plain or TLS, on which every read and write has a
//! deadline: a client that is slow or silent costs a bounded time, and a short one when
//! rfw has been told to end.

use crate::stop_signal::StopSignal;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a client may go on sending after it has been refused, so that it gets
/// to read why.
const LINGER: Duration = Duration::from_millis(500);

/// The most bytes that a refused client may still send: the rest of a whole body,
/// since few clients look for an answer before they have sent it.
const LINGER_MAX: usize = 20 << 20;

/// A connection, ready for requests.
pub enum Connection {
    /// HTTP.
    Plain(DeadlineStream),
    /// HTTP over TLS.
    Tls(Box<StreamOwned<ServerConnection, DeadlineStream>>),
}

/// A socket with a deadline.
pub struct DeadlineStream {
    socket: TcpStream,
    deadline: Instant,
    stop: StopSignal,
}

impl Connection {
    /// A connection without TLS.
    ///
    /// # Errors
    /// The socket's.
    pub fn plain(socket: TcpStream, deadline: Instant, stop: &StopSignal) -> io::Result<Connection> {
        Ok(Connection::Plain(DeadlineStream::new(socket, deadline, stop)?))
    }

    /// A connection on which the TLS handshake is done before the deadline.
    ///
    /// # Errors
    /// The handshake's, or its deadline.
    pub fn tls(
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

    /// Gives what follows until that moment.
    pub fn set_deadline(&mut self, deadline: Instant) {
        self.timed().deadline = deadline;
    }

    /// Whether something has been received that a poll of the socket won't show.
    pub fn has_pending(&mut self) -> bool {
        match self {
            Connection::Plain(_) => false,
            Connection::Tls(tls) => {
                tls.conn.process_new_packets().is_ok_and(|state| state.plaintext_bytes_to_read() > 0)
            }
        }
    }

    /// Ends the connection in order: says that no more comes, and where the client
    /// is still sending, hears it out for a moment, since a socket closed on unread
    /// bytes would take the answer back.
    pub fn close(mut self, client_is_sending: bool) {
        if let Connection::Tls(tls) = &mut self {
            tls.conn.send_close_notify();
            let _ = tls.flush();
        }
        let timed = self.timed();
        let _ = timed.socket.shutdown(Shutdown::Write);
        timed.deadline = Instant::now() + LINGER;
        let mut heard = 0;
        while client_is_sending && heard < LINGER_MAX {
            match timed.read(&mut [0; 16 << 10]) {
                Ok(0) | Err(_) => return,
                Ok(length) => heard += length,
            }
        }
    }

    fn timed(&mut self) -> &mut DeadlineStream {
        match self {
            Connection::Plain(timed) => timed,
            Connection::Tls(tls) => &mut tls.sock,
        }
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Connection::Plain(timed) => timed.socket.as_fd(),
            Connection::Tls(tls) => tls.sock.socket.as_fd(),
        }
    }
}

impl Read for Connection {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        match self {
            Connection::Plain(timed) => timed.read(bytes),
            Connection::Tls(tls) => tls.read(bytes),
        }
    }
}

impl Write for Connection {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Connection::Plain(timed) => timed.write(bytes),
            Connection::Tls(tls) => tls.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Connection::Plain(timed) => timed.flush(),
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

    /// The time left, which a socket takes for ever if it is zero.
    fn left(&self) -> io::Result<Option<Duration>> {
        match self.stop.limit(self.deadline).checked_duration_since(Instant::now()) {
            None | Some(Duration::ZERO) => Err(io::ErrorKind::TimedOut.into()),
            left => Ok(left),
        }
    }
}

/// A socket's time-out is called `WouldBlock`.
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
