//! Many changes in one send.

use super::*;
use std::io::{BufRead, BufReader};
use std::process::Stdio;

/// Whether a hundred thousand refusals have room: who may not have that sends in parts.
fn has_large_buffers(ipset: &Ipset) -> bool {
    ipset.socket().send_limit() > 20 << 20 && ipset.socket().receive_limit() > 150 << 20
}

#[test]
fn a_batch_counts_what_was_there() {
    alone("batches::a_batch_counts_what_was_there", |ipset| {
        let set = make(ipset, "x", 100_000);
        let (old, new) = (make(ipset, "old", 9), name("new"));
        let mut batch = ipset.batch();
        batch.add_many(&set, entries(400));
        batch.add_each(&set, entries(1_000), Existing::Refuse);
        batch.del_each(&set, addresses(1_001), Existing::Refuse);
        batch.del_many(&set, addresses(2_000));
        batch.add_each(&set, entries(50_000), Existing::Accept);
        batch.add_each(&set, entries(50_000), Existing::Refuse);
        batch.create(&new, &definition(SetType::Net(Family::V4), 9, true), 4);
        batch.add_many(&new, [NewEntry::new(net("9.9.9.9"))]);
        batch.swap(&new, &old);
        batch.destroy(&new);
        batch.flush(&name("none"));
        let report = ipset.transact(batch, soon()).unwrap();
        assert_eq!(report.sends == 1, has_large_buffers(ipset));
        let counts: Vec<_> = report.outcomes.iter().map(|o| (o.done, o.already, o.failed())).collect();
        let expected = [
            (400, 0, 0),
            (600, 400, 0),
            (1_000, 1, 0),
            (2_000, 0, 0),
            (50_000, 0, 0),
            (0, 50_000, 0),
            (1, 0, 0),
            (1, 0, 0),
            (1, 0, 0),
            (1, 0, 0),
            (0, 0, 1),
        ];
        assert_eq!(counts, expected);
        assert!(matches!(report.into_result(), Err(IpsetError::NoSet)));
        assert_eq!(saved("old"), ["add old 9.9.9.9 timeout 0 packets 0 bytes 0"]);
        assert_eq!(program("list -n").lines().collect::<Vec<_>>().len(), 2);
    });
}

#[test]
fn a_batch_tells_where_a_set_became_full() {
    alone("batches::a_batch_tells_where_a_set_became_full", |ipset| {
        let set = make(ipset, "x", 1_000);
        let mut batch = ipset.batch();
        batch.add_many(&set, entries(3_000));
        let report = ipset.transact(batch, soon()).unwrap();
        let outcome = &report.outcomes[0];
        assert_eq!((outcome.done, outcome.failed()), (1_000, 2_000));
        assert!(matches!(outcome.failure, Some((1_000, IpsetError::Full))), "{outcome:?}");
        assert_eq!(size(ipset, &set), 1_000);
        let mut batch = ipset.batch();
        batch.add_each(&set, entries(1_001), Existing::Refuse);
        let report = ipset.transact(batch, soon()).unwrap();
        let outcome = &report.outcomes[0];
        assert_eq!((outcome.done, outcome.already, outcome.failed()), (0, 1_000, 1));
        assert!(matches!(outcome.failure, Some((1_000, IpsetError::Full))), "{outcome:?}");
    });
}

#[test]
fn who_may_not_have_a_large_buffer_sends_in_parts() {
    alone("batches::who_may_not_have_a_large_buffer_sends_in_parts", |ipset| {
        ipset.socket = Socket::with_buffers(100_000).unwrap();
        let set = make(ipset, "x", 10_000);
        let mut batch = ipset.batch();
        batch.add_many(&set, entries(9_000));
        batch.add_each(&set, entries(10_000), Existing::Refuse);
        let report = ipset.transact(batch, soon()).unwrap();
        assert!(report.sends > 20, "{}", report.sends);
        let counts: Vec<_> = report.outcomes.iter().map(|o| (o.done, o.already, o.failed())).collect();
        assert_eq!(counts, [(9_000, 0, 0), (1_000, 9_000, 0)]);
    });
}

#[test]
fn the_smallest_buffer_takes_a_long_list() {
    alone("batches::the_smallest_buffer_takes_a_long_list", |ipset| {
        // As with net.core.wmem_max and rmem_max as small as they can be.
        ipset.socket = Socket::with_buffers(1).unwrap();
        let set = make(ipset, "x", 10_000);
        let comment = "c".repeat(255);
        let six = name("six");
        ipset.create(&six, &definition(SetType::Net(Family::V6), 9_000, true), soon()).unwrap();
        let commented = (0..100).map(|i| NewEntry {
            comment: Comment::new(&comment),
            ..NewEntry::new(Element::Net(Network::host(Ipv6Addr::from_bits(1 << 120 | i).into())))
        });
        let mut batch = ipset.batch();
        batch.add_many(&set, entries(9_000));
        batch.add_many(&six, commented);
        batch.del_many(&set, addresses(8_000));
        ipset.transact(batch, soon()).unwrap().into_result().unwrap();
        assert_eq!((size(ipset, &set), size(ipset, &six)), (1_000, 100));
    });
}

#[test]
fn lost_and_late_answers_are_told_and_forgotten() {
    alone("batches::lost_and_late_answers_are_told_and_forgotten", |ipset| {
        let set = make(ipset, "x", 10_000);
        let mut batch = ipset.batch();
        batch.add_each(&set, entries(2_000), Existing::Accept);
        ipset.transact(batch, soon()).unwrap();
        let mut batch = ipset.batch();
        batch.add_each(&set, entries(2_000), Existing::Refuse);
        let packed = batch.pack().unwrap();
        ipset.socket = Socket::with_buffers(100_000).unwrap();
        ipset.socket.send(&packed.bytes).unwrap();
        let mut report = packed.report;
        let result = ipset.collect(&packed.parts, 0, 1_999, &mut report, soon());
        assert!(matches!(result, Err(IpsetError::Overrun)), "{result:?}");
        assert_eq!(ipset.header(&set, soon()).unwrap().name, "x");
        // An answer that has not come at the deadline is not taken for the next one's.
        let late = ipset.header(&name("y"), Instant::now());
        assert!(matches!(late, Err(IpsetError::NoSet | IpsetError::TimedOut)), "{late:?}");
        assert!(ipset.test(&set, addresses(1).next().unwrap(), soon()).unwrap());
    });
}

/// Not a test by itself: what the next one kills.
#[test]
#[ignore = "is started by the test a_batch_is_done_whole_though_its_sender_is_killed"]
fn sends_until_it_is_killed() {
    let Ok(outside) = env::var(OUTSIDE) else { return };
    assert_ne!(outside, namespace());
    let mut ipset = Ipset::open(soon()).unwrap();
    let mut batch = ipset.batch();
    batch.add_each(&name("x"), entries(100_000), Existing::Refuse);
    println!("\nsending");
    let _ = ipset.transact(batch, soon());
    thread::sleep(Duration::from_secs(10));
}

#[test]
fn a_batch_is_done_whole_though_its_sender_is_killed() {
    alone("batches::a_batch_is_done_whole_though_its_sender_is_killed", |ipset| {
        let set = make(ipset, "x", 200_000);
        if !has_large_buffers(ipset) {
            return;
        }
        for round in 0..8 {
            ipset.flush(&set, soon()).unwrap();
            let mut sender = Process::new(env::current_exe().unwrap())
                .args([
                    "--exact",
                    "kernel::ipset::tests::batches::sends_until_it_is_killed",
                    "--ignored",
                    "--nocapture",
                ])
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let mut lines = BufReader::new(sender.stdout.take().unwrap()).lines();
            assert!(lines.any(|line| line.unwrap() == "sending"));
            thread::sleep(Duration::from_millis(15 * round));
            sender.kill().unwrap();
            sender.wait().unwrap();
            let size = size(ipset, &set);
            println!("time: killed after {} ms: {size}", 15 * round);
            assert!([0, 100_000].contains(&size), "{round}: {size}");
        }
    });
}
