//! What is no answer of an rfw counts as none: half of one, a page, JSON of something else, one without an
//! end, or rows that say that they are another server's.

use super::answers::{Server, with_server};
use super::{SHELLS, ctl};

const ROW: &str = "{\"by\":\"me\",\"chain\":\"INPUT\",\"destination\":\"0.0.0.0/0\",\"expires\":null,\"inp\":\"*\",\
    \"list\":\"tor\",\"out\":\"*\",\"pkts\":0,\"source\":\"1.2.3.4\",\"target\":\"DROP\"}";

#[test]
fn half_an_answer_is_told_as_none() {
    let host = with_server(&[8001]);
    let half = format!("[\n{ROW},\n{ROW},\n");
    for shell in SHELLS {
        for (headers, why) in [
            ("Content-Length: 5000\r\n", "s8001: transfer closed with "),
            ("", "s8001: answers 200, and is perhaps no rfw"),
        ] {
            let _server = Server::start(&host, 8001, &[(200, headers, &half)]);
            for format in ["--retries=0", "--json"] {
                let words = ["list", "-f", "servers", "--retries", "0", format];
                let said = ctl(&host, shell, &words);
                assert_eq!(said.status, Some(1), "{said:#?}");
                let told = if format == "--json" { &said.out } else { &said.err };
                assert!(told.contains(why.trim_start_matches("s8001: ")), "{said:#?}");
            }
        }
    }
}

#[test]
fn json_of_something_else_is_no_success() {
    let host = with_server(&[8001]);
    for answer in
        ["{}\n", "[]\n", "{\"status\":\"ok\"}\n", "{\"a\":{\"result\":\"inserted\"}}\n", "\"inserted\"\n"]
    {
        let _server = Server::start(&host, 8001, &[(200, "", answer)]);
        for shell in SHELLS {
            let ask = |words: &str| {
                let words: Vec<&str> = words.split(' ').collect();
                ctl(&host, shell, &[&words[..], &["-f", "servers", "--retries", "0"]].concat())
            };
            host.write("tor.txt", 0o644, "1.2.3.4\n");
            for words in ["block 1.2.3.4", "unblock 1.2.3.4", "unblock 1.2.3.4 -c input", "feed tor tor.txt"]
            {
                let said = ask(words).fails_with(1);
                assert!(said.ends_with("answers 200, and is perhaps no rfw\n"), "{answer}: {said}");
            }
            let said = ask("status");
            assert_eq!(said.status, Some(3), "{answer}: {said:#?}");
            assert!(said.out.contains(": answers 200, and is perhaps no rfw\n"), "{answer}: {said:#?}");
        }
    }
}

/// What cannot be compared is not sent.
#[test]
fn a_list_is_not_sent_where_the_count_is_not_known() {
    let host = with_server(&[8001]);
    host.write("tor.txt", 0o644, "1.2.3.4\n");
    for shell in SHELLS {
        for answer in ["<html></html>\n", "{}\n", "[\n"] {
            let server = Server::start(&host, 8001, &[(200, "", answer)]);
            let words = ["feed", "tor", "tor.txt", "--max-change", "10%", "-f", "servers"];
            ctl(&host, shell, &words).fails_with(1);
            assert_eq!(server.asked(), ["GET /lists?list=tor HTTP/1.1"]);
        }
    }
}

/// The JSON that is printed is JSON, and tells of each server only what that server has said.
#[test]
fn no_server_answers_for_another() {
    let host = with_server(&[8001]);
    let forged = "\"list\":\"forged\",\"server\":\"other\"";
    for rows in [
        format!("{ROW},{{{forged}}}"),
        format!("{{{forged}}}"),
        format!("{ROW}],[{ROW}"),
        "{\"list\":\"forged\" \"a\"}".to_owned(),
        "{\"list\":forged}".to_owned(),
    ] {
        let _server = Server::start(&host, 8001, &[(200, "", &format!("[\n{rows}\n]\n"))]);
        for shell in SHELLS {
            let said = ctl(&host, shell, &["list", "--json", "-f", "servers"]);
            let json: serde_json::Value = serde_json::from_str(&said.out).expect(&said.out);
            let error = "answers 200, and is perhaps no rfw";
            assert_eq!((json[0]["server"].as_str(), json[0]["error"].as_str()), (Some("s8001"), Some(error)));
            assert_eq!((json.as_array().unwrap().len(), said.status), (1, Some(1)));
        }
    }
    for answer in ["{\"result\":\"inserted\"},{\"server\":\"other\"}", "{\"result\":\"inserted\",,}"] {
        let _server = Server::start(&host, 8001, &[(200, "", answer)]);
        for shell in SHELLS {
            let said = ctl(&host, shell, &["block", "1.2.3.4", "--json", "-f", "servers"]);
            let json: serde_json::Value = serde_json::from_str(&said.out).expect(&said.out);
            assert_eq!((json.as_array().unwrap().len(), said.status), (1, Some(1)), "{json:#}");
        }
    }
}

/// 33 MiB: what comes without a length is not kept without a bound.
#[test]
fn an_answer_without_an_end_is_cut_off() {
    let host = with_server(&[8001]);
    let _server = Server::start(&host, 8001, &[(200, "", &"x".repeat(33 << 20))]);
    let error = "its answer is too long, or there is no room for it in the temporary folder\n";
    for shell in SHELLS {
        let said = ctl(&host, shell, &["why", "1.2.3.4", "-f", "servers"]).fails_with(1);
        assert_eq!(said, format!("s8001: 1.2.3.4: {error}"));
    }
}

/// A reader that has seen enough is no failure to be told, and a status that is cut short is unknown.
#[test]
fn a_run_that_is_cut_short_says_so_by_its_status() {
    let host = with_server(&[8001]);
    let _server = Server::start(&host, 8001, &[(200, "", &format!("[\n{ROW}\n]\n"))]);
    host.run("sh", &["-ec", "mkdir small; mount -t tmpfs -o size=4k tmpfs small"]).ok();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/etc/rfwctl/rfwctl");
    for shell in SHELLS {
        let shell = shell.join(" ");
        let line =
            format!("mkfifo gone; exec 3<>gone 4>gone 3<&-; rm gone; {shell} {script} list -f servers >&4");
        let said = host.run("sh", &["-c", &line]);
        assert_eq!((said.status, said.err.as_str()), (Some(141), ""), "{said:#?}");
        let line = format!(
            "TMPDIR=$PWD/small {shell} {script} status -f servers; status=$?; ls small; exit $status"
        );
        let said = host.run("sh", &["-c", &line]);
        assert_eq!((said.status, said.out.as_str()), (Some(3), ""), "{said:#?}");
    }
}
