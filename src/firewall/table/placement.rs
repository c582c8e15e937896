//! Rules that stand in another place than the layout says, as after a change of options or a restore by
//! others, are moved there.

use super::{ATTEMPTS, Plan, Table};
use crate::kernel::iptables::Transaction;
use crate::kernel::program::ProgramError;

/// The most rules that are moved to another chain at a time where all at once are too long.
const MOVED_MAX: usize = 1_024;

impl Table {
    /// Moves what a reading has shown in another place than the layout says: a change is planned from
    /// tables where all stands where it should. What can't be moved stays and is told once.
    pub(super) fn put_where_it_belongs(&mut self, plan_from: Plan) -> Result<(), ProgramError> {
        // What could not be moved costs requests nothing more: looks and sweeps try again.
        if self.stuck && self.cache.is_astray() && plan_from != Plan::InBackground {
            return Ok(());
        }
        let count = self.cache.misplaced();
        let (mut most, mut failed) = (usize::MAX, None);
        let mut left = if self.stuck { 1 } else { ATTEMPTS };
        while self.cache.is_astray() && left > 0 {
            let before = self.cache.misplaced();
            let mut transaction = Transaction::new(self.cache.layout().clone());
            self.cache.plan_layout(&mut transaction, self.by_precedence, most);
            self.finish(&mut transaction)?;
            let committed = self.commit(&transaction, plan_from);
            self.invalidate();
            self.refresh()?;
            match committed {
                Err(ProgramError::TooLong(_)) if most > 1 => most = (most / 2).min(MOVED_MAX),
                Err(error @ ProgramError::Failed(..)) => {
                    left -= 1;
                    failed = Some(error);
                }
                Err(error) => return Err(error),
                // Part by part.
                Ok(()) if self.cache.misplaced() < before => {}
                Ok(()) => left -= 1,
            }
        }
        self.log_moved(count, failed.filter(|_| self.cache.is_astray()));
        Ok(())
    }

    fn log_moved(&mut self, count: usize, failed: Option<ProgramError>) {
        let family = self.family;
        match failed {
            Some(error) if !self.stuck => {
                log::warn!(
                    "rules of {family} do not stand where the options say and can't be moved: {error}"
                );
            }
            None if count > 0 => {
                log::info!("rules of {family} that stood elsewhere are where the options say: {count}");
            }
            _ => {}
        }
        self.stuck = self.cache.is_astray();
    }
}
