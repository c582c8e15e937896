//! How clients get at the firewall: the mutex that they share with the sweeper, and when they are refused at once.

use super::SharedFirewall;
use crate::firewall::expiry::BUSY_TIME;
use crate::firewall::{Firewall, FirewallError};
use std::sync::atomic::Ordering;
use std::sync::{MutexGuard, PoisonError, TryLockError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

/// Requests are refused at once.
#[derive(Debug, Clone, Copy)]
pub(super) struct Busy {
    until: Instant,
    /// Whether a program gave no answer; else another holds the lock of the tables.
    hangs: bool,
}

impl SharedFirewall {
    /// Runs `work` for a client with the mutex held, then sets the timer to the next expiry.
    pub(crate) fn with<T>(&self, work: impl FnOnce(&mut Firewall) -> T) -> T {
        self.client_waits.store(true, Ordering::SeqCst);
        let firewall = self.lock();
        self.work_on(firewall, work)
    }

    /// The same, unless the mutex is held until `limit`.
    pub(crate) fn with_by<T>(&self, limit: Instant, work: impl FnOnce(&mut Firewall) -> T) -> Option<T> {
        self.client_waits.store(true, Ordering::SeqCst);
        loop {
            if let Some(firewall) = self.try_lock() {
                return Some(self.work_on(firewall, work));
            }
            if Instant::now() >= limit {
                self.client_waits.store(false, Ordering::SeqCst);
                return None;
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Runs `work` with the mutex, for which the client has waited.
    fn work_on<T>(&self, mut firewall: MutexGuard<'_, Firewall>, work: impl FnOnce(&mut Firewall) -> T) -> T {
        self.client_waits.store(false, Ordering::SeqCst);
        let result = work(&mut firewall);
        self.look_soon_after(&firewall);
        self.arm(firewall.next_due(SystemTime::now()));
        result
    }

    /// Runs `work` if nobody has the mutex.
    pub(crate) fn glance<T>(&self, work: impl FnOnce(&Firewall) -> T) -> Option<T> {
        self.try_lock().map(|firewall| work(&firewall))
    }

    fn try_lock(&self) -> Option<MutexGuard<'_, Firewall>> {
        match self.firewall.try_lock() {
            Ok(firewall) => Some(firewall),
            Err(TryLockError::Poisoned(error)) => Some(error.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// Changes the firewall for a client. After a change that timed out waiting for another
    /// program, those of the next [`BUSY_TIME`] are refused, so that requests do not each
    /// wait in turn.
    ///
    /// # Errors
    /// Those of the change, or [`FirewallError::Busy`] if it was not attempted.
    pub(crate) fn change<T>(
        &self,
        work: impl FnOnce(&mut Firewall) -> Result<T, FirewallError>,
    ) -> Result<T, FirewallError> {
        if self.busy().is_some_and(|busy| Instant::now() < busy.until) {
            return Err(FirewallError::Busy);
        }
        let result = self.with(|firewall| {
            let begun = Instant::now();
            let result = work(firewall);
            firewall.meter.transactions.note(begun.elapsed());
            result
        });
        self.note(result.as_ref().err());
        result
    }

    /// Reads the firewall for a client. A lock of the tables does not keep rfw from
    /// reading, a program that hangs does.
    ///
    /// # Errors
    /// Those of the work, or that it was not tried.
    pub(crate) fn read<T>(
        &self,
        work: impl FnOnce(&mut Firewall) -> Result<T, FirewallError>,
    ) -> Result<T, FirewallError> {
        self.check_hanging()?;
        let result = self.with(work);
        self.note(result.as_ref().err());
        result
    }

    /// The same, unless the mutex is held until `limit`.
    ///
    /// # Errors
    /// As for [`SharedFirewall::read`].
    pub(crate) fn read_by<T>(
        &self,
        limit: Instant,
        work: impl FnOnce(&mut Firewall) -> Result<T, FirewallError>,
    ) -> Result<T, FirewallError> {
        self.check_hanging()?;
        let result = self.with_by(limit, work).unwrap_or(Err(FirewallError::Busy));
        self.note(result.as_ref().err());
        result
    }

    /// Refuses a request for a moment after a program has hung.
    fn check_hanging(&self) -> Result<(), FirewallError> {
        match self.busy().is_some_and(|busy| busy.hangs && Instant::now() < busy.until) {
            true => Err(FirewallError::Busy),
            false => Ok(()),
        }
    }

    /// Has requests refused for a moment after one, or the sweeper, has waited in vain.
    pub(super) fn note(&self, error: Option<&FirewallError>) {
        if let Some(error) = error.filter(|error| error.is_locked() || error.is_timeout()) {
            *self.busy() = Some(Busy { until: Instant::now() + BUSY_TIME, hangs: error.is_timeout() });
        }
    }

    fn busy(&self) -> MutexGuard<'_, Option<Busy>> {
        self.busy.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
