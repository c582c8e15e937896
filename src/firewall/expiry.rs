//! Expiry: the one background thread, asleep until the next rule is due.
//!
//! It sleeps on a timer of the wall clock (timerfd_create(2)), which also fires
//! when the clock is set past the moment. The firewall is shared with the server
//! under one lock; the sweeper gives way after each transaction and keeps each one
//! short, so that no client waits for long.

use crate::firewall::{Firewall, FirewallError};
use crate::kernel::program::ProgramError;
use crate::log_limit::LogLimit;
use crate::rule::lease::Moment;
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};
use rustix::time::{timerfd_create, timerfd_settime};
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

/// How long requests are refused at once after one has waited in vain for another
/// program that holds the lock of the tables, or for a tool that hangs.
pub const BUSY_TIME: Duration = Duration::from_secs(2);

/// The firewall, the timer of its next expiry, and who waits for it.
pub struct SharedFirewall {
    firewall: Mutex<Firewall>,
    /// Until when requests are refused at once.
    busy: Mutex<Option<Busy>>,
    timer: OwnedFd,
    client_waits: AtomicBool,
}

/// How long after a failure the sweeper tries again.
const RETRY: Duration = Duration::from_secs(5);

/// How often the tables are looked after though nothing is due.
const LOOK_TIME: Duration = Duration::from_secs(60);

/// How long to leave the tables to another program that holds their lock.
const LOCKED_TIME: Duration = Duration::from_millis(200);

/// What one transaction of the sweeper should take at most.
const SHORT: Duration = Duration::from_millis(150);

/// The fewest and the most rules that go in one transaction while all is well.
const BATCH: (usize, usize) = (16, 8192);

/// How many rules that can't be removed are passed over before it gives up for now.
const PASS_OVER_MAX: usize = 16;

/// Requests are refused at once.
#[derive(Debug, Clone, Copy)]
struct Busy {
    until: Instant,
    /// Whether a program gave no answer; else another holds the lock of the tables.
    hangs: bool,
}

impl SharedFirewall {
    /// Shares a firewall; nothing expires before [`SharedFirewall::start_sweeper`].
    ///
    /// # Errors
    /// The system has no timer to give.
    pub fn new(firewall: Firewall) -> io::Result<Arc<SharedFirewall>> {
        let timer = timerfd_create(TimerfdClockId::Realtime, TimerfdFlags::CLOEXEC)?;
        Ok(Arc::new(SharedFirewall {
            firewall: Mutex::new(firewall),
            busy: Mutex::default(),
            timer,
            client_waits: AtomicBool::new(false),
        }))
    }

    /// Works on the firewall for a client, then sets the timer anew.
    pub fn with<T>(&self, work: impl FnOnce(&mut Firewall) -> T) -> T {
        self.client_waits.store(true, Ordering::SeqCst);
        let mut firewall = self.lock();
        self.client_waits.store(false, Ordering::SeqCst);
        let result = work(&mut firewall);
        self.arm(firewall.next_due());
        result
    }

    /// Changes the firewall for a client. After one that waited in vain for another
    /// program, the next ones need not wait too.
    ///
    /// # Errors
    /// Those of the change, or that it was not tried.
    pub fn change<T>(
        &self,
        work: impl FnOnce(&mut Firewall) -> Result<T, FirewallError>,
    ) -> Result<T, FirewallError> {
        if self.busy().is_some_and(|busy| Instant::now() < busy.until) {
            return Err(FirewallError::Busy);
        }
        let result = self.with(work);
        self.note(result.as_ref().err());
        result
    }

    /// Reads the firewall for a client. A lock of the tables does not keep rfw from
    /// reading, a program that hangs does.
    ///
    /// # Errors
    /// Those of the work, or that it was not tried.
    pub fn read<T>(
        &self,
        work: impl FnOnce(&mut Firewall) -> Result<T, FirewallError>,
    ) -> Result<T, FirewallError> {
        if self.busy().is_some_and(|busy| busy.hangs && Instant::now() < busy.until) {
            return Err(FirewallError::Busy);
        }
        let result = self.with(work);
        self.note(result.as_ref().err());
        result
    }

    /// Has requests refused for a moment after one, or the sweeper, has waited in vain.
    fn note(&self, error: Option<&FirewallError>) {
        if let Some(error) = error.filter(|error| error.is_locked() || error.is_timeout()) {
            *self.busy() = Some(Busy { until: Instant::now() + BUSY_TIME, hangs: error.is_timeout() });
        }
    }

    fn busy(&self) -> MutexGuard<'_, Option<Busy>> {
        self.busy.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets the sweeper end what it is doing, and keeps it from going on: there is
    /// nothing after this but the end of the process.
    pub fn close(&self) -> impl Drop {
        self.client_waits.store(true, Ordering::SeqCst);
        self.lock()
    }

    /// Removes what is due, and from then on whatever comes due.
    ///
    /// # Errors
    /// The system has no thread to give.
    pub fn start_sweeper(self: &Arc<SharedFirewall>) -> io::Result<()> {
        let shared = Arc::clone(self);
        let sweeper = thread::Builder::new().name("sweeper".to_owned()).stack_size(256 << 10);
        sweeper.spawn(move || {
            let mut failures = LogLimit::default();
            loop {
                shared.sweep_all(&mut failures);
                shared.sleep();
                shared.look_after(&mut failures);
            }
        })?;
        Ok(())
    }

    /// Sees what others have done to the tables, since nobody else tells.
    fn look_after(&self, failures: &mut LogLimit) {
        let looked = self.lock().look_after();
        if let Err(error) = looked {
            self.note(Some(&error).filter(|error| error.is_timeout()));
            let line = format_args!("the tables can't be looked after, next try in {LOOK_TIME:?}: {error}");
            log_failure(&error, line, failures);
        }
        self.give_way();
    }

    /// Removes all that is due, one short transaction after the other, and sets the
    /// timer for the next.
    fn sweep_all(&self, failures: &mut LogLimit) {
        let (mut batch, mut largest, mut passed_over) = (1024, BATCH.1, 0);
        loop {
            let mut firewall = self.lock();
            let start = Instant::now();
            match firewall.sweep(SystemTime::now(), passed_over, batch) {
                Ok(removed) if removed.is_empty() && passed_over == 0 => {
                    return self.arm(firewall.next_due());
                }
                Ok(removed) if removed.is_empty() => return self.arm_retry(),
                Ok(removed) => {
                    removed.iter().for_each(|rule| log::info!("expired: {rule}"));
                    batch = next_batch(batch, start.elapsed()).min(largest);
                }
                Err(FirewallError::Program(ProgramError::Locked(_))) => {
                    drop(firewall);
                    thread::sleep(LOCKED_TIME);
                    continue;
                }
                // Too much at once, or one among them that can't be removed.
                Err(FirewallError::Program(ProgramError::Failed(..))) if batch > 1 => {
                    largest = batch / 2;
                    batch = largest;
                }
                Err(error) => {
                    self.note(Some(&error).filter(|error| error.is_timeout()));
                    let line = format_args!("what is due can't be removed, next try in {RETRY:?}: {error}");
                    log_failure(&error, line, failures);
                    (largest, passed_over) = (BATCH.1, passed_over + 1);
                    let one_rule = matches!(error, FirewallError::Program(ProgramError::Failed(..)));
                    if passed_over > PASS_OVER_MAX || !one_rule {
                        return self.arm_retry();
                    }
                }
            }
            drop(firewall);
            self.give_way();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Firewall> {
        self.firewall.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A lock is not fair: without this the sweeper would take it again at once.
    fn give_way(&self) {
        while self.client_waits.load(Ordering::SeqCst) {
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Sets the timer to the next expiry, or to when the tables are looked after.
    fn arm(&self, due: Option<Moment>) {
        let look = Moment::at_or_after(SystemTime::now() + LOOK_TIME);
        // A timer set to zero would be off; no rule of today is due in 1970.
        let seconds = due.map_or(look, |due| due.min(look)).seconds().max(1);
        let none = Timespec { tv_sec: 0, tv_nsec: 0 };
        let due = Timespec { tv_sec: i64::try_from(seconds).unwrap_or(i64::MAX), ..none };
        let timer = Itimerspec { it_interval: none, it_value: due };
        if let Err(error) = timerfd_settime(
            &self.timer,
            TimerfdTimerFlags::ABSTIME | TimerfdTimerFlags::CANCEL_ON_SET,
            &timer,
        ) {
            log::error!("the timer of the next expiry can't be set: {error}");
        }
    }

    fn arm_retry(&self) {
        self.arm(Some(Moment::at_or_after(SystemTime::now() + RETRY)));
    }

    /// Returns when the timer has fired.
    fn sleep(&self) {
        loop {
            match rustix::io::read(&self.timer, &mut [0; 8]) {
                // The clock was set: what is due has to be looked at anew.
                Ok(_) | Err(Errno::CANCELED) => return,
                Err(Errno::INTR) => {}
                Err(error) => {
                    log::error!("the timer of the next expiry can't be read: {error}");
                    return thread::sleep(RETRY);
                }
            }
        }
    }
}

/// Logs a failure, unless it is one that the table has told of already.
fn log_failure(error: &FirewallError, line: fmt::Arguments<'_>, failures: &mut LogLimit) {
    if !matches!(error, FirewallError::Program(ProgramError::Unreadable(..))) {
        failures.log(Instant::now(), log::Level::Error, line);
    }
}

/// The size of the next transaction, after one of `batch` rules took that long.
fn next_batch(batch: usize, took: Duration) -> usize {
    let next = match took {
        took if took > SHORT => batch / 2,
        took if took < SHORT / 3 => batch * 2,
        _ => batch,
    };
    next.clamp(BATCH.0, BATCH.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transactions_stay_short() {
        let golden =
            [(512, 10, 1024), (512, 100, 512), (512, 400, 256), (16, 400, 16), (8192, 1, 8192), (1, 1, 16)];
        for (batch, millis, expected) in golden {
            assert_eq!(next_batch(batch, Duration::from_millis(millis)), expected);
        }
    }
}
