//! The processor time that rfw and its programs have used, as proc_pid_stat(5) tells it. Unlike the time of
//! a clock it does not grow while other programs have the processor.

use std::fs;
use std::time::Duration;

/// The unit of these times, `USER_HZ`: a hundredth of a second on all machines that Rust runs on.
const TICK: Duration = Duration::from_millis(10);

/// What rfw has used by now, with those of its programs that have ended; `None` where `/proc` does not tell.
pub(crate) fn used() -> Option<Duration> {
    parse(&fs::read_to_string("/proc/self/stat").ok()?)
}

/// The sum of `utime`, `stime`, `cutime` and `cstime`, fields 14 to 17. The second field, the name of the
/// program in parentheses, may have blanks.
fn parse(stat: &str) -> Option<Duration> {
    let (_, fields) = stat.rsplit_once(") ")?;
    // The next field is the third.
    let times: Vec<u32> =
        fields.split(' ').skip(11).take(4).map(str::parse).collect::<Result<_, _>>().ok()?;
    let ticks = times.iter().fold(0_u32, |sum, time| sum.saturating_add(*time));
    (times.len() == 4).then(|| TICK.saturating_mul(ticks))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_process_and_its_children() {
        let stat = "7 (a) b) S 1 2 3 4 5 6 7 8 9 10 100 20 3 4 20 0 3 0";
        let golden = [
            (stat, Some(1_270)),
            ("7 (rfw) S 1 2 3 4 5 6 7 8 9 10 100 20 3", None),
            ("7 (rfw) S 1 2 3 4 5 6 7 8 9 10 100 x 3 4", None),
            ("", None),
        ];
        for (stat, expected) in golden {
            assert_eq!(parse(stat), expected.map(Duration::from_millis), "{stat}");
        }
        assert!(used().is_some());
    }
}
