//! How the states of a connection end otherwise than by what the client sends: deadlines, a close in order,
//! and a connection that breaks.

use super::{CLOSE_TIME, Conversation, LINGER, State};
use crate::http::answer::Delivery;
use crate::http::handler::{Handler, Slowed};
use crate::http::message::HttpError;
use std::io;
use std::mem;
use std::time::Instant;

impl<P> Conversation<P> {
    pub(super) fn late(&mut self, now: Instant, handler: &mut impl Handler<Pending = P>) {
        match mem::replace(&mut self.state, State::Closed) {
            State::Handshake => drop(handler.fail(None, &HttpError::Tls(io::ErrorKind::TimedOut.into()))),
            State::Head => {
                let answer = handler.fail(None, &HttpError::Slow);
                self.refuse(answer, Delivery::last(), now);
            }
            State::Slowed(slowed) => {
                let Slowed { request, place, .. } = *slowed;
                self.begin(request, Some(place), now, handler);
            }
            State::Body { pending, delivery, .. } => {
                let answer = handler.fail(Some(&pending), &HttpError::Slow);
                self.refuse(answer, delivery, now);
            }
            State::Idle => {
                self.state = State::Idle;
                self.close(now);
            }
            state @ (State::Waiting { .. } | State::Working(_)) => self.state = state,
            State::Answer { .. } | State::Closing { .. } | State::Linger(_) | State::Closed => {}
        }
    }

    /// Closes in order: an answer that has begun is finished, nothing else is.
    pub(super) fn close(&mut self, now: Instant) {
        self.stopping = true;
        match &mut self.state {
            State::Answer { delivery, .. } => *delivery = delivery.closing(),
            State::Handshake | State::Head | State::Slowed(_) | State::Body { .. } | State::Idle => {
                self.state = State::Closing { linger: false };
                self.deadline = now + CLOSE_TIME;
            }
            State::Waiting { .. }
            | State::Working(_)
            | State::Closing { .. }
            | State::Linger(_)
            | State::Closed => {}
        }
    }

    pub(super) fn finished(&mut self, now: Instant) {
        if let State::Closing { linger } = self.state {
            let lingers = linger && !self.ended;
            self.state = if lingers { State::Linger(0) } else { State::Closed };
            self.deadline = now + LINGER;
            self.input.clear();
        }
    }

    pub(super) fn break_off(&mut self, error: io::Error, handler: &mut impl Handler<Pending = P>) {
        self.output.clear();
        match mem::replace(&mut self.state, State::Closed) {
            State::Handshake => drop(handler.fail(None, &HttpError::Tls(error))),
            State::Head if !self.input.is_empty() => drop(handler.fail(None, &HttpError::Io(error))),
            State::Body { pending, .. } => drop(handler.fail(Some(&pending), &HttpError::Io(error))),
            _ => {}
        }
    }
}
