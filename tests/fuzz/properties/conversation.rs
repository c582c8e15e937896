use super::input::{Input, pieces};
use crate::http::answer::{Answer, Content};
use crate::http::body::Body;
use crate::http::conversation::{Conversation, Event};
use crate::http::handler::{Handler, Place, Refusal, Slowed};
use crate::http::message::{HEAD_MAX, HttpError, Request};
use std::io;
use std::time::{Duration, Instant};

/// What a connection reads at a time, at most.
const READ: usize = 16 << 10;

/// The longest time that any state is given.
const LONGEST: Duration = Duration::from_secs(300);

/// Input: a mode and a number for the pieces, and what a client sends; or what happens.
pub(super) fn holds(data: &[u8]) {
    let mut input = Input::new(data);
    match input.byte() % 2 {
        0 => {
            let seed = input.u32();
            let sent = input.rest();
            let whole = talk(sent.chunks(READ));
            assert_eq!(talk(pieces(sent, seed)), whole);
            assert_eq!(talk(sent.chunks(3)), whole);
        }
        _ => happen(input),
    }
}

/// Refuses some requests by their targets, from the head or once whole, and has some wait for a second; a
/// request is its method and target, and the length of its body.
#[derive(Default)]
struct Toy {
    /// Bytes that have come and of which nothing was made.
    unused: usize,
    failures: usize,
}

fn text(status: u16, text: String) -> Answer {
    Answer::json(status, Content::Text(text))
}

impl Handler for Toy {
    type Pending = (String, usize);

    fn secured(&mut self, _: Option<&[rustls::pki_types::CertificateDer<'static>]>) -> io::Result<()> {
        Ok(())
    }

    fn begin(
        &mut self,
        request: Request,
        body: &Body,
        place: Option<Place>,
        now: Instant,
    ) -> Result<(String, usize), Refusal> {
        self.unused = 0;
        assert_eq!(self.failures, 0, "no request after one that can't be read");
        if let Err(error) = body.check_length() {
            return Err(text(error.status().unwrap_or(0), "too long".to_owned()).into());
        }
        match request.target.as_bytes().last() {
            Some(b'x') => Err(text(401, "refused".to_owned()).into()),
            Some(b'z') if place.is_none() => {
                let (place, until) = (Place::default(), now + Duration::from_secs(1));
                Err(Refusal::Slowed(Box::new(Slowed { request, place, until })))
            }
            _ => Ok((format!("{} {}", request.method, request.target), 0)),
        }
    }

    fn take(&mut self, pending: &mut (String, usize), bytes: &[u8]) -> Result<(), Answer> {
        assert!(!bytes.is_empty());
        self.unused = 0;
        pending.1 += bytes.len();
        Ok(())
    }

    fn end(&mut self, pending: &mut (String, usize)) -> Result<(), Answer> {
        match pending.0.as_bytes().last() {
            Some(b'y') => Err(text(422, "refused".to_owned())),
            _ => Ok(()),
        }
    }

    fn fail(&mut self, _: Option<&(String, usize)>, error: &HttpError) -> Option<Answer> {
        self.failures += 1;
        assert_eq!(self.failures, 1, "told once");
        error.status().map(|status| text(status, "failed".to_owned()))
    }
}

/// A conversation, what it has sent, and its clock.
struct Talk {
    conversation: Conversation<(String, usize)>,
    toy: Toy,
    sent: Vec<u8>,
    now: Instant,
}

impl Talk {
    fn new(secure: bool) -> Talk {
        let now = Instant::now();
        Talk { conversation: Conversation::new(secure, now), toy: Toy::default(), sent: Vec::new(), now }
    }

    fn step(&mut self, event: Event<'_>) {
        if let Event::Received(bytes) = event {
            // Empty lines before a request are dropped.
            self.toy.unused += bytes.iter().filter(|byte| !b"\r\n".contains(byte)).count();
        }
        self.conversation.step(event, self.now, &mut self.toy);
        self.check();
    }

    /// What holds after each step.
    fn check(&self) {
        let conversation = &self.conversation;
        if let Some(deadline) = conversation.deadline() {
            assert!(deadline <= self.now + LONGEST, "a deadline that is too far");
        } else {
            let rests = conversation.is_waiting() || conversation.is_held() || conversation.is_closed();
            assert!(rests || !conversation.wants_input(), "no deadline, and input is wanted");
        }
        if conversation.wants_input() && !conversation.is_lingering() && !conversation.is_handshaking() {
            assert!(self.toy.unused <= HEAD_MAX + READ, "more and more is kept");
        }
        if conversation.is_closed() {
            assert!(!conversation.wants_input() && conversation.deadline().is_none());
        }
    }

    fn send_all(&mut self) {
        while !self.conversation.output().is_empty() {
            let output = self.conversation.output();
            let length = output.len();
            self.sent.extend_from_slice(output);
            self.step(Event::Sent(length));
        }
    }

    /// Answers the request that waits, or lets the time of one pass that is slowed; some answers come in
    /// parts.
    fn work(&mut self) -> bool {
        if let Some(deadline) = self.conversation.deadline().filter(|_| self.conversation.is_slowed()) {
            self.now = self.now.max(deadline);
            self.step(Event::Late);
            return true;
        }
        let Some((target, length)) = self.conversation.take_request() else { return false };
        let told = format!("<{target} {length}>");
        let body = match target.as_bytes().last() {
            Some(b'p') => Content::Parts(Box::new([told.clone(), told].into_iter())),
            _ => Content::Text(told),
        };
        self.conversation.answer(Answer::json(200, body), self.now);
        self.step(Event::Sent(0));
        true
    }

    /// One thing that moves a connection on, from rfw's side and that of time.
    fn go_on(&mut self) -> bool {
        self.send_all();
        if self.work() {
            return true;
        }
        if self.conversation.is_closing().is_some() {
            self.step(Event::Finished);
        } else if self.conversation.is_held() {
            self.conversation.hold(false, self.now);
        } else if let Some(deadline) = self.conversation.deadline() {
            self.now = self.now.max(deadline);
            self.step(Event::Late);
        }
        !self.conversation.is_closed()
    }

    /// Whatever has happened, the connection ends where nobody sends anything any more.
    fn end(&mut self) {
        let mut steps = 0;
        while !self.conversation.is_closed() {
            self.go_on();
            steps += 1;
            assert!(steps < 20_000, "a connection without end");
        }
    }
}

/// What a client gets who sends these pieces and then nothing more.
fn talk<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> String {
    let mut talk = Talk::new(false);
    for piece in pieces {
        talk.send_all();
        while talk.work() {
            talk.send_all();
        }
        if talk.conversation.wants_input() {
            talk.step(Event::Received(piece));
        } else {
            assert!(talk.conversation.is_closed() || talk.conversation.is_closing().is_some());
        }
    }
    talk.send_all();
    while talk.work() {
        talk.send_all();
    }
    talk.step(Event::End);
    talk.end();
    let sent = String::from_utf8_lossy(&talk.sent).into_owned();
    // Whether a client is told to go on depends on whether it has.
    let sent = sent.replace("HTTP/1.1 100 Continue\r\n\r\n", "");
    sent.split_inclusive("\r\n").filter(|line| !line.starts_with("Date: ")).collect()
}

fn happen(mut input: Input<'_>) {
    let mut talk = Talk::new(input.byte() % 2 == 1);
    while !input.is_empty() {
        let kind = input.byte();
        match kind % 16 {
            0..=4 if talk.conversation.wants_input() && !talk.conversation.is_lingering() => {
                let length = input.byte();
                talk.step(Event::Received(input.bytes(length.into())));
            }
            0..=4 if talk.conversation.is_lingering() => talk.step(Event::Drained(input.u32() as usize)),
            5 => talk.step(Event::Secured),
            6 => {
                let length = usize::from(input.byte()).min(talk.conversation.output().len());
                talk.step(Event::Sent(length));
            }
            7 => talk.now += Duration::from_millis(input.u16().into()),
            8 if talk.conversation.deadline().is_some_and(|deadline| deadline <= talk.now) => {
                talk.step(Event::Late);
            }
            9 => talk.step(Event::Close),
            10 if talk.conversation.is_closing().is_some() => talk.step(Event::Finished),
            11 => talk.step(Event::End),
            12 => talk.step(Event::Broken(io::ErrorKind::ConnectionReset.into())),
            13 if talk.conversation.is_in_body() => talk.conversation.hold(kind & 16 != 0, talk.now),
            14 => drop(talk.work()),
            15 => drop(talk.go_on()),
            _ => {}
        }
    }
    talk.end();
}
