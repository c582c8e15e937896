//! The file of servers: what it may have, who may read it, and which of its servers are asked.

use super::{SHELLS, ctl};
use crate::golden::cases;
use crate::host::Host;
use serde_json::{Value, from_str, json};
use std::fs;
use std::os::unix::fs::PermissionsExt;

/// The golden table has a line of the file, and what is wrong with it.
#[test]
fn a_wrong_line_of_the_file_is_told_with_its_number() {
    let host = Host::new();
    for name in ["ca.crt", "key"] {
        host.write(name, 0o600, "");
    }
    host.write("open.key", 0o640, "");
    for shell in SHELLS {
        for (place, [line, message]) in cases("rfwctl-servers-refused.txt") {
            host.write("servers", 0o600, &format!("# servers\n\n{line}\n"));
            let said = ctl(&host, shell, &["-f", "servers", "servers"]);
            assert_eq!((said.status, said.out.as_str()), (Some(2), ""), "{place}: {said:#?}");
            assert_eq!(said.err, format!("rfwctl: {message}\n"), "{place}");
        }
    }
}

#[test]
fn servers_are_chosen_by_name_and_group_and_the_first_file_counts() {
    let host = Host::new();
    fs::create_dir_all(host.dir.join(".config/rfw")).unwrap();
    let text = "  # mine\n*  user=me password=secret\nweb1 https://[2001:db8::1]:7393/ @web @a # first\r\n\
        web2\thttps://web2.example.org:7393 @web\ndb http://localhost:7390";
    host.write(".config/rfw/servers", 0o600, text);
    let web1 = json!({"server": "web1", "url": "https://[2001:db8::1]:7393", "groups": "@web @a"});
    let web2 = json!({"server": "web2", "url": "https://web2.example.org:7393", "groups": "@web"});
    let db = json!({"server": "db", "url": "http://localhost:7390", "groups": ""});
    for shell in SHELLS {
        let told = |words: &[&str]| -> Value {
            from_str(&ctl(&host, shell, &[&["servers", "--json"], words].concat()).ok()).unwrap()
        };
        assert_eq!(told(&[]), json!([web1, web2, db]));
        assert_eq!(told(&["-s", "db,@a"]), json!([db, web1]));
        assert_eq!(told(&["-s", "@web", "-sweb2,db"]), json!([web1, web2, db]));
        host.write("other", 0o644, "b https://b\n");
        let table = "SERVER  URL        GROUPS\nb       https://b\n";
        assert_eq!(ctl(&host, shell, &["servers", "-f", "other"]).ok(), table);
        assert_eq!(
            ctl(&host, shell, &["servers", "--csv", "-f", "other"]).ok(),
            "server,url,groups\nb,https://b,\n"
        );
    }
}

#[test]
fn a_file_with_a_secret_that_others_can_read_is_refused() {
    let host = Host::new();
    host.write("servers", 0o644, "a https://a user=me password=secret\n");
    host.write("netrc", 0o640, "machine a login me password secret\n");
    for shell in SHELLS {
        let refused = |file: &str| ctl(&host, shell, &["servers", "-f", file]).fails_with(2);
        let line =
            |file: &str| format!("rfwctl: {file} holds a secret, and others can read it: chmod 600 it\n");
        assert_eq!(refused("servers"), line("servers"));
        for option in ["netrc", "curlrc", "key"] {
            host.write("other", 0o644, &format!("a https://a {option}=netrc\n"));
            assert_eq!(refused("other"), line("./netrc"));
        }
        fs::set_permissions(host.dir.join("netrc"), fs::Permissions::from_mode(0o600)).unwrap();
        ctl(&host, shell, &["servers", "-f", "other"]).ok();
        fs::set_permissions(host.dir.join("netrc"), fs::Permissions::from_mode(0o640)).unwrap();
    }
}

const SERVERS: &str = "web1 https://a @web\nweb2 https://b @web @north\n";

#[test]
fn bash_completes_commands_servers_and_groups() {
    let host = Host::new();
    let tree = env!("CARGO_MANIFEST_DIR");
    host.write("servers", 0o600, SERVERS);
    let completed = |line: &str| {
        let script = format!(
            "PATH={tree}/etc/rfwctl:$PATH; . {tree}/etc/rfwctl/completion/rfwctl; read -ra COMP_WORDS <<<'{line}'; \
             [[ '{line}' != *' ' ]] || COMP_WORDS+=(''); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); _rfwctl; \
             echo \"${{COMPREPLY[@]}}\""
        );
        host.run("bash", &["-c", &script]).ok().trim().to_owned()
    };
    assert_eq!(completed("rfwctl un"), "unblock");
    assert_eq!(completed("rfwctl block --j"), "--json");
    assert_eq!(completed("rfwctl block -a "), "drop reject accept");
    assert_eq!(completed("rfwctl why 1.2.3.4 -f servers -s "), "@north @web web1 web2");
    assert_eq!(completed("rfwctl why 1.2.3.4 -f servers -s web1,@n"), "web1,@north");
}

/// zsh on a terminal, in which keys are typed: `@n` and a tab become `@north`.
#[test]
fn zsh_completes_commands_servers_and_groups() {
    let host = Host::new();
    host.write("servers", 0o600, SERVERS);
    let script = r#"
        zmodload zsh/zpty
        zpty z env TERM=dumb PATH=$1/etc/rfwctl:$PATH zsh -f -i
        zpty -w z "PS1=; fpath=($1/etc/rfwctl/completion \$fpath); autoload -U compinit; compinit -u -D; echo RE''ADY"
        zpty -r -m z line '*READY*'
        for keys shown in 'rfwctl unb' '*unblock*' ' 1.2.3.4 -f servers -s web1,@n' '*web1,@north*'; do
            zpty -w -n z $keys$'\t'
            zpty -r -m z line $shown || exit 1
        done
        print -r done"#;
    let said = host.run("timeout", &["60", "zsh", "-f", "-c", script, "zsh", env!("CARGO_MANIFEST_DIR")]);
    assert_eq!(said.ok(), "done\n");
}
