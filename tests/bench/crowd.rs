//! A crowd of rude clients, and an honest one among them: 20 listed sources with 12
//! connections each, of every kind that may cost others something.

use crate::client::{Client, PORT, connect_from, head, secure};
use rustls::ClientConfig;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// The addresses that the crowd comes from, to be in the white list.
pub fn sources() -> impl Iterator<Item = Ipv4Addr> + Clone {
    (1..=20).map(|n| Ipv4Addr::new(127, 0, 1, n))
}

/// What a rude client does on its connection.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Silent,
    SilentLocal,
    OneByte,
    HalfHandshake,
    HalfHead,
    HalfHeadLocal,
    Drip,
    DripLocal,
    DeafLister,
    DeafLocalLister,
    DeafPipeliner,
    DripHead,
}

const KINDS: [Kind; 12] = [
    Kind::Silent,
    Kind::SilentLocal,
    Kind::OneByte,
    Kind::HalfHandshake,
    Kind::HalfHead,
    Kind::HalfHeadLocal,
    Kind::Drip,
    Kind::DripLocal,
    Kind::DeafLister,
    Kind::DeafLocalLister,
    Kind::DeafPipeliner,
    Kind::DripHead,
];

/// A crowd that is there until it is dropped.
pub struct Crowd {
    over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Crowd {
    /// Has it come; `again` has each come again once a second after it is cut.
    pub fn gather(tls: &Arc<ClientConfig>, again: bool) -> Crowd {
        let over = Arc::new(AtomicBool::new(false));
        let all = sources().flat_map(|source| KINDS.map(|kind| (source, kind)));
        let threads = all.map(|(source, kind)| {
            let (tls, over) = (Arc::clone(tls), Arc::clone(&over));
            let rude = thread::Builder::new().stack_size(256 << 10);
            let work = move || {
                while !over.load(Ordering::Relaxed) {
                    // Whatever becomes of it, it was rude enough.
                    let _ = misbehave(kind, source, &tls, &over);
                    if !again {
                        return;
                    }
                    thread::sleep(Duration::from_secs(1));
                }
            };
            rude.spawn(work).unwrap()
        });
        let threads = threads.collect();
        Crowd { over, threads }
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        self.threads.drain(..).for_each(|thread| drop(thread.join()));
    }
}

const LOCAL: u16 = 7390;
const HALF: &str = "GET /list HTTP/1.1\r\nHost: local";

/// Does what that kind does, until it is cut off.
fn misbehave(
    kind: Kind,
    source: Ipv4Addr,
    tls: &Arc<ClientConfig>,
    over: &AtomicBool,
) -> std::io::Result<()> {
    let local = matches!(
        kind,
        Kind::SilentLocal
            | Kind::HalfHeadLocal
            | Kind::DripLocal
            | Kind::DeafLocalLister
            | Kind::DeafPipeliner
    );
    let mut socket = connect_from(source, if local { LOCAL } else { PORT })?;
    socket.set_read_timeout(Some(Duration::from_millis(100)))?;
    let list = head("GET", "/list", 0);
    let drip = head("PUT", "/drop/input/any", 100_000);
    match kind {
        Kind::Silent | Kind::SilentLocal => {}
        Kind::OneByte => socket.write_all(b"\x16")?,
        Kind::HalfHandshake => socket.write_all(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")?,
        Kind::HalfHeadLocal => socket.write_all(HALF.as_bytes())?,
        Kind::DripLocal => {
            socket.write_all(drip.as_bytes())?;
            return drip_on(&mut socket, over);
        }
        Kind::DeafLocalLister => {
            socket.write_all(list.as_bytes())?;
            return be_deaf(&socket, over);
        }
        Kind::DeafPipeliner => {
            let many = head("GET", "/", 0).repeat(100);
            while !over.load(Ordering::Relaxed) && send_some(&mut socket, many.as_bytes())? {}
            return be_deaf(&socket, over);
        }
        Kind::HalfHead | Kind::Drip | Kind::DeafLister | Kind::DripHead => {
            let mut stream = secure(tls, socket);
            stream.sock.set_read_timeout(None)?;
            let text = match kind {
                Kind::HalfHead | Kind::DripHead => HALF,
                Kind::Drip => &drip,
                _ => &list,
            };
            stream.write_all(text.as_bytes())?;
            stream.flush()?;
            stream.sock.set_read_timeout(Some(Duration::from_millis(100)))?;
            return match kind {
                Kind::Drip | Kind::DripHead => drip_on(&mut stream, over),
                Kind::DeafLister => be_deaf(&stream.sock, over),
                _ => wait_for_end(&mut stream, over),
            };
        }
    }
    wait_for_end(&mut socket, over)
}

/// Sends what there is room for, for a moment.
fn send_some(socket: &mut TcpStream, bytes: &[u8]) -> std::io::Result<bool> {
    socket.set_write_timeout(Some(Duration::from_millis(100)))?;
    match socket.write(bytes) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(false),
        Err(error) => Err(error),
    }
}

fn drip_on(stream: &mut (impl Read + Write), over: &AtomicBool) -> std::io::Result<()> {
    while !over.load(Ordering::Relaxed) {
        stream.write_all(b"\n")?;
        stream.flush()?;
        // The pause is that of the read.
        match stream.read(&mut [0; 1024]) {
            Ok(0) => return Ok(()),
            Err(error) if error.kind() != ErrorKind::WouldBlock => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Reads nothing, and sees the end by sending.
fn be_deaf(socket: &TcpStream, over: &AtomicBool) -> std::io::Result<()> {
    let start = Instant::now();
    while !over.load(Ordering::Relaxed) && start.elapsed() < Duration::from_secs(10) {
        thread::sleep(Duration::from_millis(100));
        if socket.take_error()?.is_some() {
            return Ok(());
        }
    }
    Ok(())
}

fn wait_for_end(stream: &mut impl Read, over: &AtomicBool) -> std::io::Result<()> {
    while !over.load(Ordering::Relaxed) {
        match stream.read(&mut [0; 1024]) {
            Ok(0) => return Ok(()),
            Err(error) if error.kind() != ErrorKind::WouldBlock => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// What an honest client waits for its PUT, on a kept connection and on new ones.
pub struct Waits {
    pub kept: Vec<Duration>,
    pub new: Vec<Duration>,
}

impl Waits {
    /// Asks for so long, twenty times a second.
    pub fn measure(tls: &Arc<ClientConfig>, time: Duration) -> Waits {
        let (start, mut waits) = (Instant::now(), Waits { kept: Vec::new(), new: Vec::new() });
        let mut client = Client::new(tls);
        while start.elapsed() < time {
            let asked = Instant::now();
            client.put("9.9.9.9");
            waits.kept.push(asked.elapsed());
            let asked = Instant::now();
            Client::new(tls).put("9.9.9.8");
            waits.new.push(asked.elapsed());
            thread::sleep(Duration::from_millis(50));
        }
        waits.kept.sort_unstable();
        waits.new.sort_unstable();
        waits
    }

    /// The medians and the longest of all.
    pub fn summary(&self) -> (Duration, Duration, Duration) {
        let median = |times: &[Duration]| times.get(times.len() / 2).copied().unwrap_or_default();
        let longest = self.kept.last().max(self.new.last()).copied().unwrap_or_default();
        (median(&self.kept), median(&self.new), longest)
    }
}
