use super::*;

fn manager(socket: Option<&str>, watchdog: Option<&str>, watched: Option<&str>) -> Manager {
    let text = |text: Option<&str>| text.map(OsString::from);
    Manager { socket: text(socket), watchdog: text(watchdog), watched: text(watched) }
}

/// A service manager of that name, and what tells it.
fn listen(name: &str, watchdog: Option<&str>, now: Instant) -> (UnixDatagram, Notifier) {
    let name = format!("rfw-test-{}-{name}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let socket = UnixDatagram::bind_addr(&address).unwrap();
    socket.set_nonblocking(true).unwrap();
    (socket, Notifier::open(&manager(Some(&format!("@{name}")), watchdog, None), now))
}

fn heard(socket: &UnixDatagram) -> Vec<String> {
    let mut bytes = [0; 4096];
    let mut all = Vec::new();
    while let Ok(length) = socket.recv(&mut bytes) {
        all.push(String::from_utf8(bytes[..length].to_vec()).unwrap());
    }
    all
}

#[test]
fn a_watchdog_is_fed_where_this_process_is_meant() {
    let golden = [
        (Some("90000000"), None, Some(90_000_000)),
        (Some("90000000"), Some("7"), Some(90_000_000)),
        (Some("90000000"), Some("8"), None),
        (Some("90000000"), Some("x"), None),
        (Some("0"), Some("7"), None),
        (Some("-1"), None, None),
        (Some(""), None, None),
        (None, Some("7"), None),
    ];
    for (watchdog, watched, micros) in golden {
        let time = manager(None, watchdog, watched).watchdog_time(7);
        assert_eq!(time, micros.map(Duration::from_micros), "{watchdog:?} {watched:?}");
    }
}

#[test]
fn a_sign_of_life_comes_at_half_of_the_time_and_with_turns_not_more_often_than_each_tenth() {
    let now = Instant::now();
    let (socket, mut notifier) = listen("watchdog", Some("10000000"), now);
    let at = |seconds: f64| now + Duration::from_secs_f64(seconds);
    notifier.status(Some("fine".to_owned()), 0, now);
    assert_eq!(heard(&socket), ["STATUS=fine"]);
    for (second, count) in [(0.0, 1), (0.9, 0), (1.0, 1), (1.1, 0), (5.9, 1), (6.0, 0), (11.0, 1)] {
        notifier.turn(at(second));
        assert_eq!(heard(&socket), vec!["WATCHDOG=1"; count], "{second}");
        if count > 0 {
            assert_eq!(notifier.next(0), Some(at(second + 5.0)));
        }
    }
}

#[test]
fn states_are_told_and_the_last_one_waits_for_room() {
    let now = Instant::now();
    let (socket, mut notifier) = listen("states", None, now);
    notifier.ready(now);
    notifier.reloading(now);
    notifier.stopping(now);
    notifier.extend(Duration::from_secs(120), now);
    let told = heard(&socket);
    let micros = told[1].strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap();
    assert!(micros.parse::<u64>().unwrap() > 0);
    assert_eq!([&told[0], &told[2], &told[3]], ["READY=1", "STOPPING=1", "EXTEND_TIMEOUT_USEC=120000000"]);
    // Nobody reads: there is room for some.
    let mut count = 0;
    while notifier.full_until.is_none() {
        notifier.ready(now);
        count += 1;
        assert!(count < 10_000);
    }
    notifier.reloading(now);
    notifier.stopping(now);
    assert_eq!(notifier.next(0), Some(now + RETRY));
    assert!(!notifier.wants_status(1, now));
    assert_eq!(heard(&socket).len(), count - 1);
    notifier.turn(now + RETRY / 2);
    assert!(heard(&socket).is_empty());
    notifier.turn(now + RETRY);
    assert_eq!(heard(&socket), ["STOPPING=1"]);
    notifier.turn(now + 2 * RETRY);
    assert!(heard(&socket).is_empty());
}

#[test]
fn a_status_comes_soon_after_a_change_and_now_and_then() {
    let now = Instant::now();
    let at = |seconds: u64| now + Duration::from_secs(seconds);
    let mut status = Status::new(now);
    assert_eq!((status.next(0), status.next(1)), (now, now));
    status.counted(0, now, Duration::from_millis(1));
    assert_eq!((status.next(0), status.next(1)), (at(60), at(5)));
    // What costs more comes less often.
    status.counted(1, now, Duration::from_millis(20));
    assert_eq!((status.next(1), status.next(2)), (at(60), at(20)));
    status.counted(1, now, Duration::from_millis(90));
    assert_eq!((status.next(1), status.next(2)), (at(90), at(90)));
    status.put_off(now);
    assert_eq!((status.next(1), status.next(2)), (at(1), at(1)));
}

#[test]
fn a_status_is_one_line_and_told_once() {
    let now = Instant::now();
    let (socket, mut notifier) = listen("status", None, now);
    notifier.status(Some("a\nREADY=1".to_owned()), 1, now);
    assert!(!notifier.wants_status(1, now) && !notifier.wants_status(2, now));
    notifier.status(Some("a\nREADY=1".to_owned()), 1, now);
    notifier.status(None, 1, now);
    notifier.status(Some("b".to_owned()), 1, now);
    assert_eq!(heard(&socket), ["STATUS=a READY=1", "STATUS=b"]);
}

#[test]
fn without_a_service_manager_nothing_is_due() {
    let now = Instant::now();
    for socket in [None, Some(""), Some("@/nobody/listens"), Some("/nobody/listens")] {
        let mut notifier = Notifier::open(&manager(socket, None, None), now);
        notifier.ready(now);
        notifier.turn(now);
        assert_eq!(notifier.unsent, None, "{socket:?}");
    }
    let mut notifier = Notifier::open(&manager(None, Some("1000000"), None), now);
    notifier.turn(now);
    assert!(notifier.next(1).is_none() && !notifier.wants_status(1, now));
}
