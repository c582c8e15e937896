//! Scopes of the chain FORWARD: bodies and whole lists mean the source side, `DELETE /list` all sides.

use super::column;
use super::kernel::{assert_same, assert_unions, held, kill_and_spawn, listed};
use crate::host::{Host, Rfw, in_both_variants};

#[test]
fn bodies_mean_the_source_side_and_delete_list_all() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let mut rfw = host.rfw(iptables).configure("ipset").start();
        let put = |rfw: &Rfw<'_>| {
            for path in [
                "1.0.0.1?list=a",
                "0.0.0.0/any/1.0.0.1?list=a",
                "1.0.0.1/any/9.9.9.9?list=a&reason=pair",
                "9.9.9.9/any/1.0.0.1?list=b",
                "0.0.0.0/any/1.0.0.1",
                "1.0.0.2?list=b",
                "2001:4860::1?list=a",
            ] {
                rfw.ok("PUT", &format!("/drop/forward/any/{path}"));
            }
            rfw.ok("PUT", "/drop/forward/any/1.0.0.1/eth0?list=a");
            assert_unions(&host, "put");
            assert_same(&listed(&rfw.ok("GET", "/list")), &held(&host, iptables), "put");
        };
        let rows = |rfw: &Rfw<'_>| column(&rfw.ok("GET", "/list"), &["list", "source", "destination", "out"]);
        put(&rfw);
        let all = rows(&rfw);
        assert_eq!(all.len(), 8);
        kill_and_spawn(&mut rfw);
        assert_eq!(rows(&rfw), all);
        // Only the sources of exactly that scope.
        let answer = rfw.send_ok("PUT", "/drop/forward/any?list=a&replace=true", "1.0.0.7\n");
        assert_eq!((&answer["inserted"], &answer["removed"]), (&1.into(), &2.into()), "{answer}");
        assert_eq!(rows(&rfw).len(), 7);
        assert_eq!(rfw.ok("DELETE", "/drop/forward/any?list=a")["deleted"], 1);
        assert_eq!(
            rows(&rfw),
            [
                " 0.0.0.0/0 1.0.0.1 *",
                "a 0.0.0.0/0 1.0.0.1 *",
                "a 1.0.0.1 0.0.0.0/0 eth0",
                "a 1.0.0.1 9.9.9.9 *",
                "b 1.0.0.2 0.0.0.0/0 *",
                "b 9.9.9.9 1.0.0.1 *"
            ]
        );
        assert_unions(&host, "after the whole list");
        put(&rfw);
        assert_eq!(rfw.ok("DELETE", "/list?list=a")["deleted"], 5);
        assert_eq!(rows(&rfw), [" 0.0.0.0/0 1.0.0.1 *", "b 1.0.0.2 0.0.0.0/0 *", "b 9.9.9.9 1.0.0.1 *"]);
        put(&rfw);
        let answer = rfw.ok("DELETE", "/list?address=1.0.0.1");
        assert_eq!(answer["deleted"], 6, "{answer}");
        assert_eq!(
            column(&answer["rows"], &["list", "source", "destination", "out"]),
            [
                " 0.0.0.0/0 1.0.0.1 *",
                "a 0.0.0.0/0 1.0.0.1 *",
                "a 1.0.0.1 0.0.0.0/0 *",
                "a 1.0.0.1 0.0.0.0/0 eth0",
                "a 1.0.0.1 9.9.9.9 *",
                "b 9.9.9.9 1.0.0.1 *"
            ]
        );
        assert_eq!(rows(&rfw), ["a 2001:4860::1 ::/0 *", "b 1.0.0.2 0.0.0.0/0 *"]);
        assert_unions(&host, "after the address");
        put(&rfw);
        assert_eq!(rfw.ok("DELETE", "/list?list=*")["deleted"], 8);
        assert!(held(&host, iptables).is_empty());
        assert_eq!(host.entries(), Vec::new());
    });
}

#[test]
fn lists_of_scopes_with_long_names_are_found_again() {
    in_both_variants(|iptables| {
        let host = Host::new();
        let mut rfw = host.rfw(iptables).configure("ipset").start();
        let scopes = ["/drop/forward/abcdefghijklmno", "/reject/input/abcdefghijklmno"];
        let lists = ["abcdefghijklmnop", "abcdefghijklmnoq"];
        for scope in scopes {
            for list in lists {
                rfw.ok("PUT", &format!("{scope}/1.0.0.1?list={list}&expire=0&reason={list}"));
                rfw.ok("PUT", &format!("{scope}/1.0.0.1?expire=0"));
            }
        }
        let rows =
            |rfw: &Rfw<'_>| column(&rfw.ok("GET", "/list"), &["list", "target", "inp", "source", "reason"]);
        let before = rows(&rfw);
        assert_eq!(before.len(), 6);
        assert_eq!((host.sets().len(), host.entries().len()), (8, 8));
        kill_and_spawn(&mut rfw);
        assert_eq!(rows(&rfw), before);
        for list in lists {
            let answer = rfw.ok("PUT", &format!("{}/1.0.0.1?list={list}&expire=100", scopes[0]));
            assert_eq!(answer["result"], "refreshed");
            assert_eq!(rfw.ok("DELETE", &format!("/list?list={list}"))["deleted"], 2);
        }
        assert_eq!(host.entries().len(), 4);
    });
}
