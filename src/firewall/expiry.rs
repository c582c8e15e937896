//! Expiry: a background thread, the sweeper, deletes rules whose lease has ended. It also fills the
//! mirrors of sets, and looks at what others have done to tables and sets.
//!
//! It blocks on an absolute timer of `CLOCK_REALTIME` (timerfd_create(2)), which also
//! expires when the clock is set past its time. Sweeper and server share the firewall
//! under one mutex. The sweeper keeps its transactions short and yields to a client after
//! each, which bounds the time that a request waits for the mutex.

mod access;

use crate::firewall::clock::{Clock, Reading};
use crate::firewall::looks::Looks;
use crate::firewall::pulse::Pulse;
use crate::firewall::{Firewall, FirewallError};
use crate::kernel::cpu_time;
use crate::kernel::notifications::Notifications;
use crate::kernel::program::ProgramError;
use crate::log_limit::LogLimit;
use crate::rule::Rule;
use crate::rule::lease::Moment;
use crate::rule::list_name::ListName;
use rustix::event::{PollFd, PollFlags, poll};
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

/// How long changes are refused without an attempt after one has failed because another
/// program holds the xtables lock or a program has exceeded its time. Also `Retry-After`.
pub(crate) const BUSY_TIME: Duration = Duration::from_secs(2);

/// What the sweeper does besides: the state file is kept so.
pub(crate) trait Chore: Send + Sync {
    /// Does what is due. Others may have the lock of the firewall meanwhile.
    fn step(&self);
    /// When something is due; `None` if nothing is.
    fn next(&self) -> Option<Instant>;
}

/// The firewall as shared by server and sweeper, with the timer of the next expiry.
pub(crate) struct SharedFirewall {
    firewall: Mutex<Firewall>,
    /// Until when requests are refused at once.
    busy: Mutex<Option<access::Busy>>,
    /// When tables and sets are looked at, whatever happens until then.
    looks: Mutex<Looks>,
    /// Until when nothing is swept, since the clock was set.
    doubtful_until: Mutex<Option<Instant>>,
    /// What the kernel tells of changes of tables; with iptables-legacy nothing.
    notifications: Option<Notifications>,
    timer: OwnedFd,
    /// Whether a client waits for the mutex.
    client_waits: AtomicBool,
    /// Whether the sweeper goes on.
    pulse: Mutex<Pulse>,
}

/// Time from a failure of the sweeper to its next attempt.
const RETRY: Duration = Duration::from_secs(5);

/// Time from finding the xtables lock held to the next attempt.
const LOCKED_TIME: Duration = Duration::from_millis(200);

/// Target for the longest transaction of the sweeper: it holds the mutex for that long.
const TRANSACTION_TIME: Duration = Duration::from_millis(150);

/// The fewest and the most rules of one transaction; fewer only after one has failed.
const BATCH: (usize, usize) = (16, 8192);

/// How many rules that can't be deleted are skipped before the sweep is postponed.
const SKIP_MAX: usize = 16;

impl SharedFirewall {
    /// Shares a firewall. Rules expire only once [`SharedFirewall::start_sweeper`] is called.
    ///
    /// # Errors
    /// Those of timerfd_create(2).
    pub(crate) fn new(firewall: Firewall) -> io::Result<Arc<SharedFirewall>> {
        let notifications = firewall.uses_nft().then(|| Notifications::open().ok()).flatten();
        let timer = timerfd_create(TimerfdClockId::Realtime, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)?;
        Ok(Arc::new(SharedFirewall {
            firewall: Mutex::new(firewall),
            busy: Mutex::default(),
            looks: Mutex::new(Looks::new(Instant::now())),
            doubtful_until: Mutex::default(),
            notifications,
            timer,
            client_waits: AtomicBool::new(false),
            pulse: Mutex::default(),
        }))
    }

    /// For how long the sweeper has been at one thing, if that is longer than anything takes.
    pub(crate) fn sweeper_stalled(&self) -> Option<Duration> {
        self.pulse().stalled(Instant::now())
    }

    /// Has a look made at once, or as soon as a repair may be made, where others have flushed something.
    fn look_soon_after(&self, firewall: &Firewall) {
        if firewall.is_flushed() {
            let at = firewall.next_repair().unwrap_or_else(Instant::now);
            self.looks().no_later_than(at);
        }
    }

    /// Waits for a transaction of the sweeper to complete and prevents the next one while
    /// the returned guard is held. To be called before the process exits.
    pub(crate) fn close(&self) -> impl Drop {
        self.client_waits.store(true, Ordering::SeqCst);
        self.lock()
    }

    /// Starts the sweeper, which first deletes the rules that are already due. It does a chore as well.
    ///
    /// # Errors
    /// Those of pthread_create(3).
    pub(crate) fn start_sweeper(self: &Arc<SharedFirewall>, chore: Option<Arc<dyn Chore>>) -> io::Result<()> {
        let shared = Arc::clone(self);
        let sweeper = thread::Builder::new().name("sweeper".to_owned()).stack_size(256 << 10);
        sweeper.spawn(move || {
            let mut failures = LogLimit::default();
            let mut clock = Clock::new(SystemTime::now(), Instant::now());
            loop {
                let now = shared.read_clock(&mut clock, &mut failures);
                shared.sweep_all(now, &mut failures);
                shared.fill_mirrors(now, &mut failures);
                shared.pulse().works(Instant::now());
                chore.iter().for_each(|chore| chore.step());
                let limit = chore.as_ref().and_then(|chore| chore.next());
                shared.pulse().sleeps();
                shared.sleep(limit);
                shared.pulse().works(Instant::now());
                let now = shared.read_clock(&mut clock, &mut failures);
                shared.look(now, &mut failures);
            }
        })?;
        Ok(())
    }

    fn pulse(&self) -> MutexGuard<'_, Pulse> {
        self.pulse.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn looks(&self) -> MutexGuard<'_, Looks> {
        self.looks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn doubtful_until(&self) -> MutexGuard<'_, Option<Instant>> {
        self.doubtful_until.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The time by which rules and entries have ended: after a step of the clock, for a minute, the earlier of both.
    fn read_clock(&self, clock: &mut Clock, failures: &mut LogLimit) -> SystemTime {
        let now = SystemTime::now();
        let reading = clock.read(now, Instant::now());
        // A step back that could not be followed is tried again.
        self.follow_clock(now, failures);
        let is_new = self.doubtful_until().is_none();
        let (time, doubtful_until) = match reading {
            Reading::Steady => (now, None),
            Reading::Stepped => {
                log::warn!("the clock was set: ends of rules and entries count by the new time");
                self.lock().retime_sets();
                (now, None)
            }
            Reading::Doubtful { earlier, until } => {
                if is_new && earlier == now {
                    // Set back: the kernel would end entries by the old time.
                    self.lock().retime_sets();
                }
                (earlier, Some(until))
            }
        };
        *self.doubtful_until() = doubtful_until;
        time
    }

    /// Looks at what others have done to tables and sets, if it is time.
    fn look(&self, now: SystemTime, failures: &mut LogLimit) {
        let begun = Instant::now();
        // Not held while the other lock is waited for: who has that asks for this one.
        let (is_due, sets) = {
            let looks = self.looks();
            (looks.is_due(begun), looks.is_due_for_sets(begun))
        };
        if !is_due {
            return;
        }
        let mut firewall = self.lock();
        let (begun, used) = (Instant::now(), cpu_time::used());
        let looked = firewall.look(sets, now);
        let used = used.zip(cpu_time::used()).map(|(before, after)| after.saturating_sub(before));
        // What it costs to put much back says nothing of the next look, which may find it flushed again.
        let cost = match firewall.has_repaired_since(begun) {
            true => Duration::ZERO,
            false => used.unwrap_or_else(|| begun.elapsed()),
        };
        self.looks().looked(Instant::now(), cost, sets);
        firewall.note_look(&looked);
        // One that fails is made again after the usual time.
        if looked.is_ok() {
            self.look_soon_after(&firewall);
        }
        drop(firewall);
        if let Err(error) = looked {
            self.note(Some(&error).filter(|error| error.is_timeout()));
            let line = format_args!("tables and sets can't be looked after, tried again: {error}");
            log_failure(&error, line, failures);
        }
        self.yield_to_client();
    }

    /// Puts back what had ended by a clock that has been set back.
    fn follow_clock(&self, now: SystemTime, failures: &mut LogLimit) {
        let followed = self.lock().clock_stepped(now);
        if let Err(error) = followed {
            let line =
                format_args!("what had ended before the clock was set back can't be put back: {error}");
            log_failure(&error, line, failures);
        }
        self.yield_to_client();
    }

    /// Deletes all rules that are due, in short transactions, and sets the timer to the
    /// next expiry. If a transaction fails, its size is halved; a rule that fails alone is
    /// skipped.
    fn sweep_all(&self, now: SystemTime, failures: &mut LogLimit) {
        let (mut batch, mut largest, mut skipped) = (1024, BATCH.1, 0);
        loop {
            self.pulse().works(Instant::now());
            let mut firewall = self.lock();
            let start = Instant::now();
            match firewall.sweep(now, skipped, batch) {
                Ok(removed) if removed.is_empty() && skipped == 0 => {
                    return self.arm(firewall.next_due(SystemTime::now()));
                }
                Ok(removed) if removed.is_empty() => return self.arm_retry(),
                Ok(removed) => {
                    removed.iter().for_each(|(rule, list)| log_expired(rule, *list));
                    firewall.meter.note_expired(removed.len());
                    if !firewall.uses_nft() {
                        self.looks().swept(Instant::now());
                    }
                    batch = next_batch(batch, start.elapsed()).min(largest);
                }
                Err(FirewallError::Program(ProgramError::Locked(_))) => {
                    drop(firewall);
                    thread::sleep(LOCKED_TIME);
                    continue;
                }
                // The transaction is too large, or one of its rules can't be deleted.
                Err(FirewallError::Program(ProgramError::Failed(..) | ProgramError::TooLong(_)))
                    if batch > 1 =>
                {
                    largest = batch / 2;
                    batch = largest;
                }
                Err(error) => {
                    self.note(Some(&error).filter(|error| error.is_timeout()));
                    let line = format_args!("what is due can't be removed, next try in {RETRY:?}: {error}");
                    log_failure(&error, line, failures);
                    (largest, skipped) = (BATCH.1, skipped + 1);
                    let one_rule = matches!(error, FirewallError::Program(ProgramError::Failed(..)));
                    if skipped > SKIP_MAX || !one_rule {
                        return self.arm_retry();
                    }
                }
            }
            drop(firewall);
            self.yield_to_client();
        }
    }

    /// Fills the mirrors that are missing, a piece at a time, and sets the timer again.
    fn fill_mirrors(&self, now: SystemTime, failures: &mut LogLimit) {
        let start = Instant::now();
        loop {
            let mut firewall = self.lock();
            if !firewall.is_fill_due() {
                return;
            }
            let filled = firewall.fill_mirrors(now + start.elapsed());
            self.arm(firewall.next_due(SystemTime::now()));
            drop(firewall);
            if let Err(error) = filled {
                let line = format_args!("a set can't be read or changed, next try in ten seconds: {error}");
                log_failure(&error, line, failures);
            }
            self.yield_to_client();
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Firewall> {
        self.firewall.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits while a client waits for the mutex. A mutex is not fair: the sweeper would
    /// otherwise lock it again first.
    fn yield_to_client(&self) {
        while self.client_waits.load(Ordering::SeqCst) {
            thread::sleep(Duration::from_millis(1));
        }
        self.pulse().works(Instant::now());
    }

    /// Sets the timer to the next expiry or the next look at the tables, whichever is
    /// earlier.
    fn arm(&self, due: Option<Moment>) {
        let at = |instant: Instant| {
            Moment::at_or_after(SystemTime::now() + instant.saturating_duration_since(Instant::now()))
        };
        let check = at(self.looks().next());
        // What is due by a clock that was set has to wait.
        let due = self.doubtful_until().map(at).or(due);
        // An it_value of zero disarms the timer (timerfd_settime(2)).
        let seconds = due.map_or(check, |due| due.min(check)).seconds().max(1);
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

    /// Blocks until the timer expires or a look is due, at most until `limit`. What the kernel tells of changes of tables
    /// brings that forward.
    fn sleep(&self, limit: Option<Instant>) {
        let mut listens = self.notifications.is_some();
        loop {
            let mut fds = vec![PollFd::new(&self.timer, PollFlags::IN)];
            let told = self.notifications.iter().filter(|_| listens);
            fds.extend(told.map(|told| PollFd::new(told, PollFlags::IN)));
            let next = limit.map_or_else(|| self.looks().next(), |limit| limit.min(self.looks().next()));
            let left = next.saturating_duration_since(Instant::now());
            // One that can't be told is so long that the timer comes first.
            let timeout = Timespec::try_from(left).ok();
            match poll(&mut fds, timeout.as_ref()) {
                Ok(0) => return,
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => {
                    log::error!("the timer of the next expiry can't be waited for: {error}");
                    return thread::sleep(RETRY);
                }
            }
            let has_expired = fds.first().is_some_and(|timer| !timer.revents().is_empty());
            if listens && self.notifications.as_ref().is_some_and(Notifications::drain) {
                self.looks().hint(Instant::now());
                // One hint is enough: in a storm of changes, what is told waits for the look.
                listens = false;
            }
            if has_expired && self.read_timer() {
                return;
            }
        }
    }

    /// Takes the expiry of the timer; `false` if it has not expired.
    fn read_timer(&self) -> bool {
        match rustix::io::read(&self.timer, &mut [0; 8]) {
            // The clock was set: what is due has to be looked at anew.
            Ok(_) | Err(Errno::CANCELED) => true,
            Err(Errno::INTR | Errno::AGAIN) => false,
            Err(error) => {
                log::error!("the timer of the next expiry can't be read: {error}");
                thread::sleep(RETRY);
                true
            }
        }
    }
}

fn log_expired(rule: &Rule, list: ListName) {
    match list.is_named() {
        true => log::info!("expired: {rule} in {list}"),
        false => log::info!("expired: {rule}"),
    }
}

/// Logs a failure, except `Unreadable`, which [`crate::firewall::table`] logs itself.
fn log_failure(error: &FirewallError, line: fmt::Arguments<'_>, failures: &mut LogLimit) {
    if !matches!(error, FirewallError::Program(ProgramError::Unreadable(..))) {
        failures.log(Instant::now(), log::Level::Error, line);
    }
}

/// The number of rules of the next transaction, after one of `batch` rules took `took`.
fn next_batch(batch: usize, took: Duration) -> usize {
    let next = match took {
        took if took > TRANSACTION_TIME => batch / 2,
        took if took < TRANSACTION_TIME / 3 => batch * 2,
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
