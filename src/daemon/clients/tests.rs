//! What is warned of, as text.

use super::*;
use std::path::Path;

fn config(text: &str) -> Config {
    Config::parse(Path::new("rfw.conf"), &format!("[config]\n{text}")).unwrap()
}

#[test]
fn what_is_odd_about_a_client_is_a_warning() {
    let list = WhiteList::parse("10.0.0.0/25\n10.0.0.128/25\n2001:db8::1\n").unwrap();
    let missing = |network: &str| {
        format!(
            "the client a may come from {network} (from), of which the white list does not have all: \
             from the rest it does not get in"
        )
    };
    let nothing =
        "the client a can neither change nor see anything: expected allow, or read = own or all".to_owned();
    let golden = [
        ("from = 10.0.0.0/24 2001:db8::1", vec![]),
        ("from = 10.0.0.0/23", vec![missing("10.0.0.0/23")]),
        ("from = 10.0.0.1 10.0.1.1", vec![missing("10.0.1.1")]),
        ("from = 10.0.2.1 ::1 10.0.1.1", vec![missing("10.0.2.1 (and 2 others)")]),
        ("from = 127.0.0.1", vec![missing("127.0.0.1")]),
        ("read = none", vec![nothing.clone()]),
        ("read = none\nallow = drop input any", vec![]),
        ("read = none\nfrom = 10.1.0.1", vec![missing("10.1.0.1"), nothing]),
    ];
    for (lines, expected) in golden {
        let config = config(&format!("outward.server\n[client a]\npassword = x\n{lines}\n"));
        assert_eq!(warnings(&config, &list), expected, "{lines}");
    }
    let local =
        config("local.server\nlocal.server.authentication\n[client a]\npassword = x\nfrom = 127.0.0.1\n");
    assert_eq!(warnings(&local, &list), Vec::<String>::new());
}
