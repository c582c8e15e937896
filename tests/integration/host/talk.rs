//! Connections that stay open, and HTTP responses.

use super::{Host, SOON, run, until};
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

impl Host {
    /// Opens a TCP connection to a port of 127.0.0.1 and keeps it open.
    #[track_caller]
    pub fn connect(&self, port: u16) -> Talk {
        let script = format!("exec 3<>/dev/tcp/127.0.0.1/{port} || exit; echo open; cat <&3 & exec cat >&3");
        let mut talk = self.talk("bash", &["-c", &script]);
        until(SOON, "the connection is open", || talk.heard().starts_with("open\n") || talk.is_over());
        talk.forget("open\n".len());
        talk
    }

    /// Starts a program that carries bytes both ways until it is dropped.
    #[track_caller]
    pub fn talk(&self, program: &str, arguments: &[&str]) -> Talk {
        let mut child = self
            .command(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .expect(program);
        let heard = Arc::new(Mutex::new((Vec::new(), false)));
        let (mut stdout, ear) = (child.stdout.take().unwrap(), Arc::clone(&heard));
        thread::spawn(move || {
            let mut part = [0; 4096];
            while let Ok(length @ 1..) = stdout.read(&mut part) {
                ear.lock().unwrap().0.extend_from_slice(&part[..length]);
            }
            ear.lock().unwrap().1 = true;
        });
        Talk { mouth: child.stdin.take(), child, heard }
    }
}

/// A connection that stays open, through a program that carries the bytes.
pub struct Talk {
    child: Child,
    mouth: Option<ChildStdin>,
    heard: Arc<Mutex<(Vec<u8>, bool)>>,
}

impl Talk {
    /// Sends bytes; whether anybody listens shows in what comes back.
    pub fn say(&mut self, bytes: &[u8]) {
        let mouth = self.mouth.as_mut().unwrap();
        let _ = mouth.write_all(bytes).and_then(|()| mouth.flush());
    }

    /// What has come and not been taken.
    pub fn heard(&self) -> String {
        String::from_utf8_lossy(&self.heard.lock().unwrap().0).into_owned()
    }

    /// The number of its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether the other side has closed.
    pub fn is_over(&self) -> bool {
        self.heard.lock().unwrap().1
    }

    /// Takes the next response.
    #[track_caller]
    pub fn reply(&mut self) -> Reply {
        self.take(|heard, over| {
            let (head, rest) = heard.split_once("\r\n\r\n")?;
            let mut reply = Reply::parse(heard);
            let chunked = reply.header("Transfer-Encoding") == Some("chunked");
            let (body, framed) = match reply.header("Content-Length") {
                Some(length) => (rest.get(..length.parse().unwrap())?.to_owned(), length.parse().unwrap()),
                None if chunked => decode_chunks(rest)?,
                None if over => (rest.to_owned(), rest.len()),
                None => return None,
            };
            reply.body = body;
            Some((reply, head.len() + 4 + framed))
        })
    }

    /// Takes the next response as that to HEAD, which has no body.
    #[track_caller]
    pub fn reply_to_head(&mut self) -> Reply {
        self.take(|heard, _| {
            let end = heard.find("\r\n\r\n")? + 4;
            Some((Reply::parse(&heard[..end]), end))
        })
    }

    /// Waits until a response can be read from what has come, and takes its bytes.
    #[track_caller]
    fn take(&mut self, read: impl Fn(&str, bool) -> Option<(Reply, usize)>) -> Reply {
        let mut taken = None;
        until(SOON, "there is a response", || {
            let (over, heard) = (self.is_over(), self.heard());
            taken = read(&heard, over);
            assert!(taken.is_some() || !over, "closed without a response: {heard:?}");
            taken.is_some()
        });
        let (reply, length) = taken.unwrap();
        self.forget(length);
        reply
    }

    /// Takes all that has come.
    pub fn forget_all(&mut self) {
        self.heard.lock().unwrap().0.clear();
    }

    fn forget(&mut self, length: usize) {
        let mut heard = self.heard.lock().unwrap();
        assert!(heard.0.len() >= length, "not open: {:?}", heard.0);
        heard.0.drain(..length);
    }
}

impl Drop for Talk {
    fn drop(&mut self) {
        drop(self.mouth.take());
        run("kill", &["-s", "KILL", "--", &format!("-{}", self.child.id())]);
        let _ = self.child.wait();
    }
}

/// A body in chunks and the length of their bytes, if all have come.
fn decode_chunks(text: &str) -> Option<(String, usize)> {
    let (mut body, mut rest) = (String::new(), text);
    loop {
        let (size, after) = rest.split_once("\r\n")?;
        let size = usize::from_str_radix(size, 16).expect("the size of a chunk");
        body += after.get(..size)?;
        rest = after.get(size..)?.strip_prefix("\r\n")?;
        if size == 0 {
            return Some((body, text.len() - rest.len()));
        }
    }
}

/// An HTTP response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Reply {
    /// Reads what `curl -i` prints, or a raw response.
    #[track_caller]
    pub fn parse(text: &str) -> Reply {
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no response: {text:?}"));
        if head.starts_with("HTTP/1.1 100") {
            return Reply::parse(body);
        }
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
        let status = status.unwrap_or_else(|| panic!("no status: {text:?}"));
        Reply { status, head: head.to_owned(), body: body.to_owned() }
    }

    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (known, value) = line.split_once(':')?;
            known.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:#?}"))
    }
}
