//! The processor time that this thread and the programs that have ended have used. Unlike the time of a
//! clock it does not grow while other programs have the processor.

use rustix::time::{ClockId, clock_gettime};
use std::fs;
use std::time::Duration;

/// The unit of the times in proc_pid_stat(5), `USER_HZ`: a hundredth of a second on all machines that Rust
/// runs on.
const TICK: Duration = Duration::from_millis(10);

/// What was used by now; `None` where `/proc` does not tell.
pub(crate) fn used() -> Option<Duration> {
    let own = Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).ok()?;
    let children = parse(&fs::read_to_string("/proc/self/stat").ok()?)?;
    Some(own.saturating_add(children))
}

/// The sum of `cutime` and `cstime`, fields 16 and 17. The second field, the name of the program in
/// parentheses, may have blanks.
fn parse(stat: &str) -> Option<Duration> {
    let (_, fields) = stat.rsplit_once(") ")?;
    // The next field is the third.
    let times: Vec<u32> =
        fields.split(' ').skip(13).take(2).map(str::parse).collect::<Result<_, _>>().ok()?;
    let ticks = times.iter().fold(0_u32, |sum, time| sum.saturating_add(*time));
    (times.len() == 2).then(|| TICK.saturating_mul(ticks))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_children() {
        let stat = "7 (a) b) S 1 2 3 4 5 6 7 8 9 10 100 20 3 4 20 0 3 0";
        let golden = [
            (stat, Some(70)),
            ("7 (rfw) S 1 2 3 4 5 6 7 8 9 10 100 20 3", None),
            ("7 (rfw) S 1 2 3 4 5 6 7 8 9 10 100 20 x 4", None),
            ("", None),
        ];
        for (stat, expected) in golden {
            assert_eq!(parse(stat), expected.map(Duration::from_millis), "{stat}");
        }
        assert!(used().is_some());
    }
}
