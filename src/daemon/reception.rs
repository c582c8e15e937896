//! What the requests of a client go through, from the bytes to the API.

use crate::api::{self, Peer, Pending, Refused, Service};
use crate::http::answer::Answer;
use crate::http::body::Body;
use crate::http::handler::{Handler, Place, Refusal};
use crate::http::message::{HttpError, Request};
use crate::http::tls::Identity;
use crate::log_limit::LogLimit;
use rustls::pki_types::CertificateDer;
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};

/// The limits of log lines that strangers cause, one for each cause.
#[derive(Default)]
pub(super) struct Lines {
    /// Peers that are not in the white list.
    pub unlisted: LogLimit,
    /// Connections that are closed or refused at a bound.
    pub crowded: LogLimit,
    /// Connections that can't be accepted.
    pub accept: LogLimit,
    /// Handshakes that fail.
    pub handshake: LogLimit,
    /// Requests that can't be read.
    pub unreadable: LogLimit,
}

/// What the requests of a client go through.
pub(super) struct Reception<'a> {
    /// The API.
    pub service: &'a mut Service,
    /// The limits of log lines.
    pub lines: &'a mut Lines,
    /// What the HTTPS server asks of clients.
    pub identity: Option<&'a Identity>,
    /// The client.
    pub peer: Peer,
}

impl Reception<'_> {
    /// Counts the answer to a request that is refused while its body comes.
    fn count_refusal(&mut self, pending: &Pending, answer: Option<&Answer>, since: Instant) {
        if let Some(answer) = answer {
            self.service.count_answer(Some(pending.method()), answer, since.elapsed());
        }
    }

    /// Whether the client would be admitted at `now`. While TLS is being set up it has not shown its certificate.
    pub(super) fn still_admits(&self, is_handshaking: bool, now: SystemTime) -> bool {
        if self.peer.local {
            return true;
        }
        let identity = self.identity.filter(|_| !is_handshaking);
        let accepted = identity.map_or(Ok(()), |it| it.still_accepts(self.peer.certificate.as_deref(), now));
        if let Err(why) = &accepted {
            log::info!("{}: connection closed: {why}", self.peer.address);
        }
        accepted.is_ok() && self.service.admits(self.peer.address)
    }
}

impl Handler for Reception<'_> {
    type Pending = Pending;

    fn secured(&mut self, chain: Option<&[CertificateDer<'static>]>) -> io::Result<()> {
        let Some(identity) = self.identity else { return Ok(()) };
        let certificate = identity.admit(chain, SystemTime::now()).map_err(io::Error::other)?;
        self.peer.certificate = certificate.map(Rc::new);
        if let Some(certificate) = &self.peer.certificate {
            let names = certificate.names.join(", ");
            let names = if names.is_empty() { "nobody that could be named" } else { &names };
            log::debug!("{}: certificate of {names}", self.peer.address);
        }
        Ok(())
    }

    fn begin(
        &mut self,
        request: Request,
        body: &Body,
        place: Option<Place>,
        now: Instant,
    ) -> Result<Pending, Refusal> {
        let method = request.method.clone();
        let begun = self.service.begin(&mut self.peer, request, body, place, now);
        if let Err(Refusal::Answer(answer)) = &begun {
            self.service.count_answer(Some(&method), answer, now.elapsed());
        }
        begun
    }

    fn take(&mut self, pending: &mut Pending, bytes: &[u8]) -> Result<(), Answer> {
        let now = Instant::now();
        let taken = pending.take(bytes);
        self.count_refusal(pending, taken.as_ref().err(), now);
        taken
    }

    fn end(&mut self, pending: &mut Pending) -> Result<(), Answer> {
        let now = Instant::now();
        let ended = pending.end(now);
        self.count_refusal(pending, ended.as_ref().err(), now);
        ended
    }

    fn fail(&mut self, pending: Option<&Pending>, error: &HttpError) -> Option<Answer> {
        let Some(pending) = pending else {
            let (now, from) = (Instant::now(), self.peer.address);
            match error {
                HttpError::Tls(_) => {
                    self.lines.handshake.log(now, log::Level::Info, format_args!("{from}: {error}"));
                }
                _ => {
                    self.lines.unreadable.log_pairs(now, log::Level::Info, api::unreadable_line(from, error))
                }
            }
            let answer = self.service.unreadable(error);
            match (&answer, error) {
                (Some(answer), _) => self.service.count_answer(None, answer, Duration::ZERO),
                (None, HttpError::Tls(_)) => self.service.count_refused(Refused::Tls),
                (None, _) => {}
            }
            return answer;
        };
        let answer = pending.fail(error);
        self.count_refusal(pending, answer.as_ref(), Instant::now());
        answer
    }
}
