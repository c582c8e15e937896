//! The states of a connection, from the handshake to the end, without a socket.
//!
//! [`Conversation::step`] takes what has happened (bytes came or went, the connection ended, a
//! deadline has passed) and moves on as far as it can. What to wait for follows: input where
//! [`Conversation::wants_input`], room to send where [`Conversation::output`] is not empty,
//! and [`Conversation::deadline`]. Nothing here blocks, and nothing is kept of a request that
//! is not needed to answer it.

mod end;

use crate::http::answer::{Answer, Delivery, Parts};
use crate::http::body::Body;
use crate::http::buffer::Buffer;
use crate::http::handler::{Handler, Place, Refusal, Slowed};
use crate::http::message::{HttpError, Request, parse_head};
use std::io;
use std::mem;
use std::time::{Duration, Instant};

/// Maximum duration of the TLS handshake and the first request head together, and of each
/// further request head from its first byte on.
const REQUEST_TIME: Duration = Duration::from_secs(5);

/// Maximum idle time of a persistent connection.
const IDLE_TIME: Duration = Duration::from_secs(300);

/// Maximum time without a byte of a body that comes, or of an answer that goes.
const STEP_TIME: Duration = Duration::from_secs(5);

/// Maximum duration of receiving a whole body, or of sending a whole answer.
const WHOLE_TIME: Duration = Duration::from_secs(60);

/// Maximum time for the last bytes of a connection: what is not yet sent, and close_notify.
const CLOSE_TIME: Duration = Duration::from_secs(1);

/// Time for which unread input is drained after the last answer (lingering close,
/// RFC 9112, 9.6).
const LINGER: Duration = Duration::from_millis(500);

/// Maximum number of bytes drained in a lingering close. It exceeds the largest accepted
/// body, since most clients read the answer only after sending the whole body.
const LINGER_MAX: usize = 20 << 20;

/// What has happened to a connection.
#[derive(Debug)]
pub(crate) enum Event<'a> {
    /// The TLS handshake is complete.
    Secured,
    /// These bytes have come.
    Received(&'a [u8]),
    /// So many bytes have come that nobody reads.
    Drained(usize),
    /// The client sends no more.
    End,
    /// So many bytes of the output are sent.
    Sent(usize),
    /// The deadline has passed.
    Late,
    /// The connection is to be closed in order.
    Close,
    /// All is sent, close_notify included.
    Finished,
    /// The connection is of no use any more.
    Broken(io::Error),
}

/// The states, in their usual order; `P` is a request that is not yet answered.
enum State<P> {
    /// TLS is being set up.
    Handshake,
    /// Waits for the rest of a request head; before the first request also for its beginning.
    Head,
    /// Has the head of a request that is decided on at the deadline.
    Slowed(Box<Slowed>),
    /// Takes the body of a request.
    Body { pending: P, body: Body, delivery: Delivery, expects_continue: bool },
    /// Has a whole request that waits for its turn.
    Waiting { pending: P, delivery: Delivery },
    /// The request is being executed.
    Working(Delivery),
    /// Sends an answer.
    Answer { parts: Option<Parts>, delivery: Delivery, linger: bool },
    /// Kept for the next request.
    Idle,
    /// Sends what is left and close_notify.
    Closing { linger: bool },
    /// Drains so many bytes that nobody will read.
    Linger(usize),
    /// Over.
    Closed,
}

/// A connection as it appears without its socket.
pub(crate) struct Conversation<P> {
    state: State<P>,
    input: Buffer,
    output: Buffer,
    /// Whether the client sends no more.
    ended: bool,
    /// Whether no further request is taken.
    stopping: bool,
    /// Bytes of the body of the request at hand.
    taken: u64,
    /// The end of the present state; that of a body or an answer as a whole.
    deadline: Instant,
    whole: Instant,
    /// Since when a body waits unread.
    held: Option<Instant>,
}

impl<P> Conversation<P> {
    /// A connection that has just been accepted.
    pub(crate) fn new(secure: bool, now: Instant) -> Conversation<P> {
        let state = if secure { State::Handshake } else { State::Head };
        let deadline = now + REQUEST_TIME;
        let (input, output) = (Buffer::default(), Buffer::default());
        Conversation {
            state,
            input,
            output,
            ended: false,
            stopping: false,
            taken: 0,
            deadline,
            whole: deadline,
            held: None,
        }
    }

    /// Whether bytes are of use; they come as [`Event::Received`].
    pub(crate) fn wants_input(&self) -> bool {
        let reads = match self.state {
            State::Handshake | State::Head | State::Body { .. } | State::Idle => self.output.is_empty(),
            State::Linger(_) => true,
            State::Slowed(_)
            | State::Waiting { .. }
            | State::Working(_)
            | State::Answer { .. }
            | State::Closing { .. }
            | State::Closed => false,
        };
        reads && !self.ended
    }

    /// What is to be sent; it goes by [`Event::Sent`].
    pub(crate) fn output(&self) -> &[u8] {
        self.output.bytes()
    }

    /// When [`Event::Late`] is due. A request that waits for its turn has no deadline, nor has
    /// a body that waits unread.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let waits = matches!(self.state, State::Waiting { .. } | State::Working(_) | State::Closed);
        (!waits && !self.is_held()).then_some(self.deadline)
    }

    /// Whether a body waits unread.
    pub(crate) fn is_held(&self) -> bool {
        self.held.is_some() && self.is_in_body()
    }

    /// Bytes of the body of the request at hand.
    pub(crate) fn taken(&self) -> u64 {
        self.taken
    }

    /// Whether TLS is being set up.
    pub(crate) fn is_handshaking(&self) -> bool {
        matches!(self.state, State::Handshake)
    }

    /// Whether a request waits for the decision on it. A client who ends meanwhile is gone.
    pub(crate) fn is_slowed(&self) -> bool {
        matches!(self.state, State::Slowed(_))
    }

    /// Whether a body is being taken.
    pub(crate) fn is_in_body(&self) -> bool {
        matches!(self.state, State::Body { .. })
    }

    /// Whether a whole request waits for its turn.
    pub(crate) fn is_waiting(&self) -> bool {
        matches!(self.state, State::Waiting { .. })
    }

    /// The request that waits for its turn.
    pub(crate) fn request(&self) -> Option<&P> {
        match &self.state {
            State::Waiting { pending, .. } => Some(pending),
            _ => None,
        }
    }

    /// Whether only the end is still to be sent, and whether the client may be sending then.
    pub(crate) fn is_closing(&self) -> Option<bool> {
        match self.state {
            State::Closing { linger } if self.output.is_empty() => Some(linger),
            _ => None,
        }
    }

    /// Whether what comes is only drained.
    pub(crate) fn is_lingering(&self) -> bool {
        matches!(self.state, State::Linger(_))
    }

    /// Whether it is over.
    pub(crate) fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed)
    }

    /// Has what the client sends drained behind the end.
    pub(crate) fn linger(&mut self) {
        if let State::Closing { linger } = &mut self.state {
            *linger = true;
        }
    }

    /// Takes the request that waits for its turn, to be answered by [`Conversation::answer`].
    pub(crate) fn take_request(&mut self) -> Option<P> {
        match mem::replace(&mut self.state, State::Closed) {
            State::Waiting { pending, delivery } => {
                self.state = State::Working(delivery);
                Some(pending)
            }
            state => {
                self.state = state;
                None
            }
        }
    }

    /// Answers the request that has been taken.
    pub(crate) fn answer(&mut self, answer: Answer, now: Instant) {
        if let State::Working(delivery) = self.state {
            self.respond(answer, delivery, false, now);
        }
    }

    /// Has a body wait unread, or lets it go on. While it waits its time does not pass, since
    /// that is not the client's fault.
    pub(crate) fn hold(&mut self, held: bool, now: Instant) {
        let since = self.held.take().filter(|_| self.is_in_body());
        if let Some(since) = since {
            self.whole += now.saturating_duration_since(since);
            self.deadline = self.whole.min(now + STEP_TIME);
        }
        self.held = held.then_some(now);
    }

    /// Moves the deadline, since it is rfw that took so long; not that of a client who waits for it.
    pub(crate) fn postpone(&mut self, time: Duration) {
        if !self.is_slowed() {
            self.deadline += time;
            self.whole += time;
        }
    }

    /// Moves on by one event.
    pub(crate) fn step(&mut self, event: Event<'_>, now: Instant, handler: &mut impl Handler<Pending = P>) {
        match event {
            Event::Secured if self.is_handshaking() => self.state = State::Head,
            Event::Secured => {}
            Event::Received(bytes) => self.receive(bytes, now),
            Event::Drained(length) => self.drained(length),
            Event::End => self.ended = true,
            Event::Sent(length) => {
                self.output.consume(length);
                self.go_on_until(now);
            }
            Event::Late => self.late(now, handler),
            Event::Close => self.close(now),
            Event::Finished => self.finished(now),
            Event::Broken(error) => self.break_off(error, handler),
        }
        while self.advance(now, handler) {}
    }

    fn receive(&mut self, bytes: &[u8], now: Instant) {
        if matches!(self.state, State::Closing { .. } | State::Linger(_) | State::Closed) {
            return;
        }
        self.input.extend_secret(bytes);
        if self.is_in_body() {
            self.go_on_until(now);
        }
    }

    fn drained(&mut self, length: usize) {
        if let State::Linger(total) = &mut self.state {
            *total = total.saturating_add(length);
            if *total > LINGER_MAX {
                self.state = State::Closed;
            }
        }
    }

    /// Allows the next step of a body or an answer its time.
    fn go_on_until(&mut self, now: Instant) {
        if matches!(self.state, State::Body { .. } | State::Answer { .. }) {
            self.deadline = self.whole.min(now + STEP_TIME);
        }
    }

    /// Moves on where nothing more has to happen for it, and tells whether it did.
    fn advance(&mut self, now: Instant, handler: &mut impl Handler<Pending = P>) -> bool {
        match self.state {
            State::Handshake if self.ended => {
                self.break_off(io::ErrorKind::UnexpectedEof.into(), handler);
                true
            }
            State::Idle if self.input.bytes().starts_with(b"\r\n") => {
                // An empty line before a request line is ignored (RFC 9112, 2.2).
                self.input.consume(2);
                true
            }
            State::Idle if !self.input.is_empty() => {
                (self.state, self.deadline) = (State::Head, now + REQUEST_TIME);
                true
            }
            State::Idle if self.ended => {
                self.close(now);
                true
            }
            State::Head => self.read_head(now, handler),
            State::Body { .. } => self.read_body(now, handler),
            State::Answer { .. } if self.output.is_empty() => self.go_on_answering(now),
            State::Slowed(_) | State::Linger(_) if self.ended => {
                self.state = State::Closed;
                true
            }
            _ => false,
        }
    }

    fn read_head(&mut self, now: Instant, handler: &mut impl Handler<Pending = P>) -> bool {
        match parse_head(self.input.bytes()) {
            Ok(Some((request, length))) => {
                self.input.consume_secret(length);
                self.begin(request, None, now, handler);
            }
            Ok(None) if !self.ended => return false,
            Ok(None) if self.input.is_empty() => self.close(now),
            Ok(None) => self.break_off(io::ErrorKind::UnexpectedEof.into(), handler),
            Err(error) => {
                let answer = handler.fail(None, &error);
                self.refuse(answer, Delivery::last(), now);
            }
        }
        true
    }

    fn begin(
        &mut self,
        request: Request,
        place: Option<Place>,
        now: Instant,
        handler: &mut impl Handler<Pending = P>,
    ) {
        let (body, delivery) = (Body::new(request.body), Delivery::to(&request));
        let expects_continue = request.expects_continue;
        match handler.begin(request, &body, place, now) {
            Ok(pending) => {
                self.whole = now + WHOLE_TIME;
                self.deadline = now + STEP_TIME;
                self.state = State::Body { pending, body, delivery, expects_continue };
            }
            Err(Refusal::Answer(answer)) => self.respond(answer, delivery, !body.is_ended(), now),
            Err(Refusal::Slowed(slowed)) => {
                self.deadline = slowed.until;
                self.state = State::Slowed(slowed);
            }
        }
    }

    fn read_body(&mut self, now: Instant, handler: &mut impl Handler<Pending = P>) -> bool {
        let State::Body { mut pending, mut body, delivery, mut expects_continue } =
            mem::replace(&mut self.state, State::Closed)
        else {
            return false;
        };
        let taken = take_body(&mut pending, &mut body, &mut self.input, handler);
        self.taken = body.taken();
        match taken {
            Err(answer) => match answer {
                Some(answer) => self.respond(answer, delivery, !body.is_ended(), now),
                None => self.state = State::Closed,
            },
            Ok(()) if body.is_ended() => match handler.end(&mut pending) {
                Ok(()) => self.state = State::Waiting { pending, delivery },
                Err(answer) => self.respond(answer, delivery, false, now),
            },
            Ok(()) if self.ended => drop(handler.fail(Some(&pending), &HttpError::cut_off())),
            Ok(()) => {
                if mem::take(&mut expects_continue) && self.input.is_empty() {
                    self.output.extend(b"HTTP/1.1 100 Continue\r\n\r\n");
                }
                self.state = State::Body { pending, body, delivery, expects_continue };
                return false;
            }
        }
        true
    }

    /// Answers a request that can't be read, of which more may be under way.
    fn refuse(&mut self, answer: Option<Answer>, delivery: Delivery, now: Instant) {
        match answer {
            Some(answer) => self.respond(answer, delivery, true, now),
            None => self.state = State::Closed,
        }
    }

    /// Begins an answer; `unread` tells that the request has not been read to its end.
    fn respond(&mut self, answer: Answer, delivery: Delivery, unread: bool, now: Instant) {
        let delivery = if unread || self.stopping { delivery.closing() } else { delivery };
        self.taken = 0;
        let Ok((printed, mut parts)) = delivery.print(answer) else {
            self.state = State::Closed;
            return;
        };
        self.output.extend(&printed);
        // The first part goes along with the head.
        if let Some(text) = parts.as_mut().and_then(Iterator::next) {
            self.output.extend(&delivery.part(Some(&text)));
        }
        self.whole = now + WHOLE_TIME;
        self.deadline = now + STEP_TIME;
        self.state = State::Answer { parts, delivery, linger: unread };
    }

    /// Goes on with the next part of an answer, or to what comes after it.
    fn go_on_answering(&mut self, now: Instant) -> bool {
        let State::Answer { parts, delivery, linger } = &mut self.state else { return false };
        let (delivery, linger) = (*delivery, *linger);
        if let Some(rest) = parts {
            let next = rest.next();
            self.output.extend(&delivery.part(next.as_deref()));
            if next.is_none() {
                *parts = None;
            }
        } else if delivery.closes() {
            self.state = State::Closing { linger: linger || !self.input.is_empty() };
            self.deadline = now + CLOSE_TIME;
        } else {
            // With input at hand the next step is that of a head.
            (self.state, self.deadline) = (State::Idle, now + IDLE_TIME);
        }
        true
    }
}

/// Hands on what has come of a body; an error is the answer, if there is one.
fn take_body<H: Handler>(
    pending: &mut H::Pending,
    body: &mut Body,
    input: &mut Buffer,
    handler: &mut H,
) -> Result<(), Option<Answer>> {
    loop {
        let length = match body.available(input) {
            Ok(0) => return Ok(()),
            Ok(length) => length,
            Err(error) => return Err(handler.fail(Some(pending), &error)),
        };
        let taken = handler.take(pending, input.bytes().get(..length).unwrap_or_default());
        body.take(input, length);
        taken.map_err(Some)?;
    }
}

#[cfg(test)]
#[path = "conversation/tests.rs"]
mod tests;
