//! The sets of rfw in the kernel, kept by ipset(8): single entries through a
//! resident process, whole lists through one run of `ipset restore`.

use crate::ipset::{self, Entry, Set, Timeout};
use crate::net::Network;
use crate::resident::{Acknowledgement, Resident};
use crate::rule::Rule;
use crate::tool::{Lines, Tool, ToolError};
use rustix::fs::{MemfdFlags, memfd_create};
use std::collections::HashSet;
use std::fs::File;
use std::io::{self, BufWriter, Seek, Write};
use std::process;
use std::thread;
use std::time::{Duration, Instant};

/// A question that ipset answers at once, and so after all before it.
const DONE: Acknowledgement = Acknowledgement { ask: "version", answer: "protocol version", goes_on: true };

/// So many addresses go to the kernel in one message, which nothing interrupts.
const MESSAGE: usize = 50;

/// How long the kernel may take to let go of a set that no rule uses any more.
const LET_GO_TIME: Duration = Duration::from_millis(500);

/// What came of adding or deleting an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entered {
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
pub struct Count {
    /// Addresses that were there.
    pub present: usize,
    /// Addresses that were not.
    pub absent: usize,
}

impl Count {
    /// Adds another count to this one.
    pub fn add(&mut self, other: Count) {
        self.present += other.present;
        self.absent += other.absent;
    }
}

/// What is to become of the addresses of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// They are to be there, for so long.
    Add(Timeout),
    /// They are to go.
    Delete,
}

/// The sets of this host.
pub struct Sets {
    tool: Tool,
    /// Says so if an entry to add is there, or one to delete is not.
    strict: Resident,
    /// Renews an entry that is there. The option `-exist` can't be given line by
    /// line: in a process that stays, it stays too.
    lenient: Resident,
    maxelem: u32,
    /// The set in which a new state is prepared.
    work: String,
    /// Whether the kernel has sets of pairs, as far as has been tried.
    pairs: Option<bool>,
}

impl Sets {
    /// Sets of at most `maxelem` entries each, kept by that tool.
    ///
    /// # Errors
    /// The tool may not or can't reach the kernel's sets.
    pub fn new(tool: Tool, maxelem: u32) -> Result<Sets, ToolError> {
        let strict = Resident::new(tool.clone(), &["-"], DONE);
        let lenient = Resident::new(tool.clone(), &["-exist", "-"], DONE);
        let work = ipset::work_name(process::id());
        let sets = Sets { tool, strict, lenient, maxelem, work, pairs: None };
        sets.names()?;
        Ok(sets)
    }

    /// ipset.
    pub fn tool(&self) -> &Tool {
        &self.tool
    }

    /// The most entries of a set.
    pub fn maxelem(&self) -> u32 {
        self.maxelem
    }

    /// The names of all sets of this host.
    ///
    /// # Errors
    /// They can't be listed.
    pub fn names(&self) -> Result<Vec<String>, ToolError> {
        Ok(self.tool.run(&["list", "-n"], "")?.lines().map(str::to_owned).collect())
    }

    /// Whether the kernel has `hash:net,net`, which not every kernel is built with.
    ///
    /// # Errors
    /// ipset can't be asked.
    pub fn has_pairs(&mut self, set: &Set) -> Result<bool, ToolError> {
        if let Some(known) = self.pairs {
            return Ok(known);
        }
        let made = self.strict.transact(&format!("{}\n", set.create(&self.work, self.maxelem)));
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

    /// Makes a set, empty whatever there was by its name.
    ///
    /// # Errors
    /// The kernel does not have it.
    pub fn create(&mut self, set: &Set) -> Result<(), ToolError> {
        let name = set.name();
        match self.destroy(&name) {
            // Somebody else's rule uses it, and may go on doing so.
            Err(error) if error.says("in use") => self.strict.transact(&format!("flush {name}\n")),
            result => {
                result?;
                self.strict.transact(&format!("{}\n", set.create(&name, self.maxelem)))
            }
        }
    }

    /// Takes a set away, if it is there. The kernel lets go of it some moments after
    /// the last rule that used it.
    ///
    /// # Errors
    /// It is still in use.
    pub fn destroy(&mut self, name: &str) -> Result<(), ToolError> {
        let start = Instant::now();
        loop {
            match self.strict.transact(&format!("destroy {name}\n")) {
                Err(error) if error.says("in use") && start.elapsed() < LET_GO_TIME => {
                    thread::sleep(Duration::from_millis(5));
                }
                Err(error) if error.says("does not exist") => return Ok(()),
                result => return result,
            }
        }
    }

    /// Takes a set away that no rule of rfw uses. Where somebody else's rule does, it
    /// stays and is empty.
    ///
    /// # Errors
    /// ipset failed.
    pub fn discard(&mut self, name: &str) -> Result<(), ToolError> {
        match self.destroy(name) {
            Err(error) if error.says("in use") => {
                log::warn!("the set {name} stays and is empty, since a rule that is not of rfw uses it");
                self.strict.transact(&format!("flush {name}\n"))
            }
            result => result,
        }
    }

    /// Adds an entry that is not there yet.
    ///
    /// # Errors
    /// The kernel does not have it, for a reason that [`Entered`] does not know.
    pub fn add(&mut self, name: &str, element: &str, timeout: Timeout) -> Result<Entered, ToolError> {
        entered(self.strict.transact(&format!("add {name} {element} timeout {timeout}\n")))
    }

    /// Renews the time of an entry.
    ///
    /// # Errors
    /// As for [`Sets::add`].
    pub fn renew(&mut self, name: &str, element: &str, timeout: Timeout) -> Result<Entered, ToolError> {
        entered(self.lenient.transact(&format!("add {name} {element} timeout {timeout}\n")))
    }

    /// Deletes an entry.
    ///
    /// # Errors
    /// The kernel may still have it.
    pub fn delete(&mut self, name: &str, element: &str) -> Result<Entered, ToolError> {
        entered(self.strict.transact(&format!("del {name} {element}\n")))
    }

    /// The entries of a set, as lines of which [`Entry::parse`] reads those it knows.
    fn save(&self, name: &str) -> Result<Lines, ToolError> {
        self.tool.lines(&["save", name])
    }

    /// Has `work` look at each entry of a set, as the kernel holds them.
    ///
    /// # Errors
    /// The set can't be read, or what `work` says.
    pub fn for_each_entry(
        &self,
        name: &str,
        mut work: impl FnMut(&Entry<'_>) -> Result<(), ToolError>,
    ) -> Result<(), ToolError> {
        let mut lines = self.save(name)?;
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
    pub fn timeout(&self, set: &Set, rule: &Rule) -> Result<Option<Timeout>, ToolError> {
        let mut lines = self.save(&set.name())?;
        while let Some(line) = lines.next_line()? {
            let Some(entry) = Entry::parse(&line) else { continue };
            if set.rule(entry.element).as_ref() == Some(rule) {
                return Ok(Some(entry.timeout));
            }
        }
        Ok(None)
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
        set: &Set,
        list: &HashSet<Network>,
        wish: Wish,
        as_rules: &HashSet<Network>,
    ) -> Result<Count, ToolError> {
        let name = set.name();
        let (size, room) = self.extent(&name)?;
        // A set that holds more than it may have now keeps its room.
        let fits = u32::try_from(size).is_ok_and(|size| size <= self.maxelem);
        let most = if fits { self.maxelem } else { room };
        let rebuild = most != room || list.len() > MESSAGE;
        let mut script = Script::new()?;
        let present = match rebuild {
            true => {
                self.destroy(&self.work.clone())?;
                script.line(&set.create(&self.work, most))?;
                self.present_in(&name, list, as_rules, |entry| script.line(&entry.line(&self.work)))?
            }
            false => self.present_in(&name, list, as_rules, |_| Ok(()))?,
        };
        let target = if rebuild { &self.work } else { &name };
        for network in list {
            match wish {
                Wish::Add(timeout) => script.line(&format!("add {target} {network} timeout {timeout}"))?,
                Wish::Delete if rebuild => {}
                Wish::Delete => script.line(&format!("del {name} {network}"))?,
            }
        }
        if rebuild {
            script.line(&format!("swap {target} {name}\ndestroy {target}"))?;
        }
        log::debug!("{}: {} addresses into {name}, {present} were there", self.tool, list.len());
        self.tool.run_on(&["-exist", "restore"], script.finish()?)?;
        Ok(Count { present, absent: list.len().saturating_sub(present) })
    }

    /// Counts what of a list is in a set or `as_rules`, and has `other` look at each
    /// other entry of the set. ipset prints whole seconds, so that what is left of a
    /// time is rounded up.
    fn present_in(
        &self,
        name: &str,
        list: &HashSet<Network>,
        as_rules: &HashSet<Network>,
        mut other: impl FnMut(&Entry<'_>) -> Result<(), ToolError>,
    ) -> Result<usize, ToolError> {
        let mut present = as_rules.len();
        self.for_each_entry(name, |entry| {
            match entry.element.parse().ok().filter(|network| list.contains(network)) {
                Some(network) => present += usize::from(!as_rules.contains(&network)),
                None => other(&Entry { timeout: entry.timeout.rounded_up(), ..*entry })?,
            }
            Ok(())
        })?;
        Ok(present)
    }

    /// Puts entries into a set, each with its own timeout.
    ///
    /// # Errors
    /// The kernel may not have them all.
    pub fn load(&self, set: &Set, entries: &[(String, Timeout)]) -> Result<(), ToolError> {
        let name = set.name();
        let mut script = Script::new()?;
        for (element, timeout) in entries {
            script.line(&format!("add {name} {element} timeout {timeout}"))?;
        }
        self.tool.run_on(&["-exist", "restore"], script.finish()?)
    }

    /// The number of entries that a set has together with a list, at most: counted
    /// one by one only where it matters.
    ///
    /// # Errors
    /// The set can't be read.
    pub fn size_with(&self, name: &str, list: &HashSet<Network>) -> Result<usize, ToolError> {
        let size = self.size(name)?.saturating_add(list.len());
        if u32::try_from(size).is_ok_and(|size| size <= self.maxelem) {
            return Ok(size);
        }
        let mut others: usize = 0;
        self.present_in(name, list, &HashSet::new(), |_| {
            others += 1;
            Ok(())
        })?;
        Ok(list.len().saturating_add(others))
    }

    /// The number of entries of a set, 0 if there is none.
    ///
    /// # Errors
    /// ipset can't be asked.
    pub fn size(&self, name: &str) -> Result<usize, ToolError> {
        Ok(self.extent(name)?.0)
    }

    /// The number of entries of a set and the most it may have, both 0 if there is
    /// none.
    ///
    /// # Errors
    /// ipset can't be asked.
    pub fn extent(&self, name: &str) -> Result<(usize, u32), ToolError> {
        let header = match self.tool.run(&["list", "-terse", name], "") {
            Err(error) if error.says("does not exist") => return Ok((0, 0)),
            header => header?,
        };
        let size = header.lines().find_map(|line| line.strip_prefix("Number of entries: ")?.parse().ok());
        let mut words = header.split_whitespace().skip_while(|word| *word != "maxelem").skip(1);
        let most = words.next().and_then(|word| word.parse().ok());
        Ok((size.unwrap_or(0), most.unwrap_or(0)))
    }
}

/// Sorts out what ipset has to say of an entry.
fn entered(result: Result<(), ToolError>) -> Result<Entered, ToolError> {
    match result {
        Ok(()) => Ok(Entered::Done),
        Err(error) if error.says("already added") || error.says("not added") => Ok(Entered::Already),
        Err(error) if error.says("is full") => Ok(Entered::Full),
        Err(error) if error.says("does not exist") => Ok(Entered::NoSet),
        Err(error) => Err(error),
    }
}

/// Lines for `ipset restore`, in memory that the kernel gives by a descriptor.
struct Script(BufWriter<File>);

impl Script {
    fn new() -> Result<Script, ToolError> {
        let memory = memfd_create("rfw", MemfdFlags::CLOEXEC).map_err(|errno| script_error(errno.into()))?;
        Ok(Script(BufWriter::with_capacity(64 << 10, File::from(memory))))
    }

    fn line(&mut self, line: &str) -> Result<(), ToolError> {
        let written = self.0.write_all(line.as_bytes()).and_then(|()| self.0.write_all(b"\n"));
        written.map_err(script_error)
    }

    /// The file, at its beginning.
    fn finish(self) -> Result<File, ToolError> {
        let file = self.0.into_inner().map_err(io::IntoInnerError::into_error);
        let rewound = file.and_then(|mut file| file.rewind().map(|()| file));
        rewound.map_err(script_error)
    }
}

fn script_error(error: io::Error) -> ToolError {
    ToolError::Spawn("memfd_create".to_owned(), error)
}
