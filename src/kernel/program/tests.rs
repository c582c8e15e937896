use super::*;

fn program(name: &str) -> Program {
    Program::find(Path::new(name), &StopSignal::default()).unwrap()
}

#[test]
fn a_program_is_found_by_name_or_path() {
    assert!(program("sh").to_string().starts_with('/'));
    assert_eq!(program("/bin/sh").to_string(), "/bin/sh");
    for missing in ["no-such-tool", "/bin/no-such-tool", "/etc/passwd", "/etc", ""] {
        let error = Program::find(Path::new(missing), &StopSignal::default()).unwrap_err().to_string();
        assert_eq!(error, format!("no executable program \"{missing}\""));
    }
}

#[test]
fn a_failure_quotes_standard_error() {
    let script = "echo one >&2; echo >&2; echo ' two' >&2; exit 3";
    let error = program("/bin/sh").run(&["-c", script]).unwrap_err();
    assert_eq!(error.to_string(), format!("/bin/sh -c {script}: exit status: 3: one; two"));
    let script = "echo 'Another app is currently holding the xtables lock.' >&2; exit 4";
    assert!(matches!(program("/bin/sh").run(&["-c", script]), Err(ProgramError::Locked(_))));
    let script = "echo 'sendmsg() failed: Message too long' >&2; exit 1";
    assert!(matches!(program("/bin/sh").run(&["-c", script]), Err(ProgramError::TooLong(_))));
}

#[test]
fn a_program_runs_in_a_clean_environment() {
    let output = program("env").run(&[]).unwrap();
    let mut names: Vec<&str> = output.iter().filter_map(|line| line.split('=').next()).collect();
    names.sort_unstable();
    assert_eq!(names, ["LC_ALL", "PATH"]);
}

#[test]
fn much_on_both_outputs_does_not_deadlock() {
    let script = "i=0; while [ $i -lt 20000 ]; do echo 0123456789 >&2; echo $i; i=$((i + 1)); done";
    let mut lines = program("/bin/sh").lines(&["-c", script]).unwrap();
    let mut count = 0;
    while lines.next_line().unwrap().is_some() {
        count += 1;
    }
    assert_eq!(count, 20_000);
}

#[test]
fn much_on_standard_error_behind_the_end_of_the_output_does_not_deadlock() {
    let script = "exec >&-; yes what went wrong | head -c 300000 >&2; exit 3";
    let start = Instant::now();
    let error = program("/bin/sh").run(&["-c", script]).unwrap_err();
    assert!(error.says("what went wrong"), "{error}");
    assert!(start.elapsed() < READ_TIME, "{:?}", start.elapsed());
}

#[test]
fn output_without_end_is_not_collected() {
    let error = program("yes").run(&[]).unwrap_err().to_string();
    assert!(error.ends_with("endless output"), "{error}");
}

#[test]
fn a_group_is_killed_also_where_its_leader_has_ended() {
    let mut lines = program("/bin/sh")
        .lines_on(&["-c", "sleep 1000 & echo $!"], Stdio::null(), Duration::from_millis(300))
        .unwrap();
    let child: u32 = lines.next_line().unwrap().unwrap().parse().unwrap();
    assert!(matches!(lines.next_line(), Err(ProgramError::TimedOut(..))));
    drop(lines);
    let start = Instant::now();
    while std::fs::read(format!("/proc/{child}/cmdline")).is_ok_and(|line| !line.is_empty()) {
        assert!(start.elapsed() < Duration::from_secs(5), "{child} runs");
    }
}

#[test]
fn a_program_that_never_pauses_is_given_up_after_a_signal() {
    let (read, mut write) = std::os::unix::net::UnixStream::pair().unwrap();
    let stop = StopSignal::new(read.into());
    let mut lines = Program::find(Path::new("yes"), &stop).unwrap().lines(&[]).unwrap();
    assert!(lines.next_line().unwrap().is_some());
    io::Write::write_all(&mut write, b"x").unwrap();
    let start = Instant::now();
    while lines.next_line().is_ok() {
        assert!(start.elapsed() < Duration::from_secs(10));
    }
}

#[test]
fn lines_are_bounded_and_the_last_needs_no_end() {
    assert_eq!(program("printf").run(&["a\\n\\nb"]).unwrap(), ["a", "", "b"]);
    let error = program("/bin/sh").run(&["-c", "yes | tr -d '\\n'"]).unwrap_err().to_string();
    assert!(error.ends_with("a line of its output is too long"), "{error}");
}

#[test]
fn a_program_that_hangs_is_killed_with_its_group() {
    let mut lines = program("/bin/sh").lines_on(
        &["-c", "sleep 1000 & echo $!; wait"],
        Stdio::null(),
        Duration::from_millis(300),
    );
    let lines = lines.as_mut().unwrap();
    let child: u32 = lines.next_line().unwrap().unwrap().parse().unwrap();
    assert!(matches!(lines.next_line(), Err(ProgramError::TimedOut(..))));
    let (own, start) = (lines.child.child.id(), Instant::now());
    drop(std::mem::replace(&mut lines.child, KillOnDrop::new(Command::new("true").spawn().unwrap())));
    for process in [own, child] {
        // The child is reaped by this process, the grandchild by init. A zombie has an
        // empty cmdline (proc_pid_cmdline(5)).
        let is_running =
            || std::fs::read(format!("/proc/{process}/cmdline")).is_ok_and(|line| !line.is_empty());
        while is_running() {
            assert!(start.elapsed() < Duration::from_secs(5), "{process} runs");
        }
    }
    assert!(!Path::new(&format!("/proc/{own}")).exists());
}
