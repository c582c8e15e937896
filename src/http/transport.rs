//! A socket that never blocks, with or without TLS. What rustls holds of either direction is
//! bounded: nothing is read beyond what is taken out at once, and nothing more is encrypted
//! before what was is sent.

use crate::http::tls::reason;
use rustls::pki_types::CertificateDer;
use rustls::{ServerConfig, ServerConnection};
use std::io::{self, BufRead, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

/// Bytes read at a time.
const READ: usize = 16 << 10;

/// Bytes of plain text that one reading makes at most: what it has read, and what was there of a record
/// whose end comes with it.
pub(super) const PLAIN_MAX: usize = READ + RECORD;

/// Bytes encrypted at a time: one record of TLS (RFC 8446, 5.1).
const RECORD: usize = 16 << 10;

/// A client's socket and its TLS session, if it has one.
pub(super) struct Transport {
    socket: TcpStream,
    tls: Option<Box<ServerConnection>>,
    /// Bytes that are encrypted and not all sent.
    in_flight: usize,
    /// Whether close_notify is on its way.
    notified: bool,
}

impl Transport {
    /// Wraps a socket that does not block.
    ///
    /// # Errors
    /// The TLS session can't be made.
    pub(super) fn new(socket: TcpStream, tls: Option<&Arc<ServerConfig>>) -> io::Result<Transport> {
        let session = |config| ServerConnection::new(Arc::clone(config)).map_err(io::Error::other);
        let tls = tls.map(session).transpose()?.map(Box::new);
        Ok(Transport { socket, tls, in_flight: 0, notified: false })
    }

    /// Whether the handshake is incomplete.
    pub(super) fn is_handshaking(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.is_handshaking())
    }

    /// The certificate that the client has shown, and those between it and the CA. A session that is resumed
    /// has those of the first.
    pub(super) fn client_chain(&self) -> Option<&[CertificateDer<'static>]> {
        self.tls.as_ref()?.peer_certificates()
    }

    /// Whether bytes of TLS wait to be sent.
    pub(super) fn wants_write(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.wants_write())
    }

    /// Reads once, appends what it means, and tells whether the client sends no more.
    ///
    /// # Errors
    /// The socket fails, or what comes is not TLS.
    pub(super) fn receive(&mut self, plain: &mut Vec<u8>) -> io::Result<bool> {
        let Some(tls) = &mut self.tls else { return receive_plain(&mut self.socket, plain) };
        let mut received = [0; READ];
        let length = match self.socket.read(&mut received) {
            Ok(0) => return Ok(true),
            Ok(length) => length,
            Err(error) if is_momentary(&error) => return Ok(false),
            Err(error) => return Err(error),
        };
        let mut received = received.get(..length).unwrap_or_default();
        while !received.is_empty() {
            if tls.read_tls(&mut received)? == 0 {
                break;
            }
            let state = tls.process_new_packets().map_err(|error| {
                // The alert that says why; whether it arrives does not matter.
                let _ = tls.write_tls(&mut self.socket);
                io::Error::new(ErrorKind::InvalidData, reason(&error))
            })?;
            take_plaintext(tls, plain)?;
            if state.peer_has_closed() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether bytes have come that nobody has read, such as a close_notify behind the last
    /// request.
    pub(super) fn has_unread(&self) -> bool {
        self.socket.peek(&mut [0]).is_ok_and(|length| length > 0)
    }

    /// Reads once what nobody wants, and tells its length; `None` is the end.
    ///
    /// # Errors
    /// The socket fails.
    pub(super) fn drain(&mut self) -> io::Result<Option<usize>> {
        match self.socket.read(&mut [0; READ]) {
            Ok(0) => Ok(None),
            Ok(length) => Ok(Some(length)),
            Err(error) if is_momentary(&error) => Ok(Some(0)),
            Err(error) => Err(error),
        }
    }

    /// Sends some of the bytes and tells how many are gone; 0 means that there is no room.
    /// The rest is to be offered again, from its beginning.
    ///
    /// # Errors
    /// The socket fails.
    pub(super) fn send(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(tls) = &mut self.tls else { return write(&mut self.socket, bytes) };
        if self.in_flight == 0 {
            self.in_flight = tls.writer().write(bytes.get(..RECORD).unwrap_or(bytes))?;
        }
        let sent = self.flush()?;
        Ok(if sent { std::mem::take(&mut self.in_flight) } else { 0 })
    }

    /// Sends what TLS has to send and tells whether all of it is gone.
    ///
    /// # Errors
    /// The socket fails.
    pub(super) fn flush(&mut self) -> io::Result<bool> {
        let Some(tls) = &mut self.tls else { return Ok(true) };
        while tls.wants_write() {
            match tls.write_tls(&mut self.socket) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Sends close_notify and, if the client may still be sending, FIN; tells whether all of
    /// it is gone. Closing a socket with unread input sends RST, which may discard the answer
    /// before the client reads it (RFC 9112, 9.6).
    ///
    /// # Errors
    /// The socket fails.
    pub(super) fn finish(&mut self, lingers: bool) -> io::Result<bool> {
        if let Some(tls) = self.tls.as_mut().filter(|_| !std::mem::replace(&mut self.notified, true)) {
            tls.send_close_notify();
        }
        let sent = self.flush()?;
        if sent && lingers {
            self.socket.shutdown(Shutdown::Write)?;
        }
        Ok(sent)
    }
}

impl AsFd for Transport {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Reads once without TLS, straight to where it stays, and tells whether the client sends no more.
fn receive_plain(socket: &mut TcpStream, plain: &mut Vec<u8>) -> io::Result<bool> {
    let start = plain.len();
    plain.resize(start.saturating_add(READ), 0);
    let read = socket.read(plain.get_mut(start..).unwrap_or_default());
    plain.truncate(start.saturating_add(*read.as_ref().unwrap_or(&0)));
    match read {
        Ok(length) => Ok(length == 0),
        Err(error) if is_momentary(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Moves what is decrypted.
fn take_plaintext(tls: &mut ServerConnection, plain: &mut Vec<u8>) -> io::Result<()> {
    let mut reader = tls.reader();
    loop {
        let length = match reader.fill_buf() {
            Ok(bytes) => {
                plain.extend_from_slice(bytes);
                bytes.len()
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
            Err(error) => return Err(error),
        };
        if length == 0 {
            return Ok(());
        }
        reader.consume(length);
    }
}

fn write(socket: &mut TcpStream, bytes: &[u8]) -> io::Result<usize> {
    match socket.write(bytes) {
        Err(error) if is_momentary(&error) => Ok(0),
        written => written,
    }
}

fn is_momentary(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}
