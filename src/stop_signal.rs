//! The stop signal: SIGTERM or SIGINT shortens every deadline, so that waits for programs and
//! clients end in time for an orderly exit.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use std::io;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

/// Maximum duration of a wait after SIGTERM or SIGINT, counted from when it is first seen.
const STOP_TIME: Duration = Duration::from_secs(5);

/// The same for a wait for what only reads, which can be given up at any time.
const STOP_READING_TIME: Duration = Duration::from_secs(1);

/// A shared stop flag; the default one is never set.
#[derive(Debug, Clone)]
pub(crate) struct StopSignal {
    state: Option<Arc<State>>,
    /// Maximum duration of a wait after the signal.
    time: Duration,
}

impl Default for StopSignal {
    fn default() -> StopSignal {
        StopSignal { state: None, time: STOP_TIME }
    }
}

#[derive(Debug)]
struct State {
    /// Readable from the first signal on.
    signal: OwnedFd,
    /// The time at which the signal is first seen.
    since: OnceLock<Instant>,
}

impl StopSignal {
    /// A stop signal that is set once the descriptor is readable. Nothing may read from it.
    pub(crate) fn new(signal: OwnedFd) -> StopSignal {
        let state = Some(Arc::new(State { signal, since: OnceLock::new() }));
        StopSignal { state, time: STOP_TIME }
    }

    /// The same for waits for what only reads.
    pub(crate) fn for_reading(&self) -> StopSignal {
        StopSignal { state: self.state.clone(), time: STOP_READING_TIME }
    }

    /// The deadline; after the stop signal, [`STOP_TIME`] from it, or [`STOP_READING_TIME`], if that is
    /// earlier.
    pub(crate) fn limit(&self, deadline: Instant) -> Instant {
        // An error only delays that the signal is seen until the next poll.
        let _ = self.poll(Vec::new(), Instant::now());
        match self.since() {
            Some(since) => deadline.min(since + self.time),
            None => deadline,
        }
    }

    /// Waits until one of the descriptors is ready; `false` once the deadline, as of
    /// [`StopSignal::limit`], has passed, also if one is ready: a peer that never pauses has
    /// a deadline too.
    ///
    /// # Errors
    /// poll(2) fails.
    pub(crate) fn wait(&self, fds: &[PollFd<'_>], deadline: Instant) -> io::Result<bool> {
        loop {
            let limit = self.since().map_or(deadline, |since| deadline.min(since + self.time));
            let ready = self.poll(fds.to_vec(), limit)?;
            if Instant::now() >= limit {
                return Ok(false);
            }
            if ready {
                return Ok(true);
            }
        }
    }

    fn since(&self) -> Option<Instant> {
        self.state.as_ref().and_then(|state| state.since.get().copied())
    }

    /// Polls once, at most until `limit`, and returns whether one of the descriptors is ready. It
    /// returns early when a signal arrives.
    fn poll<'a>(&'a self, mut fds: Vec<PollFd<'a>>, limit: Instant) -> io::Result<bool> {
        let watched = fds.len();
        let state = self.state.as_deref().filter(|state| state.since.get().is_none());
        fds.extend(state.map(|state| PollFd::new(&state.signal, PollFlags::IN)));
        let left = limit.saturating_duration_since(Instant::now());
        match poll(&mut fds, Some(&Timespec::try_from(left).map_err(io::Error::other)?)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let is_ready = |fd: &PollFd<'_>| !fd.revents().is_empty();
        if let Some(state) = state.filter(|_| fds.get(watched).is_some_and(is_ready)) {
            state.since.get_or_init(Instant::now);
        }
        Ok(fds.iter().take(watched).any(is_ready))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_waited_for_long_after_a_signal() {
        let (read, mut write) = std::os::unix::net::UnixStream::pair().unwrap();
        let stop = StopSignal::new(read.into());
        let late = Instant::now() + Duration::from_secs(1_000);
        assert_eq!(stop.limit(late), late);
        io::Write::write_all(&mut write, b"x").unwrap();
        let limit = stop.limit(late);
        assert!(limit <= Instant::now() + STOP_TIME);
        assert_eq!(stop.limit(late), limit);
        assert!(!stop.wait(&[], Instant::now()).unwrap());
    }
}
