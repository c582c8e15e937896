//! Programs in front of the real iptables, ip6tables and ipset that do what they do,
//! until one of their calls is to go wrong.
//!
//! A call is a run of a program, or for one that stays, a transaction. The calls of
//! all programs are counted together, in the file `calls`; the file `fault` has what
//! goes wrong and at which call. They can write where rfw can: below the folder of the state file.

use super::{Host, STATE_FOLDER, of_ipv6};
use std::fs;

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It fails, having changed nothing, and says so.
    Fails,
    /// It does nothing, and does not end.
    Hangs,
    /// It is killed in the middle of its work.
    Dies,
    /// It prints what makes no sense, does nothing, and ends well.
    Garbage,
    /// It prints nothing, does nothing, and ends well.
    Nothing,
    /// It does its work, and is killed before it can say so.
    DiesLate,
}

/// All but the one that takes seconds to be noticed.
pub const QUICK: [Fault; 5] = [Fault::Fails, Fault::Dies, Fault::Garbage, Fault::Nothing, Fault::DiesLate];

/// In bash: reading line by line has to be without a process for each.
const PROGRAM: &str = r#"#!/bin/bash
real=@real@ dir=@dir@
# Counts a call; sets what goes wrong with it.
call() {
    exec 9>>"$dir/calls"
    flock 9
    echo >&9
    local calls=() kind at
    mapfile -t calls <"$dir/calls"
    exec 9>&-
    read -r kind at <"$dir/fault"
    fault=
    if [ "${#calls[@]}" = "$at" ]; then fault=$kind; fi
}
# Does nothing from now on, and says which process does so.
hang() {
    echo $BASHPID >"$dir/hanging"
    exec sleep 1000
}
# Gives transactions on as they come, each up to the line that asks for a sign.
transactions() {
    local lines=() line
    while IFS= read -r line; do
        lines+=("$line")
        case $line in '# rfw: committed' | version) ;; *) continue ;; esac
        call
        case $fault in
            '') ;;
            Fails) lines=('*filter' '-A no-such-chain' 'COMMIT' "$line") ;;
            Hangs) hang ;;
            Dies) printf '%s\n' "${lines[@]:0:1}"; kill -9 $$; exit ;;
            Garbage) echo 'garbage %$&' >/proc/$$/fd/1; exit ;;
            Nothing) exit ;;
            DiesLate) printf '%s\n' "${lines[@]::${#lines[@]}-1}"; sleep 0.1; kill -9 $$; exit ;;
        esac
        printf '%s\n' "${lines[@]}"
        lines=()
    done
}
case ${0##*/}" $*" in *-restore' --noflush'* | 'ipset -'*)
    case $* in *' restore' | *-exist' restore') ;; *)
        exec "$real" "$@" < <(transactions) ;;
    esac
esac
call
case $fault in
    '') exec "$real" "$@" ;;
    Fails) echo 'this went wrong' >&2; exit 1 ;;
    Hangs) hang ;;
    Garbage) echo 'garbage %$&'; exit 0 ;;
    Nothing) exit 0 ;;
    DiesLate) "$real" "$@"; kill -9 $$ ;;
    Dies)
        case "$*" in
            *restore)
                mapfile -t lines
                exec "$real" "$@" < <(printf '%s\n' "${lines[@]::${#lines[@]}/2}"; sleep 0.1; kill -9 $$)
                ;;
            *)
                out=$("$real" "$@")
                printf '%s' "${out::${#out}/2}"
                kill -9 $$
                ;;
        esac
        ;;
esac
"#;

impl Host {
    /// Puts such programs into the host's folder and gives what `rfw.conf` needs to
    /// use them: the path of iptables, and lines.
    #[track_caller]
    pub fn fake_programs(&self, iptables: &str) -> (String, String) {
        self.fake_programs_beside(iptables, STATE_FOLDER)
    }

    /// The same where the state file is in that folder.
    #[track_caller]
    pub fn fake_programs_beside(&self, iptables: &str, state_folder: &str) -> (String, String) {
        let written = self.left_to_programs(state_folder);
        let dir = self.dir.display();
        let folder = self.dir.join("programs");
        fs::create_dir_all(&folder).unwrap();
        for family in [iptables.to_owned(), of_ipv6(iptables)] {
            for suffix in ["", "-save", "-restore"] {
                self.fake_program(&format!("{family}{suffix}"), &written);
            }
        }
        self.fake_program("ipset", &written);
        self.heal();
        (format!("{dir}/programs/{iptables}"), format!("ipset.path = {dir}/programs/ipset"))
    }

    fn fake_program(&self, name: &str, written: &str) {
        let real = self.run("sh", &["-c", &format!("PATH=$PATH:/usr/sbin:/sbin; command -v {name}")]).ok();
        let text = PROGRAM.replace("@real@", real.trim()).replace("@dir@", written);
        self.write(&format!("programs/{name}"), 0o755, &text);
    }

    /// Has the `number`th call from now on go wrong.
    pub fn fail_at(&self, fault: Fault, number: usize) {
        let _ = fs::remove_file(self.dir.join("written/hanging"));
        self.write("written/calls", 0o644, "");
        self.write("written/fault", 0o644, &format!("{fault:?} {number}\n"));
    }

    /// The process that hangs, if one does.
    pub fn hanging(&self) -> Option<u32> {
        fs::read_to_string(self.dir.join("written/hanging")).ok()?.trim().parse().ok()
    }

    /// Has nothing go wrong, and gives the number of calls since [`Host::fail_at`].
    pub fn heal(&self) -> usize {
        let calls = fs::read_to_string(self.dir.join("written/calls")).unwrap_or_default().len();
        self.write("written/calls", 0o644, "");
        self.write("written/fault", 0o644, "none 0\n");
        calls
    }
}
