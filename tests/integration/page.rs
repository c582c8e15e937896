//! The page in a real browser, over TLS, down to the kernel: what is clicked and typed, what is offered to whom, and
//! what a page of somebody else can't do.

mod browser;

use crate::host::{Host, Rfw, SOON, Talk, until};
use base64::prelude::{BASE64_STANDARD, Engine};
use browser::{Browser, Driver, ENTER, ESCAPE, TAB};
use serde_json::json;

/// The address of rfw for a browser that is to log in so.
fn url(client: &str, password: &str) -> String {
    format!("https://{client}:{password}@127.0.0.1:7393/")
}

/// Opens the page as a client and waits until it has the state.
#[track_caller]
fn open(browser: &Browser<'_>, client: &str, password: &str) {
    browser.open(&url(client, password));
    browser.shows("#who", client);
    browser.shows("#version", env!("CARGO_PKG_VERSION"));
}

/// Fills the form and sends it.
#[track_caller]
fn block(browser: &Browser<'_>, address: &str, list: &str, reason: &str) {
    browser.write("#block-address", address);
    browser.write("#list", list);
    browser.write("#reason", reason);
    browser.click("#block-button");
}

fn rules(host: &Host) -> String {
    host.run("iptables-nft", &["-S", "INPUT"]).ok()
}

#[test]
fn an_address_is_blocked_found_and_unblocked_by_clicks() {
    let host = Host::new();
    let rfw = host.rfw("iptables-nft").start();
    let driver = Driver::start(&host);
    let browser = driver.browser();
    programs_get_the_help(&rfw);
    open(&browser, "me", "secret");
    by_clicks(&host, &rfw, &browser);
    assert_eq!(browser.console(), Vec::<String>::new());
    by_keyboard(&host, &browser);
    packets_are_counted(&host, &rfw, &browser);
    errors_are_the_servers(&rfw, &browser);
    what_comes_is_text(&rfw, &browser);
    by_screen_reader(&browser);
    at_each_width(&browser);
    while_rfw_is_away(rfw, &browser);
    // Requests that were refused or not answered are all that the console tells of.
    let told = browser.console();
    let strange: Vec<_> = told.iter().filter(|line| !line.contains("Failed to load resource")).collect();
    assert!(strange.is_empty(), "{strange:#?}");
}

/// Who does not prefer HTML has JSON, and the page comes with all that keeps others out of it.
#[track_caller]
fn programs_get_the_help(rfw: &Rfw<'_>) {
    let get = |accept: &str| rfw.curl(&["-u", "me:secret", "-H", accept, "https://127.0.0.1:7393/"]);
    for accept in ["Accept:", "Accept: */*", "Accept: application/json, text/html;q=0.9"] {
        assert_eq!(get(accept).json()["client"], "me", "{accept}");
    }
    let page = get("Accept: text/html,application/xhtml+xml,*/*;q=0.8");
    assert!(page.status == 200 && page.body.starts_with("<!doctype html>"), "{page:?}");
    let policy = page.header("Content-Security-Policy").expect("a policy");
    assert!(policy.starts_with("default-src 'none'; script-src 'sha256-"), "{policy}");
    for (name, value) in [
        ("Content-Type", "text/html; charset=utf-8"),
        ("Cache-Control", "no-store"),
        ("X-Content-Type-Options", "nosniff"),
        ("Referrer-Policy", "no-referrer"),
        ("Cross-Origin-Opener-Policy", "same-origin"),
        ("Cross-Origin-Resource-Policy", "same-origin"),
    ] {
        assert_eq!(page.header(name), Some(value), "{name}");
    }
}

/// Blocks by the form, looks it up, and unblocks it, which is asked once.
#[track_caller]
fn by_clicks(host: &Host, rfw: &Rfw<'_>, browser: &Browser<'_>) {
    browser.shows("#health", "running");
    for (tile, text) in [("#uptime", "since "), ("#certificate", "until "), ("#version", "iptables-nft")] {
        browser.shows(tile, text);
    }
    block(browser, "66.66.66.66", "manual", "port scan");
    browser.shows("#blocked", "66.66.66.66: inserted in list manual, until ");
    assert!(rules(host).contains("-s 66.66.66.66/32 -m comment --comment \"rfw until "), "{}", rules(host));
    let row = &rfw.ok("GET", "/list?address=66.66.66.66")[0];
    assert_eq!(
        (&row["list"], &row["reason"], &row["by"]),
        (&json!("manual"), &json!("port scan"), &json!("me"))
    );
    browser.shows("#list-rows", "manual");
    browser.shows("#feed", "66.66.66.66");
    browser.shows("#feed", "list manual · by me from 127.0.0.1 · until ");

    look_up(browser, "66.66.66.0/24");
    browser.shows("#verdict", "66.66.66.0/24 is not blocked.");
    look_up(browser, "66.66.66.66");
    browser.shows("#verdict", "66.66.66.66 is blocked.");
    for text in ["in list manual", "until ", "by me", "“port scan”"] {
        browser.shows("#found", text);
    }

    browser.click("#found button");
    browser.shows("#dialog", "Unblock 66.66.66.66?");
    browser.click("#dialog button[value='']");
    browser.until("!document.querySelector('dialog').open");
    browser.click("#found button");
    browser.press(ESCAPE);
    browser.until("!document.querySelector('dialog').open");
    assert!(rules(host).contains("66.66.66.66"), "it was not confirmed");
    browser.click("#found button");
    browser.click("#yes");
    browser.shows("#verdict", "66.66.66.66 is taken out of list manual.");
    browser.shows("#verdict", "66.66.66.66 is not blocked.");
    assert!(!rules(host).contains("66.66.66.66"), "{}", rules(host));
}

/// The same without a mouse, from the top of the page: each step is reached by the key Tab.
#[track_caller]
fn by_keyboard(host: &Host, browser: &Browser<'_>) {
    browser.run("document.activeElement.blur(); scrollTo(0, 0)");
    browser.open("https://127.0.0.1:7393/");
    browser.shows("#who", "me");
    walk_to(browser, "document.activeElement.id === 'block-address'");
    browser.press(&format!("77.77.77.77{ENTER}"));
    browser.shows("#blocked", "77.77.77.77: inserted in the unnamed list");
    assert!(rules(host).contains("-s 77.77.77.77/32"), "{}", rules(host));
    browser.shows("#verdict", "77.77.77.77 is blocked.");
    browser.run("document.activeElement.blur(); scrollTo(0, 0)");
    walk_to(browser, "document.activeElement.ariaLabel === 'Unblock 77.77.77.77 of the unnamed list'");
    browser.press(ENTER);
    browser.until("document.querySelector('dialog').open && document.activeElement.textContent === 'Cancel'");
    browser.press(TAB);
    browser.until("document.activeElement.textContent === 'Unblock'");
    browser.press(ENTER);
    browser.shows("#verdict", "77.77.77.77 is taken out of the unnamed list.");
    browser.until("document.activeElement.id === 'address'");
    assert!(!rules(host).contains("77.77.77.77"), "{}", rules(host));
}

/// Presses Tab until the focus is where it is to be, and sees that it is shown on the way.
#[track_caller]
fn walk_to(browser: &Browser<'_>, there: &str) {
    for _ in 0..40 {
        browser.press(TAB);
        let is_shown = "document.activeElement === document.body || \
                        getComputedStyle(document.activeElement).outlineStyle !== 'none'";
        let at = browser
            .run(&format!("return [{there}, {is_shown}, document.activeElement.outerHTML.slice(0, 150)]"));
        assert_eq!(at[1], true, "the focus does not show: {at}");
        if at[0] == true {
            return;
        }
    }
    panic!("not reached by the keyboard: {there}");
}

/// Has the page look at once, as when a user comes back to it.
#[track_caller]
fn look(browser: &Browser<'_>) {
    browser.run("document.dispatchEvent(new Event('visibilitychange'))");
}

/// Packets that rfw blocks are told, and drawn as a curve.
#[track_caller]
fn packets_are_counted(host: &Host, rfw: &Rfw<'_>, browser: &Browser<'_>) {
    host.run("ip", &["address", "add", "99.99.99.99/32", "dev", "lo"]).ok();
    rfw.ok("PUT", "/drop/input/any/99.99.99.99");
    host.run("ping", &["-c", "3", "-i", "0.05", "-W", "0.1", "99.99.99.99"]).fails_with(1);
    look(browser);
    browser.until("parseInt(document.querySelector('#total').innerText) >= 3");
    browser.until("document.querySelector('#curve .stroke').getAttribute('d').startsWith('M')");
    browser.until("document.querySelector('#curve').ariaLabel.startsWith('Blocked packets: ')");
}

/// What is wrong is said in the words of rfw, to a screen reader too.
#[track_caller]
fn errors_are_the_servers(rfw: &Rfw<'_>, browser: &Browser<'_>) {
    for (address, status) in [("127.0.0.1", 400), ("66.66.66.256", 400), ("66.66.66.66/8", 400)] {
        let error = rfw.refused("PUT", &format!("/drop/input/any/{address}"), status);
        block(browser, address, "", "");
        browser.shows("#blocked [role=alert]", &error);
        assert_eq!(browser.run("return document.querySelector('#block-address').value"), address);
    }
    let error = rfw.refused("GET", "/list?address=nonsense", 400);
    browser.write("#address", "nonsense");
    browser.click("#search-form button");
    browser.shows("#verdict [role=alert]", &error);
}

/// Names and reasons are shown as they are, whatever they would be in HTML.
#[track_caller]
fn what_comes_is_text(rfw: &Rfw<'_>, browser: &Browser<'_>) {
    let reason = "<img src=x onerror=document.title='taken'>&amp;";
    rfw.ok(
        "PUT",
        "/drop/input/any/88.88.88.88?reason=%3Cimg%20src=x%20onerror=document.title='taken'%3E%26amp;",
    );
    look_up(browser, "88.88.88.88");
    browser.shows("#found", reason);
    look(browser);
    browser.shows("#feed", reason);
    assert_eq!(browser.run("return document.querySelectorAll('main img').length"), 0);
}

/// Nothing is wider than the window or hard to read, and the page is dark where that is preferred.
#[track_caller]
fn at_each_width(browser: &Browser<'_>) {
    let mut backgrounds = Vec::new();
    for (width, scheme) in [(360, "light"), (768, "dark"), (1280, "light"), (2560, "dark")] {
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        browser.devtools("Emulation.setEmulatedMedia", &json!({ "features": features }));
        let metrics = json!({ "width": width, "height": 900, "deviceScaleFactor": 1, "mobile": false });
        browser.devtools("Emulation.setDeviceMetricsOverride", &metrics);
        let seen = browser.run(LOOK);
        assert_eq!(
            (&seen["width"], &seen["cut"], &seen["pale"]),
            (&json!(width), &json!([]), &json!([])),
            "{scheme}"
        );
        backgrounds.push(seen["background"].clone());
    }
    assert_eq!((&backgrounds[0], &backgrounds[1]), (&backgrounds[2], &backgrounds[3]));
    assert_ne!(backgrounds[0], backgrounds[1]);
    browser.devtools("Emulation.clearDeviceMetricsOverride", &json!({}));
}

/// What is cut off at the right, and texts whose contrast with what is behind them is below 4.5 (WCAG 2.2, 1.4.3).
const LOOK: &str = "
    for (const one of document.getAnimations()) one.finish();
    const numbers = colour => colour.match(/[0-9.]+/g).map(Number);
    const light = colour => numbers(colour).slice(0, 3).map(part => part / 255)
      .map(part => part <= .04045 ? part / 12.92 : ((part + .055) / 1.055) ** 2.4)
      .reduce((sum, part, at) => sum + part * [.2126, .7152, .0722][at], 0);
    const isClear = colour => numbers(colour)[3] === 0;
    const behind = one => {
      const colour = getComputedStyle(one).backgroundColor;
      return isClear(colour) && one.parentElement ? behind(one.parentElement) : colour;
    };
    const all = [...document.querySelectorAll('body *')].filter(one => one.checkVisibility());
    const texts = all.filter(one => one.matches('input, select') || [...one.childNodes].some(node => node.nodeType === 3 && node.data.trim()));
    const contrast = one => {
      const [a, b] = [light(getComputedStyle(one).color), light(behind(one))];
      return (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
    };
    const edge = document.documentElement.clientWidth;
    const wide = document.documentElement.scrollWidth > edge ? ['the page'] : [];
    return {
      width: innerWidth,
      background: getComputedStyle(document.body).backgroundColor,
      cut: [...wide, ...all.filter(one => one.getBoundingClientRect().right > edge + .5).map(one => one.outerHTML)],
      pale: texts.filter(one => contrast(one) < 4.5).map(one => `${contrast(one)} ${one.outerHTML}`),
    };";

/// What a screen reader tells: each part has a name, and each field and button says what it is for.
#[track_caller]
fn by_screen_reader(browser: &Browser<'_>) {
    let tree = browser.devtools("Accessibility.getFullAXTree", &json!({}));
    let nodes = tree["nodes"].as_array().expect("nodes").iter().filter(|node| node["ignored"] == false);
    let told: Vec<(&str, &str)> = nodes
        .map(|node| {
            (node["role"]["value"].as_str().unwrap_or(""), node["name"]["value"].as_str().unwrap_or(""))
        })
        .collect();
    let needs_name =
        ["button", "textbox", "combobox", "region", "table", "columnheader", "rowheader", "image", "heading"];
    let nameless: Vec<_> =
        told.iter().filter(|(role, name)| needs_name.contains(role) && name.is_empty()).collect();
    assert!(nameless.is_empty(), "{nameless:?} in {told:?}");
    for part in [
        ("main", ""),
        ("banner", ""),
        ("heading", "Newest changes"),
        ("region", "Is it blocked?"),
        ("table", "Lists"),
        ("button", "Look up 88.88.88.88"),
        ("textbox", "Reason"),
        ("button", "Unblock 88.88.88.88 of the unnamed list"),
    ] {
        assert!(told.contains(&part), "{part:?} in {told:?}");
    }
}

/// The page says so while nobody answers, and goes on by itself.
#[track_caller]
fn while_rfw_is_away(mut rfw: Rfw<'_>, browser: &Browser<'_>) {
    rfw.stop();
    look(browser);
    browser.shows("#alerts", "The server does not answer.");
    browser.shows("#health", "no answer");
    rfw.spawn();
    look(browser);
    browser.shows("#health", "running");
    browser.until("!document.querySelector('#alerts').innerText");
}

#[test]
fn a_client_is_offered_what_it_may() {
    let host = Host::new();
    let sections = "[client honeypot]\npassword = secret of honeypot\nallow = drop input any\nlists = honeypot\n\
                    expire.max = 7d\n[client feeds]\npassword = secret of feeds\nallow = drop,accept input,forward *\n\
                    lists = feed-*\nread = none\n[client monitor]\npassword = secret of monitor\nread = all\n\
                    [client nobody]\npassword = secret of nobody\nread = none\n";
    let rfw = host.rfw("iptables-nft").configure(sections).start();
    rfw.ok("PUT", "/drop/input/any/66.66.66.66?list=tor");
    rfw.ok("PUT", "/drop/input/any/66.66.66.66?list=honeypot");
    let driver = Driver::start(&host);
    let browser = driver.browser();
    log_in(&browser, "honeypot");
    honeypot(&host, &browser);
    log_in(&browser, "feeds");
    feeds(&browser);
    log_in(&browser, "monitor");
    look_up(&browser, "66.66.66.66");
    browser.shows("#list-rows", "tor");
    assert_eq!(browser.run("return document.querySelectorAll('#found .row').length"), 2);
    assert!(!browser.sees("#found button") && !browser.sees("#block"));
    log_in(&browser, "nobody");
    browser.shows("#mute", "This client may neither see nor change anything.");
    for part in ["#search", "#block", "#lists", "#changes"] {
        assert!(!browser.sees(part), "{part}");
    }
}

/// Opens the page as another client, with a header, since a browser keeps the password that it was given first.
#[track_caller]
fn log_in(browser: &Browser<'_>, client: &str) {
    let login = BASE64_STANDARD.encode(format!("{client}:secret of {client}"));
    let headers = json!({ "headers": { "Authorization": format!("Basic {login}") } });
    browser.devtools("Network.enable", &json!({}));
    browser.devtools("Network.setExtraHTTPHeaders", &headers);
    browser.open("https://127.0.0.1:7393/");
    browser.shows("#who", client);
}

#[track_caller]
fn look_up(browser: &Browser<'_>, address: &str) {
    browser.write("#address", address);
    browser.click("#search-form button");
    browser.shows("#verdict", &format!("{address} is "));
}

/// One that blocks in one list, for a week at most, and sees no other.
#[track_caller]
fn honeypot(host: &Host, browser: &Browser<'_>) {
    let offered = |id: &str| {
        browser.run(&format!("return [...document.querySelector('{id}').options].map(one => one.value)"))
    };
    assert_eq!(offered("#target"), json!(["drop"]));
    assert_eq!(offered("#place"), json!(["input/any"]));
    assert_eq!(offered("#unit"), json!(["s", "m", "h", "d"]));
    assert_eq!(offered("#list"), json!(["honeypot"]));
    look_up(browser, "66.66.66.66");
    browser.shows("#verdict", "is blocked in the lists of this client");
    assert_eq!(browser.run("return document.querySelectorAll('#found .row').length"), 1);
    browser.shows("#list-rows", "honeypot");
    assert_eq!(browser.run("return document.querySelector('#list-rows').innerText.includes('tor')"), false);
    browser.write("#amount", "8");
    browser.run("document.querySelector('#unit').value = 'd'");
    browser.write("#block-address", "77.77.77.77");
    browser.click("#block-button");
    browser.shows("#blocked [role=alert]", "(expire.max)");
    browser.write("#amount", "2");
    browser.click("#block-button");
    browser.shows("#blocked", "77.77.77.77: inserted in list honeypot");
    assert!(rules(host).contains("list honeypot\""), "{}", rules(host));
}

/// One that puts in what it may not see, and may take that back.
#[track_caller]
fn feeds(browser: &Browser<'_>) {
    let offered = |id: &str| {
        browser.run(&format!("return [...document.querySelector('{id}').options].map(one => one.value)"))
    };
    assert_eq!(offered("#target"), json!(["drop", "accept"]));
    assert_eq!(offered("#place"), json!(["input/any", "forward/any"]));
    assert!(!browser.sees("#search") && !browser.sees("#lists") && !browser.sees("#changes"));
    block(browser, "99.99.99.99", "feed-1", "");
    browser.shows("#blocked", "99.99.99.99: inserted in list feed-1");
    browser.click("#blocked button");
    browser.click("#yes");
    browser.shows("#blocked", "99.99.99.99 is taken out of list feed-1.");
}

#[test]
fn a_page_of_another_origin_changes_nothing() {
    let host = Host::new();
    let rfw = host.rfw("iptables-nft").configure("non.restful").start();
    rfw.ok("PUT", "/drop/input/any/66.66.66.66");
    let _server = evil(&host);
    let driver = Driver::start(&host);
    let browser = driver.browser();
    // The browser has the password from here on, and sends it wherever it is asked to.
    open(&browser, "me", "secret");
    let before = rules(&host);
    for name in ["127.0.0.1", "[::1]"] {
        browser.open(&format!("https://{name}:8443/evil.html"));
        browser.until("document.title === 'done'");
        let heard = browser.run("return heard");
        assert_eq!(heard[0], heard[1], "{name}: whether an address is blocked can be heard");
    }
    // Those of the same host come with the password; to others the browser does not give it.
    let refused = |number: u32| {
        let is_of =
            |line: &str| line.contains(&format!("/6.6.6.{number}")) && line.contains("a web page may not");
        rfw.log().lines().any(is_of)
    };
    until(SOON, "each is refused", || (1..=5).all(refused));
    assert_eq!(rules(&host), before);
    // A frame of it shows nothing, since it could lie under what somebody clicks on.
    let told = browser.console().join("\n");
    assert!(told.contains("frame-ancestors"), "{told}");
    // What its own page sends is taken.
    open(&browser, "me", "secret");
    block(&browser, "77.77.77.77", "", "");
    browser.shows("#blocked", "77.77.77.77: inserted");
    assert_ne!(rules(&host), before);
}

/// Serves the files of its folder by HTTPS, each connection by itself: a browser opens some that it does not use.
const SERVER: &str = "
import http.server, socket, ssl
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain('server.crt', 'server.key')
class Server(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6
server = Server(('::', 8443), http.server.SimpleHTTPRequestHandler)
server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
server.serve_forever()
";

/// A server of web pages on the same host, with a certificate that the browser takes.
fn evil(host: &Host) -> Talk {
    let page = "<!doctype html><title>evil</title><iframe src='https://127.0.0.1:7393/'></iframe><iframe name=sink></iframe>
        <form id=form method=post target=sink action='https://127.0.0.1:7393/drop/input/any/6.6.6.1'></form>
        <img src='https://127.0.0.1:7393/drop/input/any/6.6.6.2?modify=insert'>
        <script>
        const to = (method, path, mode) =>
          fetch('https://127.0.0.1:7393' + path, { method, mode, credentials: 'include' }).catch(() => null);
        Promise.all([
          new Promise(loaded => addEventListener('load', loaded)),
          to('POST', '/drop/input/any/6.6.6.3', 'no-cors'), to('POST', '/drop/input/any/6.6.6.4', 'cors'),
          to('GET', '/drop/input/any/6.6.6.5?modify=insert', 'no-cors'), to('PUT', '/drop/input/any/6.6.6.6', 'cors'),
          to('DELETE', '/drop/input/any/66.66.66.66', 'cors'), to('DELETE', '/list?list=*', 'cors'),
        ]).then(async () => {
          heard = [await asked('66.66.66.66'), await asked('88.88.88.88')];
          document.title = 'done';
        });
        // An address is no script: that there is one shows as an error of the page.
        let heard, failed;
        onerror = () => { failed = true; };
        const asked = address => new Promise(done => {
          const script = document.createElement('script');
          failed = false;
          script.onload = script.onerror = event => done(`${event.type} ${failed}`);
          script.src = `https://127.0.0.1:7393/list?format=plain&address=${address}`;
          document.head.append(script);
        });
        document.querySelector('form').submit();
        </script>";
    host.write("evil.html", 0o644, page);
    let server = host.talk("python3", &["-c", SERVER]);
    let is_there = || {
        host.run("curl", &["-sS", "--cacert", "ca.crt", "https://127.0.0.1:8443/evil.html"]).status == Some(0)
    };
    until(SOON, "the other server is there", is_there);
    server
}
