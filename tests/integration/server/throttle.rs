//! Wrong passwords in a row: after ten of them an address waits a second for each further try, and nobody
//! else does.

use super::{IPTABLES, LOGIN, connect_tls};
use crate::host::{Host, Reply, Rfw, SOON, Talk, until};
use std::time::{Duration, Instant};

/// `me:wrong` as HTTP Basic has it.
const WRONG: &str = "Authorization: Basic bWU6d3Jvbmc=";

/// How many wait in line.
const LINE: usize = 8;

/// How many come besides; one or two of them may find that another has had its turn.
const MORE: usize = 4;

const SECOND: Duration = Duration::from_secs(1);

fn get(header: &str) -> Vec<u8> {
    format!("GET / HTTP/1.1\r\nHost: localhost\r\n{header}\r\n\r\n").into_bytes()
}

#[track_caller]
fn ask(talk: &mut Talk, header: &str) -> Reply {
    talk.say(&get(header));
    talk.reply()
}

/// rfw whose local server asks for a password.
fn start(host: &Host) -> Rfw<'_> {
    host.rfw(IPTABLES).configure("local.server.authentication").start()
}

/// Sends ten wrong passwords, and a little more that is not to count.
#[track_caller]
fn ten_wrong_ones(talk: &mut Talk) {
    for number in 0..10 {
        let header = if number % 3 == 0 { "X: y" } else { "Authorization: Bearer x" };
        assert_eq!(ask(talk, header).status, 401);
        assert_eq!(ask(talk, WRONG).status, 401);
    }
}

/// Ten wrong passwords, and then as many at once as may wait, and some more. The connections with a wrong
/// password each.
#[track_caller]
fn crowd(host: &Host) -> Vec<Talk> {
    let mut talks: Vec<Talk> = (0..LINE + MORE).map(|_| host.connect(7390)).collect();
    ten_wrong_ones(&mut host.connect(7390));
    talks.iter_mut().for_each(|talk| talk.say(&get(WRONG)));
    until(SOON, "some are refused", || talks.iter().any(is_refused));
    talks
}

fn is_refused(talk: &Talk) -> bool {
    talk.heard().starts_with("HTTP/1.1 429 ")
}

fn has_answer(talk: &Talk) -> bool {
    !talk.heard().is_empty()
}

#[test]
fn an_address_waits_after_ten_wrong_passwords_and_others_do_not() {
    let host = Host::new();
    let rfw = host.rfw(IPTABLES).white_list("127.0.0.1\n10.7.7.7\n").start();
    host.run("ip", &["address", "add", "10.7.7.7/32", "dev", "lo"]).ok();
    let mut client = connect_tls(&host);
    let start = Instant::now();
    ten_wrong_ones(&mut client);
    let mut eleventh = connect_tls(&host);
    eleventh.say(&get(WRONG));
    // In line behind it, so that there is time for the others.
    let mut others: Vec<Talk> = (0..4).map(|_| connect_tls(&host)).collect();
    others.iter_mut().for_each(|talk| talk.say(&get(WRONG)));
    let url = "https://127.0.0.1:7393/";
    assert_eq!(rfw.curl(&["--interface", "10.7.7.7", "-u", "me:secret", url]).status, 200);
    assert_eq!(rfw.curl(&["--interface", "10.7.7.7", "-u", "me:wrong", url]).status, 401);
    assert_eq!(ask(&mut host.connect(7390), "").status, 200);
    // No try: it waits for nothing.
    assert_eq!(ask(&mut client, "").status, 401);
    assert!(others.iter().any(|talk| !has_answer(talk)), "{:?}", start.elapsed());
    assert_eq!(eleventh.reply().status, 401);
    assert!(start.elapsed() >= SECOND, "{:?}", start.elapsed());
    others.iter_mut().for_each(|talk| assert_eq!(talk.reply().status, 401));
    let log = rfw.log();
    let lines: Vec<&str> = log.lines().filter(|line| line.contains("in a row")).collect();
    assert_eq!(lines.len(), 1, "{log}");
    let expected = "127.0.0.1: 10 wrong passwords in a row, each further try waits a second";
    assert!(lines[0].contains(expected), "{log}");
}

#[test]
fn the_right_password_passes_after_its_second_and_resets_the_count() {
    let host = Host::new();
    let _rfw = start(&host);
    let mut client = host.connect(7390);
    ten_wrong_ones(&mut client);
    let begun = Instant::now();
    assert_eq!(ask(&mut client, LOGIN).status, 200);
    assert!(begun.elapsed() >= SECOND, "{:?}", begun.elapsed());
    // Nine more would take nine seconds.
    let begun = Instant::now();
    (0..9).for_each(|_| assert_eq!(ask(&mut client, WRONG).status, 401));
    assert_eq!(ask(&mut client, LOGIN).status, 200);
    assert!(begun.elapsed() < 5 * SECOND, "{:?}", begun.elapsed());
    // A body is taken after the wait, as ever.
    ten_wrong_ones(&mut client);
    let put = "PUT /drop/input/any HTTP/1.1\r\nHost: localhost\r\nContent-Length: 7\r\n";
    client.say(format!("{put}{LOGIN}\r\n\r\n5.").as_bytes());
    client.say(b"6.7.8");
    assert_eq!(client.reply().json()["inserted"], 1);
    assert_eq!(host.rules(IPTABLES, "INPUT").len(), 1);
}

#[test]
fn a_client_can_t_try_the_passwords_of_others_with_its_own_in_between() {
    let host = Host::new();
    let rfw =
        host.rfw(IPTABLES).configure("local.server.authentication\n[client low]\npassword = low").start();
    let mut client = host.connect(7390);
    let begun = Instant::now();
    for _ in 0..4 {
        (0..3).for_each(|_| assert_eq!(ask(&mut client, WRONG).status, 401));
        // low:low
        assert_eq!(ask(&mut client, "Authorization: Basic bG93Omxvdw==").status, 200);
    }
    // The eleventh and the twelfth, and its own after the tenth.
    assert!(begun.elapsed() >= 2 * SECOND, "{:?}", begun.elapsed());
    assert!(rfw.log().contains("127.0.0.1: 10 wrong passwords in a row"), "{}", rfw.log());
}

#[test]
fn who_has_logged_in_on_a_connection_does_not_wait_for_the_tries_of_others() {
    let host = Host::new();
    let _rfw = start(&host);
    let mut client = host.connect(7390);
    assert_eq!(ask(&mut client, LOGIN).status, 200);
    let talks = crowd(&host);
    for _ in 0..3 {
        assert_eq!(ask(&mut client, LOGIN).status, 200);
    }
    // These go on waiting.
    assert!(talks.iter().any(|talk| !has_answer(talk)));
    // Another password waits too, or finds the line full.
    let refused = ask(&mut client, WRONG).status;
    assert!([401, 429].contains(&refused), "{refused}");
    assert!(refused == 429 || talks.iter().any(|talk| talk.heard().starts_with("HTTP/1.1 401 ")));
}

#[test]
fn tries_of_one_address_take_turns_and_more_than_a_handful_are_refused() {
    let host = Host::new();
    let _rfw = start(&host);
    let mut talks = crowd(&host);
    let (mut answered, begun) = (Vec::new(), Instant::now());
    until(2 * SOON, "all have an answer", || {
        let count = talks.iter().filter(|talk| has_answer(talk) && !is_refused(talk)).count();
        answered.resize_with(count, || begun.elapsed());
        talks.iter().all(has_answer)
    });
    let (refused, judged): (Vec<Reply>, Vec<Reply>) =
        talks.iter_mut().map(Talk::reply).partition(|reply| reply.status == 429);
    assert!((1..=MORE).contains(&refused.len()), "{refused:#?}");
    for reply in refused {
        assert_eq!(reply.header("Retry-After"), Some("1"), "{reply:#?}");
        let error = reply.json()["error"].as_str().unwrap().to_owned();
        assert!(error.contains("8 tries of this address wait already"), "{error}");
    }
    assert!(judged.iter().all(|reply| reply.status == 401), "{judged:#?}");
    // One a second: the first is late, if at all, and the last is not early.
    assert!(answered[LINE - 1] >= 6 * SECOND && answered[LINE / 2] >= 3 * SECOND, "{answered:?}");
}

#[test]
fn who_goes_away_gives_the_place_in_the_line_back() {
    let host = Host::new();
    let _rfw = start(&host);
    let mut client = host.connect(7390);
    let mut talks = crowd(&host);
    let begun = Instant::now();
    talks.clear();
    until(SOON, "there is room", || {
        client.say(&get(LOGIN));
        client.reply().status == 200
    });
    assert!(begun.elapsed() < 6 * SECOND, "{:?}", begun.elapsed());
}

#[test]
fn the_end_of_rfw_does_not_wait_for_who_waits() {
    let host = Host::new();
    let mut rfw = start(&host);
    let talks = crowd(&host);
    let begun = Instant::now();
    rfw.stop();
    assert!(begun.elapsed() < 5 * SECOND, "{:?}", begun.elapsed());
    until(SOON, "all see the end", || talks.iter().all(Talk::is_over));
    assert!(talks.iter().any(|talk| !has_answer(talk)));
}
