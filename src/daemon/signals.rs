//! SIGTERM, SIGINT and SIGHUP as something to poll: each writes a byte to a socket
//! and sets a flag.

use crate::stop_signal::StopSignal;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// End.
    Stop,
    /// Read the white list again.
    Reload,
}

/// The signals that have come.
pub struct Signals {
    wake: UnixStream,
    stop: Arc<AtomicBool>,
    reload: Arc<AtomicBool>,
    stop_signal: StopSignal,
}

impl Signals {
    /// Catches the signals from now on.
    ///
    /// # Errors
    /// The system's.
    pub fn catch() -> io::Result<Signals> {
        let (wake, write) = UnixStream::pair()?;
        wake.set_nonblocking(true)?;
        let (told, tell) = UnixStream::pair()?;
        let stop_signal = StopSignal::new(told.into());
        let signals = Signals { wake, stop: Arc::default(), reload: Arc::default(), stop_signal };
        for (signal, flag) in [(SIGTERM, &signals.stop), (SIGINT, &signals.stop), (SIGHUP, &signals.reload)] {
            // The flag first: who is woken finds it set.
            signal_hook::flag::register(signal, Arc::clone(flag))?;
            signal_hook::low_level::pipe::register(signal, write.try_clone()?)?;
            if signal != SIGHUP {
                signal_hook::low_level::pipe::register(signal, tell.try_clone()?)?;
            }
        }
        Ok(signals)
    }

    /// What is told when the signal to end has come, for those who wait elsewhere.
    pub fn stop_signal(&self) -> &StopSignal {
        &self.stop_signal
    }

    /// Whether one has come that has not been taken.
    pub fn is_pending(&self) -> bool {
        self.stop.load(Ordering::SeqCst) || self.reload.load(Ordering::SeqCst)
    }

    /// The next signal that has come and not been taken.
    pub fn take(&mut self) -> Option<Signal> {
        while matches!(self.wake.read(&mut [0; 64]), Ok(length) if length > 0) {}
        if self.stop.load(Ordering::SeqCst) {
            return Some(Signal::Stop);
        }
        self.reload.swap(false, Ordering::SeqCst).then_some(Signal::Reload)
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}
