//! A client's connection: its socket and the state of what is said on it. It reads and writes
//! what is possible at once and never waits.

use crate::http::answer::Answer;
use crate::http::conversation::{Conversation, Event};
use crate::http::handler::Handler;
use crate::http::transport::{PLAIN_MAX, Transport};
use rustix::event::PollFlags;
use rustls::ServerConfig;
use std::io;
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Instant;
use zeroize::Zeroize;

/// Parts of an answer sent before others get their turn.
const PARTS_MAX: usize = 4;

/// A connection; `P` is a request that is not yet answered.
pub(crate) struct Connection<P> {
    transport: Transport,
    conversation: Conversation<P>,
    /// When a byte last came or went.
    active: Instant,
    /// Whether a byte has come.
    has_spoken: bool,
}

impl<P> Connection<P> {
    /// A connection that has just been accepted, whose socket does not block.
    ///
    /// # Errors
    /// The TLS session can't be made.
    pub(crate) fn new(
        socket: TcpStream,
        tls: Option<&Arc<ServerConfig>>,
        now: Instant,
    ) -> io::Result<Connection<P>> {
        let transport = Transport::new(socket, tls)?;
        let conversation = Conversation::new(tls.is_some(), now);
        Ok(Connection { transport, conversation, active: now, has_spoken: false })
    }

    /// What is said on the connection.
    pub(crate) fn conversation(&mut self) -> &mut Conversation<P> {
        &mut self.conversation
    }

    /// The same, to look at.
    pub(crate) fn state(&self) -> &Conversation<P> {
        &self.conversation
    }

    /// When a byte last came or went.
    pub(crate) fn active(&self) -> Instant {
        self.active
    }

    /// Whether a byte has come.
    pub(crate) fn has_spoken(&self) -> bool {
        self.has_spoken
    }

    /// What to poll for. While something waits to be sent nothing is read, so that a client
    /// who takes nothing has nothing kept for him. That one has gone who waits for the decision on his
    /// request shows at once ([`PollFlags::RDHUP`]).
    pub(crate) fn interest(&self) -> PollFlags {
        let gone = if self.conversation.is_slowed() { PollFlags::RDHUP } else { PollFlags::empty() };
        gone | if !self.conversation.output().is_empty() || self.transport.wants_write() {
            PollFlags::OUT
        } else if self.conversation.wants_input() {
            PollFlags::IN
        } else {
            PollFlags::empty()
        }
    }

    /// Reads once, if there is something to read, and sends what can be sent.
    pub(crate) fn drive(&mut self, readable: bool, now: Instant, handler: &mut impl Handler<Pending = P>) {
        let read = if readable { self.receive(now, handler) } else { Ok(()) };
        if let Err(error) = read.and_then(|()| self.send(now, handler)) {
            self.conversation.step(Event::Broken(error), now, handler);
        }
    }

    /// Tells what has happened, and sends what follows from it.
    pub(crate) fn step(&mut self, event: Event<'_>, now: Instant, handler: &mut impl Handler<Pending = P>) {
        self.conversation.step(event, now, handler);
        self.drive(false, now, handler);
    }

    /// Answers the request that has been taken.
    pub(crate) fn answer(&mut self, answer: Answer, now: Instant, handler: &mut impl Handler<Pending = P>) {
        self.conversation.answer(answer, now);
        self.drive(false, now, handler);
    }

    /// Closes without waiting for anything; a client with TLS is told, if that is possible.
    pub(crate) fn cut(&mut self, now: Instant, handler: &mut impl Handler<Pending = P>) {
        self.step(Event::Close, now, handler);
        self.conversation.step(Event::Broken(io::ErrorKind::ConnectionAborted.into()), now, handler);
    }

    fn receive(&mut self, now: Instant, handler: &mut impl Handler<Pending = P>) -> io::Result<()> {
        if !self.conversation.wants_input() {
            return Ok(());
        }
        if self.conversation.is_lingering() {
            let event = self.transport.drain()?.map_or(Event::End, Event::Drained);
            self.conversation.step(event, now, handler);
            return Ok(());
        }
        let in_head = !self.conversation.is_in_body();
        // A head is wiped below; if this had to grow, copies of it would stay.
        let mut plain = Vec::with_capacity(if in_head { PLAIN_MAX } else { 0 });
        let ended = self.transport.receive(&mut plain)?;
        (self.active, self.has_spoken) = (now, true);
        if self.conversation.is_handshaking() && !self.transport.is_handshaking() {
            handler.secured(self.transport.client_chain())?;
            self.conversation.step(Event::Secured, now, handler);
        }
        if !plain.is_empty() {
            self.conversation.step(Event::Received(&plain), now, handler);
        }
        // It has what clients log in with.
        if in_head {
            plain.as_mut_slice().zeroize();
        }
        if ended {
            self.conversation.step(Event::End, now, handler);
        }
        Ok(())
    }

    fn send(&mut self, now: Instant, handler: &mut impl Handler<Pending = P>) -> io::Result<()> {
        for _ in 0..PARTS_MAX {
            let output = self.conversation.output();
            if output.is_empty() {
                break;
            }
            let sent = self.transport.send(output)?;
            if sent == 0 {
                return Ok(());
            }
            self.active = now;
            self.conversation.step(Event::Sent(sent), now, handler);
        }
        if self.conversation.is_closing() == Some(false) && self.transport.has_unread() {
            self.conversation.linger();
        }
        match self.conversation.is_closing() {
            Some(lingers) => {
                if self.transport.finish(lingers)? {
                    self.conversation.step(Event::Finished, now, handler);
                }
            }
            None => drop(self.transport.flush()?),
        }
        Ok(())
    }
}

impl<P> AsFd for Connection<P> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.transport.as_fd()
    }
}
