//! The sets of rfw in the kernel, kept by ipset(8): single entries through a
//! resident process, whole lists through one run of `ipset restore`.

use crate::kernel::Counters;
use crate::kernel::coprocess::{Coprocess, Sentinel};
use crate::kernel::ipset::{self, Entry, Header, Timeout};
use crate::kernel::program::{Lines, Program, ProgramError};
use crate::kernel::set_key::SetKey;
use crate::rule::Rule;
use crate::rule::lease::{Lease, Moment};
use crate::rule::network::Network;
use rustix::fs::{MemfdFlags, memfd_create};
use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, BufWriter, Seek, Write};
use std::process;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

/// A question that ipset answers at once, and so after all before it.
const DONE: Sentinel = Sentinel { ask: "version", answer: "protocol version", goes_on: true };

/// So many addresses go to the kernel in one message, which nothing interrupts.
const MESSAGE: usize = 50;

/// How long the kernel may take to let go of a set that no rule uses any more.
const LET_GO_TIME: Duration = Duration::from_millis(500);

/// What came of adding or deleting an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryResult {
    /// It was done.
    Done,
    /// An entry to add was there, one to delete was not.
    Already,
    /// The set is full.
    Full,
    /// There is no such set.
    NoSet,
}

/// What a list came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ListResult {
    /// Addresses that were there.
    pub present: usize,
    /// Addresses that were not.
    pub absent: usize,
}

impl ListResult {
    /// Adds another count to this one.
    pub fn add(&mut self, other: ListResult) {
        self.present += other.present;
        self.absent += other.absent;
    }
}

/// What came of making a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Made {
    /// It is new.
    New,
    /// It was there, with so many entries.
    Present(usize),
    /// There is another set of that name, which rfw has not made.
    Foreign,
}

/// What is to become of the addresses of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListOp {
    /// They are to be there, for so long.
    Add(Lease),
    /// They are to go.
    Delete,
}

/// The sets of this host.
pub struct Sets {
    program: Program,
    /// Says so if an entry to add is there, or one to delete is not.
    strict: Coprocess,
    /// Renews an entry that is there. The option `-exist` can't be given line by
    /// line: in a process that stays, it stays too.
    lenient: Coprocess,
    maxelem: u32,
    /// The set in which a new state is prepared.
    work: String,
    /// Whether the kernel has sets of pairs, as far as has been tried.
    pairs: Option<bool>,
    /// When the entries of sets end, as clients were told: ipset prints whole seconds
    /// only, which would add up where a set is made anew again and again.
    ends: HashMap<String, HashMap<Network, Moment>>,
}

impl Sets {
    /// Sets of at most `maxelem` entries each, kept by that tool.
    ///
    /// # Errors
    /// The tool may not or can't reach the kernel's sets.
    pub fn new(program: Program, maxelem: u32) -> Result<Sets, ProgramError> {
        let strict = Coprocess::new(program.clone(), &["-"], DONE);
        let lenient = Coprocess::new(program.clone(), &["-exist", "-"], DONE);
        let work = ipset::work_name(process::id());
        let sets = Sets { program, strict, lenient, maxelem, work, pairs: None, ends: HashMap::new() };
        sets.headers()?;
        Ok(sets)
    }

    /// What reads sets while others go on changing them.
    pub fn reader(&self) -> EntriesOf {
        EntriesOf(self.program.clone())
    }

    /// The most entries of a set.
    pub fn maxelem(&self) -> u32 {
        self.maxelem
    }

    /// All sets of this host.
    ///
    /// # Errors
    /// They can't be listed.
    pub fn headers(&self) -> Result<Vec<Header>, ProgramError> {
        let arguments = ["list", "-terse"];
        let lines = self.program.run(&arguments)?;
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let sets = lines.split(|line| line.is_empty()).filter(|lines| !lines.is_empty());
        let headers: Option<Vec<Header>> = sets.map(Header::parse).collect();
        headers.ok_or_else(|| unreadable(&self.program.line(&arguments), &lines.join("; ")))
    }

    /// A set of this host; nothing if there is none of that name.
    ///
    /// # Errors
    /// ipset can't be asked.
    pub fn header(&self, name: &str) -> Result<Option<Header>, ProgramError> {
        let arguments = ["list", "-terse", name];
        let lines = match self.program.run(&arguments) {
            Err(error) if error.says("does not exist") => return Ok(None),
            lines => lines?,
        };
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let header = Header::parse(&lines).filter(|header| header.name == name);
        header.map(Some).ok_or_else(|| unreadable(&self.program.line(&arguments), &lines.join("; ")))
    }

    /// The number of entries of a set that rfw has made; nothing if there is none.
    ///
    /// # Errors
    /// ipset can't be asked.
    pub fn own_size(&self, set: &SetKey) -> Result<Option<usize>, ProgramError> {
        Ok(self.header(&set.name())?.filter(|header| header.is_like(set)).map(|header| header.size))
    }

    /// Whether the kernel has `hash:net,net`, which not every kernel is built with.
    ///
    /// # Errors
    /// ipset can't be asked.
    pub fn has_pairs(&mut self, set: &SetKey) -> Result<bool, ProgramError> {
        if let Some(known) = self.pairs {
            return Ok(known);
        }
        self.drop_work()?;
        let made = self.strict.transact(&format!("{}\n", ipset::create(set, &self.work, self.maxelem)));
        let pairs = match made {
            Ok(()) => true,
            Err(error) if error.says("not supported") => false,
            Err(error) => return Err(error),
        };
        if pairs {
            self.destroy(&self.work.clone())?;
        }
        self.pairs = Some(pairs);
        Ok(pairs)
    }

    /// Makes a set, unless it is there: what it holds then stays.
    ///
    /// # Errors
    /// The kernel does not have it.
    pub fn create(&mut self, set: &SetKey) -> Result<Made, ProgramError> {
        let name = set.name();
        match self.strict.transact(&format!("{}\n", ipset::create(set, &name, self.maxelem))) {
            Ok(()) => Ok(Made::New),
            Err(error) if error.says("already exists") => match self.header(&name)? {
                Some(header) if header.is_like(set) => Ok(Made::Present(header.size)),
                Some(_) => Ok(Made::Foreign),
                None => Err(ProgramError::Contended),
            },
            Err(error) => Err(error),
        }
    }

    /// Takes a set away that no rule of rfw uses; `false` if it was not there. The
    /// kernel lets go of it some moments after the last rule that used it, and keeps
    /// one that a rule of somebody else uses.
    ///
    /// # Errors
    /// It is still in use.
    pub fn destroy(&mut self, name: &str) -> Result<bool, ProgramError> {
        let start = Instant::now();
        loop {
            match self.strict.transact(&format!("destroy {name}\n")) {
                Err(error) if error.says("in use") && start.elapsed() < LET_GO_TIME => {
                    thread::sleep(Duration::from_millis(5));
                }
                Err(error) if error.says("does not exist") => return Ok(false),
                Err(error) => return Err(error),
                Ok(()) => {
                    self.ends.remove(name);
                    return Ok(true);
                }
            }
        }
    }

    /// Takes the set away in which an earlier attempt was prepared.
    fn drop_work(&mut self) -> Result<(), ProgramError> {
        match self.header(&self.work)? {
            Some(header) if header.is_like_ours() => self.destroy(&self.work.clone()).map(|_| ()),
            Some(_) => Err(ProgramError::Failed(
                self.program.to_string(),
                None,
                format!("the set {} is not of rfw, which needs that name", self.work),
            )),
            None => Ok(()),
        }
    }

    /// Adds an entry that is not there yet.
    ///
    /// # Errors
    /// The kernel does not have it, for a reason that [`EntryResult`] does not know.
    pub fn add(&mut self, name: &str, element: &str, timeout: Timeout) -> Result<EntryResult, ProgramError> {
        entered(self.strict.transact(&format!("add {name} {element} timeout {timeout}\n")))
    }

    /// Renews the time of an entry.
    ///
    /// # Errors
    /// As for [`Sets::add`].
    pub fn renew(
        &mut self,
        name: &str,
        element: &str,
        timeout: Timeout,
    ) -> Result<EntryResult, ProgramError> {
        entered(self.lenient.transact(&format!("add {name} {element} timeout {timeout}\n")))
    }

    /// Deletes an entry.
    ///
    /// # Errors
    /// The kernel may still have it.
    pub fn delete(&mut self, name: &str, element: &str) -> Result<EntryResult, ProgramError> {
        entered(self.strict.transact(&format!("del {name} {element}\n")))
    }

    /// The entries of a set, as lines of which [`Entry::parse`] reads those it knows.
    ///
    /// # Errors
    /// ipset can't be started.
    fn entries(&self, name: &str) -> Result<Entries, ProgramError> {
        self.reader().entries(name)
    }

    /// Has `work` look at each entry of a set, as the kernel holds them.
    ///
    /// # Errors
    /// The set can't be read, or what `work` says.
    pub fn for_each_entry(
        &self,
        name: &str,
        mut work: impl FnMut(&Entry<'_>) -> Result<(), ProgramError>,
    ) -> Result<(), ProgramError> {
        let mut lines = self.entries(name)?;
        while let Some(line) = lines.next_line()? {
            Entry::parse(&line).map_or(Ok(()), |entry| work(&entry))?;
        }
        Ok(())
    }

    /// What is left of the time of the entry of a rule; `None` if it is not there.
    /// ipset may write an address in another way than rfw does.
    ///
    /// # Errors
    /// The set can't be read.
    pub fn timeout(&self, set: &SetKey, rule: &Rule) -> Result<Option<Timeout>, ProgramError> {
        let mut lines = self.entries(&set.name())?;
        while let Some(line) = lines.next_line()? {
            let Some(entry) = Entry::parse(&line) else { continue };
            if set.rule(entry.element).as_ref() == Some(rule) {
                return Ok(Some(entry.timeout));
            }
        }
        Ok(None)
    }

    /// Remembers when an entry ends, as a client is told.
    pub fn note_end(&mut self, name: &str, network: Network, lease: Lease) {
        let ends = self.ends.entry(name.to_owned()).or_default();
        match lease {
            Lease::Until(end) => ends.insert(network, end),
            Lease::Permanent => ends.remove(&network),
        };
    }

    /// Forgets what has ended.
    pub fn forget_ends(&mut self, now: SystemTime) {
        self.ends.values_mut().for_each(|ends| ends.retain(|_, end| !end.is_due(now)));
        self.ends.retain(|_, ends| !ends.is_empty());
    }

    /// When an entry ends that ipset prints with that timeout. A timeout that does not
    /// fit what was told is of another program, and taken as it is: within the second
    /// that ipset leaves out, a later end.
    fn end_of(&self, name: &str, network: &Network, timeout: Timeout, now: SystemTime) -> Lease {
        let told = self.ends.get(name).and_then(|ends| ends.get(network).copied());
        match (timeout.latest_end(now), told) {
            // Entries end at most two seconds later than was told; the reading takes time.
            (Lease::Until(latest), Some(told))
                if told <= latest && told.seconds().saturating_add(4) >= latest.seconds() =>
            {
                Lease::Until(told)
            }
            (lease, _) => lease,
        }
    }

    /// Adds or deletes a whole list, or changes nothing: what is more than one message
    /// to the kernel is prepared in a set of its own and swapped in, so that not even
    /// a kill leaves half of it. What is known to be there `as_rules` counts as
    /// present.
    ///
    /// # Errors
    /// The set can't be read or changed.
    pub fn apply(
        &mut self,
        set: &SetKey,
        list: &HashSet<Network>,
        op: ListOp,
        as_rules: &HashSet<Network>,
        now: SystemTime,
    ) -> Result<ListResult, ProgramError> {
        let (name, start) = (set.name(), Instant::now());
        let Some(header) = self.header(&name)?.filter(|header| header.is_like(set)) else {
            return Ok(ListResult {
                present: as_rules.len(),
                absent: list.len().saturating_sub(as_rules.len()),
            });
        };
        // A set that holds more than it may have now keeps its room.
        let fits = u32::try_from(header.size).is_ok_and(|size| size <= self.maxelem);
        let most = if fits { self.maxelem } else { header.maxelem };
        let rebuild = most != header.maxelem || list.len() > MESSAGE;
        self.drop_work()?;
        let mut others = Others::default();
        let present = self.present_in(&name, list, as_rules, |line, entry| {
            if rebuild {
                others.push(
                    &name,
                    line,
                    entry.map(|(network, entry)| {
                        let lease = self.end_of(&name, &network, entry.timeout, now + start.elapsed());
                        (network, lease, entry.counters)
                    }),
                );
            }
        })?;
        let target = if rebuild { self.work.clone() } else { name.clone() };
        let mut script = Script::new()?;
        let at = now + start.elapsed();
        if rebuild {
            script.line(&ipset::create(set, &target, most))?;
            others.write(&target, at, &mut script)?;
        }
        for network in list {
            match op {
                ListOp::Add(lease) => {
                    script.line(&format!("add {target} {network} timeout {}", Timeout::left(lease, at)))?;
                }
                ListOp::Delete if rebuild => {}
                ListOp::Delete => script.line(&format!("del {name} {network}"))?,
            }
        }
        match rebuild {
            true => script.line(&format!("swap {target} {name}"))?,
            // What ipset did not do would leave no mark either.
            false => script.line(&ipset::create(set, &self.work, 1))?,
        }
        log::debug!("{}: {} addresses into {name}, {present} were there", self.program, list.len());
        self.restore(script)?;
        if rebuild {
            self.ends.insert(name.clone(), others.ends);
        }
        for network in list {
            match op {
                ListOp::Add(lease) => self.note_end(&name, *network, lease),
                ListOp::Delete => self.note_end(&name, *network, Lease::Permanent),
            }
        }
        Ok(ListResult { present, absent: list.len().saturating_sub(present) })
    }

    /// Has a script done whose last line leaves the set of work behind, and takes that
    /// away: if it is not there, the script has not been done.
    fn restore(&mut self, script: Script) -> Result<(), ProgramError> {
        let arguments = ["-exist", "restore"];
        self.program.run_on(&arguments, script.finish()?)?;
        match self.destroy(&self.work.clone())? {
            true => Ok(()),
            false => Err(ProgramError::NotDone(self.program.line(&arguments))),
        }
    }

    /// Counts what of a list is in a set or `as_rules`, and has `other` look at each
    /// other line of the set.
    fn present_in(
        &self,
        name: &str,
        list: &HashSet<Network>,
        as_rules: &HashSet<Network>,
        mut other: impl FnMut(&str, Option<(Network, Entry<'_>)>),
    ) -> Result<usize, ProgramError> {
        let mut present = as_rules.len();
        let mut lines = self.entries(name)?;
        while let Some(line) = lines.next_line()? {
            let entry = Entry::parse(&line).and_then(|entry| Some((entry.element.parse().ok()?, entry)));
            match entry.filter(|(network, _): &(Network, _)| list.contains(network)) {
                Some((network, _)) => present += usize::from(!as_rules.contains(&network)),
                None => other(&line, entry),
            }
        }
        Ok(present)
    }

    /// Puts entries into a set, each with its own timeout.
    ///
    /// # Errors
    /// The kernel may not have them all.
    pub fn load(&mut self, set: &SetKey, entries: &[(String, Timeout)]) -> Result<(), ProgramError> {
        let name = set.name();
        self.drop_work()?;
        let mut script = Script::new()?;
        for (element, timeout) in entries {
            script.line(&format!("add {name} {element} timeout {timeout}"))?;
        }
        script.line(&ipset::create(set, &self.work, 1))?;
        self.restore(script)
    }

    /// The number of entries that a set has together with a list, at most: counted
    /// one by one only where it matters.
    ///
    /// # Errors
    /// The set can't be read.
    pub fn size_with(&self, name: &str, list: &HashSet<Network>) -> Result<usize, ProgramError> {
        let Some(header) = self.header(name)? else { return Ok(list.len()) };
        let size = header.size.saturating_add(list.len());
        if u32::try_from(size).is_ok_and(|size| size <= self.maxelem) {
            return Ok(size);
        }
        let mut others: usize = 0;
        self.present_in(name, list, &HashSet::new(), |_, _| others += 1)?;
        Ok(list.len().saturating_add(others))
    }
}

/// Reads sets while others go on changing them.
pub struct EntriesOf(Program);

impl EntriesOf {
    /// The entries of a set, as lines of which [`Entry::parse`] reads those it knows.
    ///
    /// # Errors
    /// ipset can't be started.
    pub fn entries(&self, name: &str) -> Result<Entries, ProgramError> {
        let lines = self.0.lines(&["save", name])?;
        Ok(Entries { lines, name: name.to_owned(), begun: false })
    }
}

/// The entries of a set that is being printed by `ipset save`, which begins with the
/// line that makes it.
pub struct Entries {
    lines: Lines,
    name: String,
    begun: bool,
}

impl Entries {
    /// The next line, `add` with what follows; `None` after the last.
    ///
    /// # Errors
    /// ipset failed, or printed something else.
    pub fn next_line(&mut self) -> Result<Option<Cow<'_, str>>, ProgramError> {
        let is = |line: &str, command: &str| {
            let rest = line.strip_prefix(command).and_then(|rest| rest.strip_prefix(self.name.as_str()));
            rest.is_some_and(|rest| rest.starts_with(' '))
        };
        let command = format!("ipset save {}", self.name);
        if !self.begun {
            let first = self.lines.next_line()?.unwrap_or_default();
            if !is(&first, "create ") {
                return Err(unreadable(&command, &first));
            }
            self.begun = true;
        }
        match self.lines.next_line()? {
            Some(line) if !is(&line, "add ") => Err(unreadable(&command, &line)),
            line => Ok(line),
        }
    }
}

fn unreadable(command: &str, line: &str) -> ProgramError {
    let words = match line {
        "" => "it printed nothing".to_owned(),
        _ => format!("\"{}\" has no place there", line.chars().take(200).collect::<String>().escape_debug()),
    };
    ProgramError::Unreadable(command.to_owned(), words, "run it by hand to see what is wrong".to_owned())
}

/// The entries that a set keeps when it is made anew.
#[derive(Default)]
struct Others {
    entries: Vec<(Network, Lease, Counters)>,
    ends: HashMap<Network, Moment>,
    /// What follows the name in the lines of pairs, and of entries that rfw can't have
    /// made.
    foreign: Vec<String>,
}

impl Others {
    fn push(&mut self, name: &str, line: &str, entry: Option<(Network, Lease, Counters)>) {
        match entry {
            Some((network, lease, counters)) => {
                self.ends.extend(lease.end().map(|end| (network, end)));
                self.entries.push((network, lease, counters));
            }
            None => {
                let line = match Entry::parse(line) {
                    Some(pair) => Entry { timeout: pair.timeout.rounded_up(), ..pair }.line(name),
                    None => line.to_owned(),
                };
                self.foreign.extend(line.split_once(name).map(|(_, rest)| rest.trim().to_owned()));
            }
        }
    }

    fn write(&self, target: &str, now: SystemTime, script: &mut Script) -> Result<(), ProgramError> {
        // What has ended as was told is not given the second that the kernel rounds up to.
        for (network, lease, counters) in self.entries.iter().filter(|(_, lease, _)| !lease.is_due(now)) {
            let (element, timeout) = (network.to_string(), Timeout::left(*lease, now));
            script.line(&Entry { element: &element, timeout, counters: *counters }.line(target))?;
        }
        self.foreign.iter().try_for_each(|rest| script.line(&format!("add {target} {rest}")))
    }
}

/// Sorts out what ipset has to say of an entry.
fn entered(result: Result<(), ProgramError>) -> Result<EntryResult, ProgramError> {
    match result {
        Ok(()) => Ok(EntryResult::Done),
        Err(error) if error.says("already added") || error.says("not added") => Ok(EntryResult::Already),
        Err(error) if error.says("is full") => Ok(EntryResult::Full),
        Err(error) if error.says("does not exist") => Ok(EntryResult::NoSet),
        Err(error) => Err(error),
    }
}

/// Lines for `ipset restore`, in memory that the kernel gives by a descriptor.
struct Script(BufWriter<File>);

impl Script {
    fn new() -> Result<Script, ProgramError> {
        let memory = memfd_create("rfw", MemfdFlags::CLOEXEC).map_err(|errno| script_error(errno.into()))?;
        Ok(Script(BufWriter::with_capacity(64 << 10, File::from(memory))))
    }

    fn line(&mut self, line: &str) -> Result<(), ProgramError> {
        let written = self.0.write_all(line.as_bytes()).and_then(|()| self.0.write_all(b"\n"));
        written.map_err(script_error)
    }

    /// The file, at its beginning.
    fn finish(self) -> Result<File, ProgramError> {
        let file = self.0.into_inner().map_err(io::IntoInnerError::into_error);
        let rewound = file.and_then(|mut file| file.rewind().map(|()| file));
        rewound.map_err(script_error)
    }
}

fn script_error(error: io::Error) -> ProgramError {
    ProgramError::Spawn("memfd_create".to_owned(), error)
}
