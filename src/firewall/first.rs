//! The option `stay.first`: rules of others that could accept what rfw blocks do not stay in front of
//! its rules.

use super::rule_cache::plan_first;
use super::{Firewall, FirewallError};
use crate::firewall::table::Plan;
use crate::rule::layout::KernelChain;
use crate::rule::network::Family;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// Time from one move in a chain to the next: another program may want to be first, too.
const MOVE_INTERVAL: Duration = Duration::from_secs(5);

/// Time from one line of the log about a chain to the next.
const LOG_INTERVAL: Duration = Duration::from_secs(3_600);

/// The most rules that are moved in one transaction: as many as a table has by default, twice, since
/// moves in parts take iptables-nft-restore the square of the time.
const MOVED_MAX: usize = 10_000;

/// The most transactions of one move; what is left then is moved by the next.
const PIECES_MAX: usize = 10;

/// When rules were last moved in each chain, and when that was last told.
#[derive(Debug, Default)]
pub(super) struct Moves {
    moved: HashMap<(Family, KernelChain), Instant>,
    told: HashMap<(Family, KernelChain), Instant>,
}

impl Moves {
    /// Whether rules of a chain may be moved now; they count as moved then.
    fn may_move(&mut self, family: Family, chain: &KernelChain, now: Instant) -> bool {
        passes(&mut self.moved, family, chain, MOVE_INTERVAL, now)
    }

    /// Whether a move in a chain is to be told now.
    fn may_tell(&mut self, family: Family, chain: &KernelChain, now: Instant) -> bool {
        passes(&mut self.told, family, chain, LOG_INTERVAL, now)
    }
}

fn passes(
    last: &mut HashMap<(Family, KernelChain), Instant>,
    family: Family,
    chain: &KernelChain,
    interval: Duration,
    now: Instant,
) -> bool {
    let last = last.entry((family, chain.clone()));
    let is_due = match &last {
        std::collections::hash_map::Entry::Occupied(last) => {
            now.saturating_duration_since(*last.get()) >= interval
        }
        std::collections::hash_map::Entry::Vacant(_) => true,
    };
    if is_due {
        last.insert_entry(now);
    }
    is_due
}

impl Firewall {
    /// Moves rfw's rules to the head of each chain in which a rule of others that could accept has come
    /// before them, as last read: the guard first, then the others in their order. A guard that is open for all
    /// comes behind what is blocked.
    ///
    /// # Errors
    /// A table can't be read or changed. It is tried again after [`MOVE_INTERVAL`].
    pub(crate) fn stay_first(&mut self, now: Instant) -> Result<(), FirewallError> {
        if !self.settings.stay_first {
            return Ok(());
        }
        for family in self.families() {
            let overtaken: Vec<KernelChain> = self.table(family)?.cache().overtaken().cloned().collect();
            for chain in overtaken {
                if self.moves.may_move(family, &chain, now) {
                    self.move_first(family, &chain, now)?;
                }
            }
        }
        Ok(())
    }

    /// The same after a change that is made, whose answer does not depend on it.
    pub(super) fn stay_first_after_change(&mut self) {
        if let Err(error) = self.stay_first(Instant::now()) {
            log::debug!("rules of others stay before those of rfw: {error}");
        }
    }

    fn move_first(&mut self, family: Family, chain: &KernelChain, now: Instant) -> Result<(), FirewallError> {
        let (by_precedence, mut moved) = (self.by_precedence(), false);
        let by_others = self.table(family)?.cache().is_overtaken_by_others(chain);
        for _ in 0..PIECES_MAX {
            // Numbers are those of a reading.
            self.table(family)?.invalidate();
            let (changed, more) = self.change(family, Plan::FromKernel, |cache, transaction| {
                let more = plan_first(cache.overtaken_in(chain), by_precedence, MOVED_MAX, transaction);
                (!transaction.changes().is_empty(), more)
            })?;
            moved |= changed;
            if !more {
                break;
            }
        }
        self.table(family)?.invalidate();
        if moved && by_others && self.moves.may_tell(family, chain, now) {
            log::warn!(
                "others have put a rule that could accept before those of rfw in {chain} of {family}: rfw's are \
                 at the head again"
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moves_in_a_chain_are_rare_and_told_more_rarely() {
        let (mut moves, start) = (Moves::default(), Instant::now());
        let (input, forward) = (KernelChain::Input, KernelChain::Forward("mine".parse().unwrap()));
        let golden = [
            (0, true, true),
            (4, false, false),
            (5, true, false),
            (3_599, true, false),
            (3_600, false, true),
        ];
        for (seconds, moved, told) in golden {
            let now = start + Duration::from_secs(seconds);
            assert_eq!(moves.may_move(Family::V4, &input, now), moved, "{seconds}");
            assert_eq!(moves.may_tell(Family::V4, &input, now), told, "{seconds}");
        }
        assert!(moves.may_move(Family::V6, &input, start) && moves.may_move(Family::V4, &forward, start));
    }
}
