//! A browser on a host: Chromium without a window, driven through chromedriver by WebDriver (W3C), which is
//! JSON over HTTP. It trusts the CA of the host's rfw, as a browser does whose user has imported it.

use crate::host::{Host, SOON, Talk, until};
use serde_json::{Value, json};
use std::fs;

/// The port of chromedriver, in the network namespace of the host.
const PORT: u16 = 9515;

/// How an element is named in an answer of WebDriver.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// Keys in what is typed.
pub const TAB: &str = "\u{e004}";
pub const ENTER: &str = "\u{e007}";
pub const ESCAPE: &str = "\u{e00c}";

/// Chromium's switches: no window, no processor for pictures, none of its own requests, and no sandbox, which root
/// can't have.
const SWITCHES: [&str; 10] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1280,900",
];

/// chromedriver on a host.
pub struct Driver<'a> {
    host: &'a Host,
    _process: Talk,
}

impl Driver<'_> {
    /// Starts it in a home of its own, whose certificate store has the CA.
    #[track_caller]
    pub fn start(host: &Host) -> Driver<'_> {
        let home = host.dir.join("home");
        let store = home.join(".pki/nssdb");
        fs::create_dir_all(&store).unwrap();
        let store = format!("sql:{}", store.display());
        host.run("certutil", &["-d", &store, "-N", "--empty-password"]).ok();
        host.run("certutil", &["-d", &store, "-A", "-t", "C,,", "-n", "rfw", "-i", "ca.crt"]).ok();
        let home = format!("HOME={}", home.display());
        let process = host.talk("env", &[&home, "chromedriver", &format!("--port={PORT}")]);
        let driver = Driver { host, _process: process };
        until(SOON, "chromedriver is ready", || {
            let url = format!("http://127.0.0.1:{PORT}/status");
            host.run("curl", &["-sS", "--max-time", "5", &url]).status == Some(0)
        });
        driver
    }

    /// Opens a browser of its own, without anything of another one.
    #[track_caller]
    pub fn browser(&self) -> Browser<'_> {
        let options = json!({ "args": SWITCHES });
        let wanted = json!({
            "browserName": "chrome",
            "goog:chromeOptions": options,
            "goog:loggingPrefs": { "browser": "ALL" },
        });
        let session = self.call("POST", "/session", &json!({ "capabilities": { "alwaysMatch": wanted } }));
        let id = session.unwrap_or_else(|error| panic!("no browser: {error}"))["sessionId"].clone();
        Browser { driver: self, session: format!("/session/{}", id.as_str().expect("a session")) }
    }

    /// Sends a command.
    fn call(&self, method: &str, path: &str, body: &Value) -> Result<Value, String> {
        let url = format!("http://127.0.0.1:{PORT}{path}");
        let body = if method == "POST" { body.to_string() } else { String::new() };
        let arguments = ["-sS", "--max-time", "60", "-X", method, "--data-binary", "@-", &url];
        let said = self.host.feed("curl", &arguments, body.as_bytes());
        let answer: Value = serde_json::from_str(&said.out).map_err(|error| format!("{error}: {said:?}"))?;
        let value = answer["value"].clone();
        if value["error"].is_string() { Err(format!("{path}: {value}")) } else { Ok(value) }
    }
}

/// A browser with one page, which is closed when it is dropped.
pub struct Browser<'a> {
    driver: &'a Driver<'a>,
    session: String,
}

impl Browser<'_> {
    #[track_caller]
    fn command(&self, method: &str, path: &str, body: &Value) -> Value {
        let answer = self.driver.call(method, &format!("{}{path}", self.session), body);
        answer.unwrap_or_else(|error| panic!("{error}"))
    }

    /// Opens a page and waits until it is there.
    #[track_caller]
    pub fn open(&self, url: &str) {
        self.command("POST", "/url", &json!({ "url": url }));
    }

    /// Runs the body of a function in the page and gives what it returns.
    #[track_caller]
    pub fn run(&self, script: &str) -> Value {
        self.command("POST", "/execute/sync", &json!({ "script": script, "args": [] }))
    }

    /// Waits until an expression is true in the page.
    #[track_caller]
    pub fn until(&self, expression: &str) {
        let script = format!(
            "const [done, end] = [arguments[0], Date.now() + {}];
             (function look() {{
               const came = (() => {{ try {{ return Boolean({expression}); }} catch {{ return false; }} }})();
               if (came || Date.now() > end) done([came, document.body.innerText]);
               else setTimeout(look, 20);
             }})();",
            SOON.as_millis()
        );
        let last = self.command("POST", "/execute/async", &json!({ "script": script, "args": [] }));
        assert_eq!(
            last[0],
            true,
            "not within {SOON:?}: {expression}\n{}",
            last[1].as_str().unwrap_or_default()
        );
    }

    /// Waits until an element shows a text.
    #[track_caller]
    pub fn shows(&self, selector: &str, text: &str) {
        self.until(&format!("document.querySelector({selector:?})?.innerText.includes({})", json!(text)));
    }

    /// Whether an element can be seen.
    #[track_caller]
    pub fn sees(&self, selector: &str) -> bool {
        self.run(&format!("return Boolean(document.querySelector({selector:?})?.checkVisibility())")) == true
    }

    /// Clicks on an element, as with a mouse: where it is covered or can't be seen, this fails.
    #[track_caller]
    pub fn click(&self, selector: &str) {
        let element = self.element(selector);
        self.command("POST", &format!("/element/{element}/click"), &json!({}));
    }

    /// Puts a text in the place of what a field has.
    #[track_caller]
    pub fn write(&self, selector: &str, text: &str) {
        let element = self.element(selector);
        self.command("POST", &format!("/element/{element}/clear"), &json!({}));
        self.command("POST", &format!("/element/{element}/value"), &json!({ "text": text }));
    }

    /// Types on the keyboard, whatever has the focus.
    #[track_caller]
    pub fn press(&self, keys: &str) {
        let actions: Vec<Value> = keys
            .chars()
            .flat_map(|key| {
                ["keyDown", "keyUp"].map(|kind| json!({ "type": kind, "value": key.to_string() }))
            })
            .collect();
        let keyboard = json!({ "type": "key", "id": "keyboard", "actions": actions });
        self.command("POST", "/actions", &json!({ "actions": [keyboard] }));
    }

    #[track_caller]
    fn element(&self, selector: &str) -> String {
        let by = json!({ "using": "css selector", "value": selector });
        let found = self.command("POST", "/element", &by);
        found[ELEMENT].as_str().expect("an element").to_owned()
    }

    /// Runs a command of the Chrome DevTools Protocol.
    #[track_caller]
    pub fn devtools(&self, command: &str, parameters: &Value) -> Value {
        self.command("POST", "/goog/cdp/execute", &json!({ "cmd": command, "params": parameters }))
    }

    /// What the console has since it was asked last: errors of scripts, requests that failed, what the policy of
    /// a page has stopped. Chromium's own pages count for nothing.
    #[track_caller]
    pub fn console(&self) -> Vec<String> {
        let entries = self.command("POST", "/se/log", &json!({ "type": "browser" }));
        let lines = entries.as_array().expect("a log").iter();
        let lines = lines.map(|entry| entry["message"].as_str().unwrap_or_default().to_owned());
        lines.filter(|line| !line.starts_with("chrome://")).collect()
    }
}

impl Drop for Browser<'_> {
    fn drop(&mut self) {
        let _ = self.driver.call("DELETE", &self.session, &Value::Null);
    }
}
