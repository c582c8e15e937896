//! What the states of a connection ask of whoever knows what requests mean.

use crate::http::answer::Answer;
use crate::http::body::Body;
use crate::http::message::{HttpError, Request};
use rustls::pki_types::CertificateDer;
use std::io;

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

    /// Decides on a request from its head, before any of its body is read.
    ///
    /// # Errors
    /// The answer of a request that is refused.
    fn begin(&mut self, request: Request, body: &Body) -> Result<Self::Pending, Answer>;

    /// Takes the next bytes of the body.
    ///
    /// # Errors
    /// As with [`Handler::begin`].
    fn take(&mut self, pending: &mut Self::Pending, bytes: &[u8]) -> Result<(), Answer>;

    /// Sees the end of the body.
    ///
    /// # Errors
    /// As with [`Handler::begin`].
    fn end(&mut self, pending: &mut Self::Pending) -> Result<(), Answer>;

    /// Hears that a request can't be read; `None` leaves it without an answer.
    fn fail(&mut self, pending: Option<&Self::Pending>, error: &HttpError) -> Option<Answer>;
}
