//! SIGTERM, SIGINT and SIGHUP as a descriptor for poll(2): each handler sets a flag and
//! writes a byte to a socket pair (the self-pipe trick, signal-safety(7)).

use crate::stop_signal::StopSignal;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The request that a signal stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Signal {
    /// Terminate (SIGTERM, SIGINT).
    Stop,
    /// Read the configuration again (SIGHUP).
    Reload,
}

/// The caught signals; as a descriptor, readable while one is pending.
pub(super) struct Signals {
    wake: UnixStream,
    stop: Arc<AtomicBool>,
    reload: Arc<AtomicBool>,
    stop_signal: StopSignal,
}

impl Signals {
    /// Installs the signal handlers.
    ///
    /// # Errors
    /// A socket pair or a handler can't be set up.
    pub(super) fn catch() -> io::Result<Signals> {
        let (wake, write) = UnixStream::pair()?;
        wake.set_nonblocking(true)?;
        let (stopped, stop_write) = UnixStream::pair()?;
        let stop_signal = StopSignal::new(stopped.into());
        let signals = Signals { wake, stop: Arc::default(), reload: Arc::default(), stop_signal };
        for (signal, flag) in [(SIGTERM, &signals.stop), (SIGINT, &signals.stop), (SIGHUP, &signals.reload)] {
            // Handlers run in the order of registration: the flag is set before the byte wakes
            // the poll.
            signal_hook::flag::register(signal, Arc::clone(flag))?;
            signal_hook::low_level::pipe::register(signal, write.try_clone()?)?;
            if signal != SIGHUP {
                signal_hook::low_level::pipe::register(signal, stop_write.try_clone()?)?;
            }
        }
        Ok(signals)
    }

    /// The stop signal for waits outside of the accept loop, set by SIGTERM and SIGINT.
    pub(super) fn stop_signal(&self) -> &StopSignal {
        &self.stop_signal
    }

    /// Takes the pending signal, if the descriptor is readable; stop goes before reload.
    pub(super) fn take_if(&mut self, readable: bool) -> Option<Signal> {
        if !readable {
            return None;
        }
        while matches!(self.wake.read(&mut [0; 64]), Ok(length) if length > 0) {}
        let (reload, stop) = (self.reload.swap(false, Ordering::SeqCst), self.stop.load(Ordering::SeqCst));
        if stop { Some(Signal::Stop) } else { reload.then_some(Signal::Reload) }
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}
