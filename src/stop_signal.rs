//! Whether rfw has been told to end, for all who wait for something: programs, clients.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use std::io;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

/// How long after SIGTERM or SIGINT something may still be waited for.
const STOP_TIME: Duration = Duration::from_secs(5);

/// Whether rfw has been told to end: from then on every deadline is a near one.
#[derive(Debug, Clone, Default)]
pub struct StopSignal(Option<Arc<Told>>);

#[derive(Debug)]
struct Told {
    /// Becomes readable with the first signal, and stays so.
    signal: OwnedFd,
    /// When the signal was first seen.
    since: OnceLock<Instant>,
}

impl StopSignal {
    /// What is told by a descriptor that becomes readable and stays so.
    pub fn new(signal: OwnedFd) -> StopSignal {
        StopSignal(Some(Arc::new(Told { signal, since: OnceLock::new() })))
    }

    /// The deadline, or the near one if rfw has been told to end.
    pub fn limit(&self, deadline: Instant) -> Instant {
        // A poll that fails has not seen a signal; the next one may.
        let _ = self.poll(Vec::new(), Instant::now());
        match self.since() {
            Some(since) => deadline.min(since + STOP_TIME),
            None => deadline,
        }
    }

    /// Sleeps until one of the descriptors is ready; `false` when the deadline has
    /// come, or the near one.
    ///
    /// # Errors
    /// The system's.
    pub fn wait(&self, fds: &[PollFd<'_>], deadline: Instant) -> io::Result<bool> {
        loop {
            let limit = self.since().map_or(deadline, |since| deadline.min(since + STOP_TIME));
            if self.poll(fds.to_vec(), limit)? {
                return Ok(true);
            }
            if Instant::now() >= limit {
                return Ok(false);
            }
        }
    }

    fn since(&self) -> Option<Instant> {
        self.0.as_ref().and_then(|told| told.since.get().copied())
    }

    /// Whether one of the descriptors is ready; returns too early when told to end.
    fn poll<'a>(&'a self, mut fds: Vec<PollFd<'a>>, limit: Instant) -> io::Result<bool> {
        let watched = fds.len();
        let told = self.0.as_deref().filter(|told| told.since.get().is_none());
        fds.extend(told.map(|told| PollFd::new(&told.signal, PollFlags::IN)));
        let left = limit.saturating_duration_since(Instant::now());
        match poll(&mut fds, Some(&Timespec::try_from(left).map_err(io::Error::other)?)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let is_ready = |fd: &PollFd<'_>| !fd.revents().is_empty();
        if let Some(told) = told.filter(|_| fds.get(watched).is_some_and(is_ready)) {
            told.since.get_or_init(Instant::now);
        }
        Ok(fds.iter().take(watched).any(is_ready))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_waited_for_long_after_a_signal() {
        let (told, mut tell) = std::os::unix::net::UnixStream::pair().unwrap();
        let stop = StopSignal::new(told.into());
        let late = Instant::now() + Duration::from_secs(1_000);
        assert_eq!(stop.limit(late), late);
        io::Write::write_all(&mut tell, b"x").unwrap();
        let limit = stop.limit(late);
        assert!(limit <= Instant::now() + STOP_TIME);
        assert_eq!(stop.limit(late), limit);
        assert!(!stop.wait(&[], Instant::now()).unwrap());
    }
}
