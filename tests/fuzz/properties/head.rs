use crate::http::message::{Framing, HEAD_MAX, HttpError, Request, parse_head};

/// Input: what a client sends.
pub(super) fn holds(bytes: &[u8]) {
    let whole = parse_head(bytes);
    let told = tell(&whole);
    // What has come decides at some byte, and more of it changes nothing.
    for end in cuts(bytes.len()) {
        let part = parse_head(&bytes[..end]);
        match part {
            Ok(None) => assert!(!matches!(whole, Ok(Some((_, length))) if length <= end), "late at {end}"),
            part => assert_eq!(tell(&part), told, "at {end}"),
        }
    }
    match whole {
        Ok(Some((request, length))) => {
            assert!(length <= HEAD_MAX.min(bytes.len()));
            check(&request, &bytes[..length]);
        }
        Ok(None) => assert!(bytes.len() < HEAD_MAX),
        Err(_) => {}
    }
}

/// Where to cut: everywhere in a short head, and at a hundred places in a long one.
fn cuts(length: usize) -> impl Iterator<Item = usize> {
    (0..length).step_by(length / 100 + 1)
}

fn tell(parsed: &Result<Option<(Request, usize)>, HttpError>) -> String {
    match parsed {
        Ok(Some((request, length))) => format!("{length} {}", fields(request)),
        Ok(None) => "incomplete".to_owned(),
        Err(error) => format!("{:?} {error}", error.status()),
    }
}

fn fields(request: &Request) -> String {
    let Request { method, target, host, authorization, body, keep_alive, .. } = request;
    let Request { from_other_page, expects_continue, minor, .. } = request;
    let (accept, coding) = (&request.accept, &request.content_coding);
    let flags = (keep_alive, from_other_page, expects_continue, minor);
    format!("{method} {target:?} {host:?} {authorization:?} {body:?} {flags:?} {accept:?} {coding:?}")
}

fn check(request: &Request, head: &[u8]) {
    assert!(
        !request.target.is_empty() && !request.target.contains(|c: char| c.is_ascii_control() || c == ' ')
    );
    assert!(request.minor < 2 && (request.minor == 1 || !request.keep_alive && !request.expects_continue));
    assert!(request.minor == 0 || request.host.is_some());
    check_framing(request.body, head);
    let printed = print(request);
    let again = parse_head(printed.as_bytes()).expect("a head").expect("a whole head");
    assert_eq!(fields(&again.0), fields(request), "{printed}");
    assert_eq!(again.1, printed.len());
}

/// The body has the length that its only framing header says.
fn check_framing(framing: Framing, head: &[u8]) {
    let head = head.to_ascii_lowercase();
    let all = |name: &[u8]| head.split(|byte| *byte == b'\n').filter(|line| line.starts_with(name)).count();
    let expected = match framing {
        Framing::Length(0) if all(b"content-length:") == 0 => (0, 0),
        Framing::Length(_) => (1, 0),
        Framing::Chunked => (0, 1),
    };
    assert_eq!((all(b"content-length:"), all(b"transfer-encoding:")), expected);
}

/// A head that says the same.
fn print(request: &Request) -> String {
    let mut head = format!("{} {} HTTP/1.{}\r\n", request.method, request.target, request.minor);
    // The authority of the target goes before the header, which has to be there all the same.
    let host = request.host.as_deref().filter(|host| request.minor == 0 || !host.is_empty());
    let lines = [
        host.or((request.minor > 0).then_some("x")).map(|host| format!("Host: {host}")),
        request.authorization.as_ref().map(|value| format!("Authorization: {}", value.as_str())),
        match request.body {
            Framing::Length(0) => None,
            Framing::Length(length) => Some(format!("Content-Length: {length}")),
            Framing::Chunked => Some("transfer-encoding: CHUNKED".to_owned()),
        },
        (request.minor > 0 && !request.keep_alive).then(|| "Connection: x, Close".to_owned()),
        request.from_other_page.then(|| "Origin: null".to_owned()),
        Some(&request.accept).filter(|accept| !accept.is_empty()).map(|accept| format!("Accept: {accept}")),
        request.content_coding.as_ref().map(|coding| format!("Content-Encoding: {coding}")),
        request.expects_continue.then(|| "Expect: 100-Continue".to_owned()),
    ];
    lines.into_iter().flatten().for_each(|line| head = format!("{head}{line}\r\n"));
    head + "\r\n"
}
