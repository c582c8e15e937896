//! How long things take, for who changes them.

use super::*;

/// Prints how long things take.
#[test]
#[ignore = "measures: cargo test --release -- --ignored --nocapture speed_of_sets"]
fn speed_of_sets() {
    if env::var(OUTSIDE).is_err() {
        // The inner run is of an ignored test too.
        let output = Process::new("unshare")
            .arg("-nm")
            .arg(env::current_exe().unwrap())
            .args(["--exact", "kernel::ipset::tests::speed::speed_of_sets", "--ignored", "--nocapture"])
            .env(OUTSIDE, namespace())
            .output()
            .unwrap();
        println!("{}", String::from_utf8_lossy(&output.stdout));
        assert!(output.status.success(), "{output:#?}");
        return;
    }
    alone("", measure);
}

fn measure(ipset: &mut Ipset) {
    let time = |what: &str, work: &mut dyn FnMut()| {
        let start = Instant::now();
        work();
        println!("time: {what}: {:.3} ms", start.elapsed().as_secs_f64() * 1e3);
    };
    for round in 0..3 {
        let set = make(ipset, "x", 400_000);
        let send = |ipset: &mut Ipset, fill: &dyn Fn(&mut Batch)| {
            let mut batch = ipset.batch();
            fill(&mut batch);
            let bytes = batch.bytes();
            let report = ipset.transact(batch, soon()).unwrap();
            println!("time: {bytes} bytes, {} sends", report.sends);
        };
        println!("time: round {round}");
        time("100,000 packed, new", &mut || send(ipset, &|b| b.add_many(&set, entries(100_000))));
        time("100,000 packed, there", &mut || send(ipset, &|b| b.add_many(&set, entries(100_000))));
        time("100,000 counted, there", &mut || {
            send(ipset, &|b| b.add_each(&set, entries(100_000), Existing::Refuse))
        });
        time("delete 100,000 packed", &mut || send(ipset, &|b| b.del_many(&set, addresses(100_000))));
        time("100,000 counted, new", &mut || {
            send(ipset, &|b| b.add_each(&set, entries(100_000), Existing::Refuse))
        });
        time("100,000 counted and packed behind, there", &mut || {
            send(ipset, &|b| {
                b.add_each(&set, entries(100_000), Existing::Refuse);
                b.add_many(&set, entries(100_000));
            });
        });
        time("delete 100,000 counted", &mut || {
            send(ipset, &|b| b.del_each(&set, addresses(100_000), Existing::Refuse))
        });
        time("300,000 packed, new", &mut || send(ipset, &|b| b.add_many(&set, entries(300_000))));
        time("dump of 300,000", &mut || assert_eq!(listed(ipset, &set, |_| ()).unwrap(), 300_000));
        time("1,000 adds", &mut || {
            addresses(1_000)
                .for_each(|e| ipset.add(&set, &NewEntry::new(e), Existing::Accept, soon()).unwrap());
        });
        time("1,000 tests", &mut || {
            addresses(1_000).for_each(|e| assert!(ipset.test(&set, e, soon()).unwrap()));
        });
        time("1,000 headers", &mut || {
            (0..1_000).for_each(|_| assert!(ipset.header(&set, soon()).is_ok()));
        });
        time("info of 300,000", &mut || assert_eq!(size(ipset, &set), 300_000));
        ipset.destroy(&set, soon()).unwrap();
        let expecting =
            Definition { expected: 100_000, ..definition(SetType::Net(Family::V4), 400_000, false) };
        ipset.create(&set, &expecting, soon()).unwrap();
        time("100,000 packed, new and expected", &mut || {
            send(ipset, &|b| b.add_many(&set, entries(100_000)))
        });
        ipset.destroy(&set, soon()).unwrap();
    }
}
