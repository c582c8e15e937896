//! The states, driven without a socket.

use super::*;
use crate::http::answer::Content;
use proptest::prelude::*;

/// Takes every path but `/refused`, and bodies without an `x`; a request is its target and
/// its body. `/slow` waits for a second.
#[derive(Default)]
struct Toy {
    failures: Vec<String>,
    line: Place,
}

fn text(status: u16, text: &str) -> Answer {
    Answer::json(status, Content::Text(text.to_owned()))
}

impl Handler for Toy {
    type Pending = String;

    fn secured(&mut self, _: Option<&[rustls::pki_types::CertificateDer<'static>]>) -> io::Result<()> {
        Ok(())
    }

    fn begin(
        &mut self,
        request: Request,
        _body: &Body,
        place: Option<Place>,
        now: Instant,
    ) -> Result<String, Refusal> {
        match request.target.as_str() {
            "/refused" => Err(text(401, "refused").into()),
            "/slow" if place.is_none() => {
                let (place, until) = (self.line.clone(), now + Duration::from_secs(1));
                Err(Refusal::Slowed(Box::new(Slowed { request, place, until })))
            }
            target => Ok(target.to_owned()),
        }
    }

    fn take(&mut self, pending: &mut String, bytes: &[u8]) -> Result<(), Answer> {
        pending.push_str(&String::from_utf8_lossy(bytes));
        if bytes.contains(&b'x') { Err(text(400, "an x")) } else { Ok(()) }
    }

    fn end(&mut self, pending: &mut String) -> Result<(), Answer> {
        if pending.ends_with('!') { Err(text(422, "loud")) } else { Ok(()) }
    }

    fn fail(&mut self, pending: Option<&String>, error: &HttpError) -> Option<Answer> {
        self.failures.push(format!("{pending:?} {error}"));
        error.status().map(|status| text(status, "failed"))
    }
}

/// A conversation, what it has sent, and its clock.
struct Talk {
    conversation: Conversation<String>,
    toy: Toy,
    sent: String,
    now: Instant,
}

impl Talk {
    fn new() -> Talk {
        let now = Instant::now();
        let conversation = Conversation::new(false, now);
        Talk { conversation, toy: Toy::default(), sent: String::new(), now }
    }

    /// Lets something happen, and takes all that is to be sent, three bytes at a time.
    fn step(&mut self, event: Event<'_>) {
        self.conversation.step(event, self.now, &mut self.toy);
        loop {
            let output = self.conversation.output();
            let part = output.get(..3).unwrap_or(output);
            if part.is_empty() {
                return;
            }
            self.sent.push_str(&String::from_utf8_lossy(part));
            let length = part.len();
            self.conversation.step(Event::Sent(length), self.now, &mut self.toy);
        }
    }

    /// Sends bytes in pieces of that length, and answers each request with what it was.
    fn say(&mut self, bytes: &[u8], piece: usize) {
        for piece in bytes.chunks(piece) {
            self.step(Event::Received(piece));
            self.work();
        }
    }

    fn work(&mut self) {
        while let Some(request) = self.conversation.take_request() {
            self.conversation.answer(text(200, &format!("<{request}>")), self.now);
            self.step(Event::Sent(0));
        }
    }

    /// The statuses and bodies of what has been sent.
    fn answers(&self) -> Vec<String> {
        let heads = self.sent.split("HTTP/1.1 ").skip(1);
        heads
            .map(|answer| {
                let (head, body) = answer.split_once("\r\n\r\n").unwrap();
                let close = if head.contains("Connection: close") { " close" } else { "" };
                format!("{} {body}{close}", &head[..3])
            })
            .collect()
    }

    fn wait(&mut self, seconds: f64) {
        self.now += Duration::from_secs_f64(seconds);
        while self.conversation.deadline().is_some_and(|deadline| deadline <= self.now) {
            let before = self.conversation.deadline();
            self.step(Event::Late);
            if self.conversation.deadline() == before {
                return;
            }
        }
    }
}

const GET: &str = "GET /a HTTP/1.1\r\nHost: x\r\n\r\n";

fn put(framing: &str, body: &str) -> String {
    format!("PUT /b HTTP/1.1\r\nHost: x\r\n{framing}\r\n\r\n{body}")
}

#[test]
fn requests_are_answered_in_whatever_pieces_they_come() {
    let golden: [(String, &[&str]); 8] = [
        (GET.to_owned(), &["200 </a>"]),
        (GET.repeat(3), &["200 </a>", "200 </a>", "200 </a>"]),
        (put("Content-Length: 3", "123") + GET, &["200 </b123>", "200 </a>"]),
        (
            put("Transfer-Encoding: chunked", "1\r\n1\r\n2\r\n23\r\n0\r\n\r\n") + GET,
            &["200 </b123>", "200 </a>"],
        ),
        (put("Content-Length: 2", "1!") + GET, &["422 loud", "200 </a>"]),
        (GET.replace("Host: x", "Host: x\r\nConnection: close") + GET, &["200 </a> close"]),
        (GET.replace("/a", "/refused") + GET, &["401 refused", "200 </a>"]),
        ("nonsense\r\n\r\n".to_owned() + GET, &["400 failed close"]),
    ];
    for (bytes, expected) in golden {
        for piece in 1..=bytes.len() {
            let mut talk = Talk::new();
            talk.say(bytes.as_bytes(), piece);
            assert_eq!(talk.answers(), expected, "{bytes:?} by {piece}");
        }
    }
}

#[test]
fn a_body_that_nobody_will_read_is_drained() {
    let mut talk = Talk::new();
    talk.say(put("Content-Length: 100", "").replace("/b", "/refused").as_bytes(), 1000);
    assert_eq!(talk.answers(), ["401 refused close"]);
    assert_eq!(talk.conversation.is_closing(), Some(true));
    talk.step(Event::Finished);
    assert!(talk.conversation.is_lingering() && talk.conversation.wants_input());
    talk.step(Event::Drained(1000));
    assert!(talk.conversation.is_lingering());
    talk.step(Event::Drained(LINGER_MAX));
    assert!(talk.conversation.is_closed());
    // A line of the body that is refused ends it too, unless it was the last.
    for (length, then) in [(5, "400 an x close"), (2, "400 an x")] {
        let mut talk = Talk::new();
        talk.say(put(&format!("Content-Length: {length}"), "1x").as_bytes(), 1000);
        assert_eq!(talk.answers(), [then]);
    }
}

#[test]
fn a_client_that_waits_is_told_to_go_on_only_where_a_body_is_wanted() {
    let framing = "Expect: 100-continue\r\nContent-Length: 3";
    let mut talk = Talk::new();
    talk.say(put(framing, "").as_bytes(), 7);
    assert_eq!(talk.sent, "HTTP/1.1 100 Continue\r\n\r\n");
    talk.say(b"123", 1);
    assert_eq!(talk.answers(), ["100 ", "200 </b123>"]);
    let mut talk = Talk::new();
    talk.say(put(framing, "").replace("/b", "/refused").as_bytes(), 7);
    assert_eq!(talk.answers(), ["401 refused close"]);
    let mut talk = Talk::new();
    talk.say(put(framing, "123").as_bytes(), 1000);
    assert_eq!(talk.answers(), ["200 </b123>"]);
}

#[test]
fn every_state_has_its_deadline() {
    // Nothing, half a head, a kept connection, half a head on it, half a body.
    let half = "GET /a HT";
    let golden: [(&str, f64, &[&str]); 7] = [
        ("", 5.0, &["408 failed close"]),
        (half, 5.0, &["408 failed close"]),
        (GET, 300.0, &["200 </a>"]),
        (&format!("{GET}\r\n\r\n"), 300.0, &["200 </a>"]),
        (&format!("{GET}{half}"), 5.0, &["200 </a>", "408 failed close"]),
        (&put("Content-Length: 3", "1"), 5.0, &["408 failed close"]),
        (&put("Transfer-Encoding: chunked", "3\r\n1"), 5.0, &["408 failed close"]),
    ];
    for (bytes, time, expected) in golden {
        let mut talk = Talk::new();
        talk.say(bytes.as_bytes(), 1000);
        talk.wait(time - 0.1);
        assert!(talk.conversation.is_closing().is_none(), "{bytes:?}");
        talk.wait(0.2);
        assert!(talk.conversation.is_closing().is_some(), "{bytes:?}");
        assert_eq!(talk.answers(), expected, "{bytes:?}");
        talk.wait(1.1);
        assert!(talk.conversation.is_closed(), "{bytes:?}");
    }
}

#[test]
fn a_body_has_time_for_each_step_and_as_a_whole() {
    let mut talk = Talk::new();
    talk.say(put("Content-Length: 100", "").as_bytes(), 1000);
    for _ in 0..14 {
        talk.wait(4.0);
        talk.say(b"1", 1);
    }
    assert!(talk.answers().is_empty());
    talk.wait(4.1);
    assert_eq!(talk.answers(), ["408 failed close"]);
    // One that waits unread loses no time.
    let mut talk = Talk::new();
    talk.say(put("Content-Length: 2", "1").as_bytes(), 1000);
    for held in [true, true, false] {
        talk.conversation.hold(held, talk.now);
        assert_eq!(talk.conversation.deadline().is_none(), held);
        talk.wait(if held { 100.0 } else { 4.0 });
    }
    talk.say(b"2", 1);
    assert_eq!(talk.answers(), ["200 </b12>"]);
    // It has left what it had before, as a whole too.
    let mut talk = Talk::new();
    talk.say(put("Content-Length: 100", "").as_bytes(), 1000);
    for second in 0..56 {
        talk.conversation.hold(second == 10, talk.now);
        talk.wait(if second == 10 { 100.0 } else { 1.0 });
        talk.say(b"1", 1);
    }
    assert!(talk.answers().is_empty());
    for _ in 0..6 {
        talk.wait(1.0);
        talk.say(b"1", 1);
    }
    assert_eq!(talk.answers(), ["408 failed close"]);
    // Neither does one that waits for work of others.
    let mut talk = Talk::new();
    talk.say(put("Content-Length: 2", "1").as_bytes(), 1000);
    talk.conversation.postpone(Duration::from_secs(100));
    talk.wait(104.0);
    talk.say(b"2", 1);
    assert_eq!(talk.answers(), ["200 </b12>"]);
}

#[test]
fn a_request_waits_for_its_turn_without_a_deadline_and_unread_input() {
    let mut talk = Talk::new();
    talk.step(Event::Received((GET.to_owned() + GET).as_bytes()));
    assert!(talk.conversation.is_waiting() && !talk.conversation.wants_input());
    assert_eq!(talk.conversation.deadline(), None);
    talk.wait(1_000.0);
    let request = talk.conversation.take_request().unwrap();
    assert_eq!((request.as_str(), talk.conversation.take_request()), ("/a", None));
    talk.wait(1_000.0);
    assert!(!talk.conversation.wants_input());
    talk.conversation.answer(text(200, "one"), talk.now);
    talk.step(Event::Sent(0));
    // The second one is at hand, and again waits for its turn.
    assert!(talk.conversation.is_waiting());
    talk.work();
    assert_eq!(talk.answers(), ["200 one", "200 </a>"]);
}

/// Whether so many requests have a place in the line.
#[track_caller]
fn assert_waiting(talk: &Talk, count: usize) {
    let slowed = talk.conversation.is_slowed();
    assert_eq!((slowed, std::rc::Rc::strong_count(&talk.toy.line)), (count > 0, count + 1));
}

#[test]
fn a_request_that_is_slowed_reads_nothing_and_is_decided_on_at_its_time() {
    let slow = put("Expect: 100-continue\r\nContent-Length: 3", "").replace("/b", "/slow");
    let mut talk = Talk::new();
    talk.say(slow.as_bytes(), 7);
    assert_waiting(&talk, 1);
    assert!(!talk.conversation.wants_input() && !talk.conversation.is_waiting() && talk.sent.is_empty());
    talk.wait(0.9);
    assert_waiting(&talk, 1);
    // What rfw works meanwhile does not make it wait longer.
    talk.conversation.postpone(Duration::from_secs(100));
    talk.wait(0.1);
    assert_waiting(&talk, 0);
    assert_eq!(talk.sent, "HTTP/1.1 100 Continue\r\n\r\n");
    // The time of its body begins now.
    talk.wait(4.9);
    talk.say(b"12", 1);
    talk.wait(4.9);
    talk.say(b"3", 1);
    assert_eq!(talk.answers(), ["100 ", "200 </slow123>"]);
    assert!(talk.toy.failures.is_empty());
}

#[test]
fn what_comes_behind_a_request_that_is_slowed_comes_after_it() {
    let bytes = GET.replace("/a", "/slow") + GET;
    let mut talk = Talk::new();
    talk.say(bytes.as_bytes(), 1000);
    assert_waiting(&talk, 1);
    talk.wait(1.0);
    talk.work();
    assert_eq!(talk.answers(), ["200 </slow>", "200 </a>"]);
    // Told too early, it asks, and goes on waiting as it is told to.
    let mut talk = Talk::new();
    talk.say(bytes.as_bytes(), 1000);
    talk.step(Event::Received(b"more"));
    assert_waiting(&talk, 1);
}

#[test]
fn a_client_that_is_slowed_frees_its_place_when_it_goes_and_at_the_end() {
    let slow = GET.replace("/a", "/slow");
    let ends: [fn() -> Event<'static>; 3] =
        [|| Event::End, || Event::Broken(io::ErrorKind::ConnectionReset.into()), || Event::Close];
    for (number, end) in ends.into_iter().enumerate() {
        let mut talk = Talk::new();
        talk.say(slow.as_bytes(), 1000);
        assert_waiting(&talk, 1);
        talk.step(end());
        assert_waiting(&talk, 0);
        let is_over = if number == 2 {
            talk.conversation.is_closing().is_some()
        } else {
            talk.conversation.is_closed()
        };
        assert!(is_over && talk.sent.is_empty() && talk.toy.failures.is_empty(), "{number}");
    }
}

#[test]
fn a_long_answer_is_made_as_it_is_taken_and_given_up_when_it_is_not() {
    let made = std::rc::Rc::new(std::cell::Cell::new(0));
    let count = std::rc::Rc::clone(&made);
    let parts = (0..100).map(move |n| {
        count.set(n);
        "0123456789".repeat(100)
    });
    let mut talk = Talk::new();
    talk.conversation.step(Event::Received(GET.as_bytes()), talk.now, &mut talk.toy);
    talk.conversation.take_request().unwrap();
    let body = Content::Parts(Box::new(parts));
    talk.conversation.answer(Answer::json(200, body), talk.now);
    let first = talk.conversation.output().len();
    talk.conversation.step(Event::Sent(first - 1), talk.now, &mut talk.toy);
    assert_eq!((made.get(), talk.conversation.output().len()), (0, 1));
    talk.conversation.step(Event::Sent(1), talk.now, &mut talk.toy);
    assert_eq!(made.get(), 1);
    talk.now += Duration::from_secs(4);
    talk.conversation.step(Event::Sent(1), talk.now, &mut talk.toy);
    talk.now += Duration::from_secs(4);
    assert!(talk.conversation.deadline().unwrap() > talk.now);
    talk.now += Duration::from_secs(2);
    assert!(talk.conversation.deadline().unwrap() <= talk.now);
    talk.conversation.step(Event::Late, talk.now, &mut talk.toy);
    assert!(talk.conversation.is_closed());
    assert_eq!(made.get(), 1);
}

#[test]
fn a_client_that_ends_gets_its_answers_first() {
    let mut talk = Talk::new();
    talk.step(Event::Received((GET.to_owned() + GET).as_bytes()));
    talk.step(Event::End);
    talk.work();
    assert_eq!(talk.answers(), ["200 </a>", "200 </a>"]);
    assert_eq!(talk.conversation.is_closing(), Some(false));
    talk.step(Event::Finished);
    assert!(talk.conversation.is_closed());
    // Half a request has none, and is told in the log; an idle connection is not.
    for (bytes, failures) in [("GET /", 1), (GET, 0), ("", 0)] {
        let mut talk = Talk::new();
        talk.say(bytes.as_bytes(), 1000);
        talk.step(Event::End);
        talk.step(Event::Finished);
        assert!(talk.conversation.is_closed(), "{bytes:?}");
        assert_eq!(talk.toy.failures.len(), failures, "{:?}", talk.toy.failures);
    }
    let mut talk = Talk::new();
    talk.say(put("Content-Length: 3", "1").as_bytes(), 1000);
    talk.step(Event::End);
    assert!(talk.conversation.is_closed() && talk.sent.is_empty());
    assert_eq!(talk.toy.failures, ["Some(\"/b1\") unexpected end of file"]);
}

#[test]
fn a_close_in_order_finishes_what_is_on_its_way() {
    let golden = [("", ""), ("GET /", ""), (GET, "200 </a>"), (&put("Content-Length: 3", "1"), "")];
    for (bytes, answer) in golden {
        let mut talk = Talk::new();
        talk.say(bytes.as_bytes(), 1000);
        talk.step(Event::Close);
        assert_eq!(talk.conversation.is_closing(), Some(false), "{bytes:?}");
        assert_eq!(talk.answers().concat(), answer, "{bytes:?}");
    }
    // An answer that is yet to come says that it is the last.
    let mut talk = Talk::new();
    talk.step(Event::Received(GET.as_bytes()));
    talk.step(Event::Close);
    talk.work();
    assert_eq!(talk.answers(), ["200 </a> close"]);
    assert!(talk.conversation.is_closing().is_some());
}

#[test]
fn a_handshake_comes_first_and_has_its_time() {
    let now = Instant::now();
    let handshake = || Talk { conversation: Conversation::new(true, now), now, ..Talk::new() };
    let mut talk = handshake();
    assert!(talk.conversation.is_handshaking() && talk.conversation.wants_input());
    talk.now += Duration::from_secs(4);
    talk.step(Event::Secured);
    talk.say(GET.as_bytes(), 5);
    assert_eq!(talk.answers(), ["200 </a>"]);
    let mut talk = handshake();
    talk.wait(5.1);
    assert!(talk.conversation.is_closed() && talk.sent.is_empty());
    assert_eq!(talk.toy.failures, ["None no TLS handshake: timed out"]);
    let mut talk = handshake();
    talk.step(Event::End);
    assert_eq!(talk.toy.failures, ["None no TLS handshake: unexpected end of file"]);
}

/// Whatever may happen, in any order.
fn events() -> impl Strategy<Value = Vec<(u8, Vec<u8>)>> {
    let bytes = prop_oneof![
        any::<Vec<u8>>(),
        Just(GET.as_bytes().to_vec()),
        Just(GET.replace("/a", "/slow").into_bytes()),
        Just(put("Content-Length: 3", "12").into_bytes()),
        Just(put("Transfer-Encoding: chunked", "2\r\n12\r\n").into_bytes()),
        Just(b"0\r\n\r\n".to_vec()),
    ];
    proptest::collection::vec((0u8..12, bytes), 0..40)
}

proptest! {
    #[test]
    fn no_order_of_events_panics_or_goes_on_after_the_end(secure: bool, events in events()) {
        let mut talk = Talk::new();
        talk.conversation = Conversation::new(secure, talk.now);
        for (event, bytes) in events {
            let over = talk.conversation.is_closed();
            match event {
                0 => talk.step(Event::Secured),
                1 => talk.step(Event::End),
                2 => talk.step(Event::Late),
                3 => talk.step(Event::Close),
                4 => talk.step(Event::Finished),
                5 => talk.step(Event::Broken(io::ErrorKind::ConnectionReset.into())),
                6 => talk.step(Event::Drained(bytes.len())),
                7 => talk.work(),
                8 => talk.wait(1.0),
                9 => talk.conversation.hold(bytes.len() % 2 == 0, talk.now),
                _ => talk.step(Event::Received(&bytes)),
            }
            let state = &talk.conversation;
            prop_assert!(!over || state.is_closed() && state.output().is_empty());
            prop_assert!(state.is_closed() || state.deadline().is_some() || state.is_waiting() || state.is_held());
            prop_assert!(!state.wants_input() || state.output().is_empty());
        }
    }

    #[test]
    fn no_bytes_panic_whatever_pieces_they_come_in(bytes: Vec<u8>, tail in "[0-9a-f;\r\nx]*", piece in 1usize..50) {
        let mut talk = Talk::new();
        talk.say(&bytes, piece);
        let mut talk = Talk::new();
        talk.say(put("Transfer-Encoding: chunked", &tail).as_bytes(), piece);
    }
}
