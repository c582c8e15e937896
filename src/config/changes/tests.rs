//! What counts at once, what needs a restart, and that nothing secret is told.

use super::*;
use crate::golden::cases;

const BASE: &str = "[config]\noutward.server\nauth.username = me\nauth.password = secret\n";

fn parse(lines: &str) -> Config {
    // An option of the base may be given another value.
    let name = |line: &str| line.trim_start_matches('!').split(' ').next().map(str::to_owned);
    let base = BASE.lines().filter(|line| !lines.lines().any(|other| name(other) == name(line)));
    let lines = lines.lines().filter(|line| !line.starts_with('!'));
    let text: Vec<&str> = base.chain(lines).collect();
    Config::parse(Path::new("rfw.conf"), &text.join("\n")).unwrap()
}

/// Files of one folder can't be read.
fn may_read(file: &Path) -> bool {
    !file.starts_with("/elsewhere")
}

fn told(words: &[impl AsRef<str>]) -> String {
    let words: Vec<&str> = words.iter().map(AsRef::as_ref).collect();
    if words.is_empty() { "-".to_owned() } else { words.join(", ") }
}

#[test]
fn options_count_at_once_or_need_a_restart() {
    for (at, [old, new, taken, waiting]) in cases("changes.txt") {
        let (old, new) = (parse(&old), parse(&new));
        let first = changes(&old, new.clone(), &may_read);
        assert_eq!((told(&first.taken), told(&first.waiting)), (taken, waiting.clone()), "{at}");
        // What has been taken is in force, and what has not is named again.
        let second = changes(&first.config, new, &may_read);
        assert_eq!((told(&second.taken), told(&second.waiting)), ("-".to_owned(), waiting), "{at}");
        assert_eq!(second.config, first.config, "{at}");
    }
}

#[test]
fn a_configuration_without_a_change_has_none() {
    for (at, [old, new, ..]) in cases::<4>("changes.txt") {
        for lines in [old, new] {
            let same = changes(&parse(&lines), parse(&lines), &may_read);
            assert_eq!((told(&same.taken), told(&same.waiting)), ("-".to_owned(), "-".to_owned()), "{at}");
            assert_eq!(same.config, parse(&lines), "{at}");
        }
    }
}

/// Lines of a comment in front of a section move it, and change nothing of what is under way.
#[test]
fn a_section_that_has_moved_is_as_it_was() {
    let section = "[client a]\npassword = x\nallow = drop input any\n";
    let (old, new) = (parse(section), parse(&format!("\n# more\n{section}")));
    let client = |config: &Config| std::sync::Arc::clone(config.clients.by_password("a", "x").unwrap());
    assert_ne!(client(&old).line, client(&new).line);
    assert!(new.clients.has(&client(&old)));
    assert_eq!(told(&changes(&old, new, &may_read).taken), "-");
}

/// It goes on without its section, but not with more rights than that gave.
#[test]
fn the_local_server_keeps_its_client_until_the_restart_that_ends_it() {
    let old = parse("local.server\n[client local]\nread = none\n");
    let after = changes(&old, parse(""), &may_read).config;
    assert_eq!(after.clients.local(), old.clients.local());
    assert!(after.clients.has(old.clients.local()) && after.local == old.local);
    // Where clients have to log in from now on, it is nobody any more.
    let old = parse("local.server\n");
    let after = changes(&old, parse("local.server\nlocal.server.authentication\n"), &may_read).config;
    assert!(!after.clients.has(old.clients.local()));
}
