//! What the states of a connection ask of whoever knows what requests mean.

use crate::http::answer::Answer;
use crate::http::body::Body;
use crate::http::message::{HttpError, Request};
use rustls::pki_types::CertificateDer;
use std::io;
use std::rc::Rc;
use std::time::Instant;

/// A place in a line, which is free again once it is dropped: who hands places out counts them.
pub(crate) type Place = Rc<()>;

/// A request that is decided on later; its head is at most [`crate::http::message::HEAD_MAX`] long.
#[derive(Debug)]
pub(crate) struct Slowed {
    /// The request.
    pub request: Request,
    /// Its place in the line of those who wait.
    pub place: Place,
    /// When it is decided on, at the earliest.
    pub until: Instant,
}

/// Why a request is not taken.
pub(crate) enum Refusal {
    /// It is refused with this answer.
    Answer(Answer),
    /// It has to wait, and is then asked for again.
    Slowed(Box<Slowed>),
}

impl From<Answer> for Refusal {
    fn from(answer: Answer) -> Refusal {
        Refusal::Answer(answer)
    }
}

/// Who reads the requests: the API, or a test.
pub(crate) trait Handler {
    /// A request whose head is accepted.
    type Pending;

    /// Hears that the TLS handshake is complete, with the certificate that the client has shown and those
    /// between it and the CA; `None` if it has shown none.
    ///
    /// # Errors
    /// The client is refused.
    fn secured(&mut self, chain: Option<&[CertificateDer<'static>]>) -> io::Result<()>;

    /// Decides on a request from its head, before any of its body is read. One that has waited comes
    /// again with its place.
    ///
    /// # Errors
    /// The answer of a request that is refused, or that it has to wait.
    fn begin(
        &mut self,
        request: Request,
        body: &Body,
        place: Option<Place>,
        now: Instant,
    ) -> Result<Self::Pending, Refusal>;

    /// Takes the next bytes of the body.
    ///
    /// # Errors
    /// The answer of a request that is refused.
    fn take(&mut self, pending: &mut Self::Pending, bytes: &[u8]) -> Result<(), Answer>;

    /// Sees the end of the body.
    ///
    /// # Errors
    /// As with [`Handler::take`].
    fn end(&mut self, pending: &mut Self::Pending) -> Result<(), Answer>;

    /// Hears that a request can't be read; `None` leaves it without an answer.
    fn fail(&mut self, pending: Option<&Self::Pending>, error: &HttpError) -> Option<Answer>;
}
