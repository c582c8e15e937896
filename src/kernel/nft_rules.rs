//! Rules of nf_tables tables by their handles: many are deleted at once, whatever stands
//! between them, where iptables-nft compares each with all rules before it.
//!
//! A rule number is a guess while other programs edit a table, and a handle is not. The numbers
//! of a reading become handles by a listing, and the kernel deletes these only if the ruleset
//! is still of the generation of that reading: what was listed between is of it too.
//!
//! Messages are those of `NFNL_SUBSYS_NFTABLES` (linux/netfilter/nf_tables.h), in a batch of
//! linux/netfilter/nfnetlink.h.

use crate::kernel::generation::{NFTABLES, family_number};
use crate::kernel::netlink::{Builder, Content, Malformed, Message, NLM_F_ACK, NLM_F_REQUEST, messages};
use crate::kernel::socket::{DATAGRAM_MAX, Socket, SocketError};
use crate::rule::Rule;
use crate::rule::label::Label;
use crate::rule::network::{Family, Network};
use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::time::{Duration, Instant};

pub(crate) mod counters;

/// `NFT_MSG_NEWRULE`: a rule in a listing.
const NEWRULE: u16 = NFTABLES | 6;
/// `NFT_MSG_GETRULE`.
const GETRULE: u16 = NFTABLES | 7;
/// `NFT_MSG_DELRULE`.
const DELRULE: u16 = NFTABLES | 8;
/// `NFTA_RULE_TABLE`, `NFTA_RULE_CHAIN` and `NFTA_RULE_HANDLE`.
const RULE_TABLE: u16 = 1;
const RULE_CHAIN: u16 = 2;
const RULE_HANDLE: u16 = 3;
/// `NFNL_MSG_BATCH_BEGIN` and `NFNL_MSG_BATCH_END`.
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
/// `NFNL_BATCH_GENID`: the batch is refused at any other generation.
const BATCH_GENERATION: u16 = 1;
/// The subsystem of a batch, in its `nfgenmsg`.
const BATCH_SUBSYSTEM: u16 = NFTABLES >> 8;
/// `NLM_F_DUMP`: all that there is.
const NLM_F_DUMP: u16 = 0x300;
/// `ERESTART` as an error message has it: the generation is another.
const GENERATION_IS_ANOTHER: i32 = -85;
/// How long a listing may take.
const TIME: Duration = Duration::from_secs(10);

/// A rule of rfw that is to be deleted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Doomed<'a> {
    /// The table that it stands in, such as `filter`.
    pub table: &'a str,
    /// The chain that it stands in.
    pub chain: &'a str,
    /// Its number in the chain, from 1.
    pub number: usize,
    /// What it says: a rule that says something else is not deleted.
    pub rule: &'a Rule,
    /// What its comment says.
    pub label: &'a Label,
}

/// Why nothing was deleted.
#[derive(Debug)]
pub(crate) enum DeletionError {
    /// The ruleset is of another generation: others have changed it.
    Changed,
    /// The rule of that number is none, or another than it should be: chain and number.
    Another(String, usize),
    /// The kernel refuses it with this negative error number.
    Refused(i32),
    /// It is more than the send buffer holds.
    TooLong,
    /// It is not known whether it was done: answers were lost.
    Unknown(SocketError),
    /// No listing, or nothing was sent.
    Socket(SocketError),
    /// Answers of the kernel that can't be read.
    Malformed,
}

impl fmt::Display for DeletionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DeletionError::Changed => f.write_str("others have changed the ruleset"),
            DeletionError::Another(chain, number) => write!(f, "rule {number} of {chain} is another"),
            DeletionError::Refused(code) => {
                write!(f, "{}", std::io::Error::from_raw_os_error(code.saturating_neg()))
            }
            DeletionError::TooLong => f.write_str("too many at once"),
            DeletionError::Unknown(error) | DeletionError::Socket(error) => error.fmt(f),
            DeletionError::Malformed => Malformed.fmt(f),
        }
    }
}

impl std::error::Error for DeletionError {}

impl From<SocketError> for DeletionError {
    fn from(error: SocketError) -> DeletionError {
        DeletionError::Socket(error)
    }
}

impl From<Malformed> for DeletionError {
    fn from(_: Malformed) -> DeletionError {
        DeletionError::Malformed
    }
}

/// A connection to nf_tables for deletions. It stays open, since close(2) may wait.
#[derive(Debug, Default)]
pub(crate) struct NftRules {
    socket: Option<Socket>,
    sequence: u32,
}

impl NftRules {
    /// Deletes rules of one family, all or none, whose numbers are those of that generation of the
    /// ruleset. The next generation is that without them.
    ///
    /// # Errors
    /// See [`DeletionError`]: but for [`DeletionError::Unknown`], nothing was deleted.
    pub(crate) fn delete(
        &mut self,
        family: Family,
        generation: u32,
        doomed: &[Doomed<'_>],
    ) -> Result<(), DeletionError> {
        let handles = self.handles(family, doomed)?;
        let first = self.take_numbers(handles.len().saturating_add(2));
        let batch = deletion(family, generation, doomed.iter().zip(handles), first)?;
        let socket = self.socket()?;
        if batch.len() > socket.send_limit() {
            return Err(DeletionError::TooLong);
        }
        socket.drain();
        socket.send(&batch)?;
        let last = first.wrapping_add(u32::try_from(doomed.len()).unwrap_or(u32::MAX));
        read_answers(socket, last)
    }

    /// The handles of rules, in the order given.
    fn handles(&mut self, family: Family, doomed: &[Doomed<'_>]) -> Result<Vec<u64>, DeletionError> {
        let mut handles = vec![None; doomed.len()];
        for ((table, chain), numbers) in by_chain(doomed) {
            let mut number = 0_usize;
            self.list(family, table, chain, |message| {
                let Some(handle) = handle_in(message, table, chain)? else { return Ok(()) };
                number = number.saturating_add(1);
                for at in numbers.get(&number).into_iter().flatten() {
                    let expected = doomed.get(*at).is_some_and(|doomed| is_like(message, doomed));
                    if let Some(place) = handles.get_mut(*at).filter(|_| expected) {
                        *place = Some(handle);
                    }
                }
                Ok(())
            })?;
        }
        let missing = handles.iter().position(Option::is_none).and_then(|at| doomed.get(at));
        match missing {
            Some(doomed) => Err(DeletionError::Another(doomed.chain.to_owned(), doomed.number)),
            None => Ok(handles.into_iter().flatten().collect()),
        }
    }

    /// Lists the rules of a chain in their order.
    fn list(
        &mut self,
        family: Family,
        table: &str,
        chain: &str,
        mut each: impl FnMut(&Message<'_>) -> Result<(), DeletionError>,
    ) -> Result<(), DeletionError> {
        let sequence = self.take_numbers(1);
        let mut builder = Builder::new();
        builder.begin(GETRULE, NLM_F_REQUEST | NLM_F_DUMP, sequence, family_number(family));
        builder.string(RULE_TABLE, table);
        builder.string(RULE_CHAIN, chain);
        builder.end();
        let socket = self.socket()?;
        socket.drain();
        socket.send(&builder.finish()?)?;
        let (mut buffer, deadline) = (vec![0; DATAGRAM_MAX], Instant::now() + TIME);
        loop {
            for message in messages(socket.receive(&mut buffer, deadline)?) {
                let message = message?;
                if message.sequence != sequence {
                    continue;
                }
                if message.is_interrupted() {
                    return Err(DeletionError::Changed);
                }
                match message.content()? {
                    Content::Data(_) => each(&message)?,
                    Content::Done(0) => return Ok(()),
                    Content::Done(code) | Content::Answer { code, .. } => {
                        return Err(DeletionError::Refused(code));
                    }
                }
            }
        }
    }

    fn socket(&mut self) -> Result<&Socket, SocketError> {
        let socket = match self.socket.take() {
            Some(socket) => socket,
            None => Socket::open()?,
        };
        Ok(self.socket.insert(socket))
    }

    /// The first of that many numbers for messages.
    fn take_numbers(&mut self, count: usize) -> u32 {
        let first = self.sequence;
        self.sequence = first.wrapping_add(u32::try_from(count).unwrap_or(u32::MAX));
        first
    }
}

/// Which of the rules have which number, by table and chain.
fn by_chain<'a>(doomed: &[Doomed<'a>]) -> BTreeMap<(&'a str, &'a str), BTreeMap<usize, Vec<usize>>> {
    let mut by_chain: BTreeMap<_, BTreeMap<usize, Vec<usize>>> = BTreeMap::new();
    for (at, doomed) in doomed.iter().enumerate() {
        let numbers = by_chain.entry((doomed.table, doomed.chain)).or_default();
        numbers.entry(doomed.number).or_default().push(at);
    }
    by_chain
}

/// The handle of a rule in a listing; nothing if it is in another place.
fn handle_in(message: &Message<'_>, table: &str, chain: &str) -> Result<Option<u64>, DeletionError> {
    if message.kind != NEWRULE {
        return Ok(None);
    }
    let (mut is_here, mut handle) = (true, None);
    for attribute in message.attributes()? {
        let attribute = attribute?;
        match attribute.kind {
            RULE_TABLE => is_here &= attribute.string()? == table.as_bytes(),
            RULE_CHAIN => is_here &= attribute.string()? == chain.as_bytes(),
            RULE_HANDLE => handle = Some(attribute.u64_be()?),
            _ => {}
        }
    }
    if is_here { Ok(Some(handle.ok_or(Malformed)?)) } else { Ok(None) }
}

/// Whether a rule in a listing has the comment and the addresses of a rule of rfw: the comment as
/// a string with its end, and of each network the bytes that its prefix reaches into.
fn is_like(message: &Message<'_>, doomed: &Doomed<'_>) -> bool {
    let mut comment = doomed.label.to_string().into_bytes();
    comment.push(0);
    message.holds(&comment) && doomed.rule.networks().all(|network| message.holds(&octets(network)))
}

fn octets(network: &Network) -> Vec<u8> {
    let mut octets = match network.addr() {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    octets.truncate(usize::from(network.prefix()).div_ceil(8));
    octets
}

/// The batch that deletes rules by their handles. Its messages are numbered from `first`; that of
/// the last rule is answered, as those are that fail.
fn deletion<'a>(
    family: Family,
    generation: u32,
    doomed: impl ExactSizeIterator<Item = (&'a Doomed<'a>, u64)>,
    first: u32,
) -> Result<Vec<u8>, Malformed> {
    let (mut builder, mut sequence, last) = (Builder::new(), first, doomed.len());
    builder.begin_for(BATCH_SUBSYSTEM, BATCH_BEGIN, NLM_F_REQUEST, sequence, 0);
    builder.attribute(BATCH_GENERATION, &generation.to_be_bytes());
    builder.end();
    for (at, (doomed, handle)) in (1..).zip(doomed) {
        sequence = sequence.wrapping_add(1);
        let answered = if at == last { NLM_F_ACK } else { 0 };
        builder.begin(DELRULE, NLM_F_REQUEST | answered, sequence, family_number(family));
        builder.string(RULE_TABLE, doomed.table);
        builder.string(RULE_CHAIN, doomed.chain);
        builder.attribute(RULE_HANDLE, &handle.to_be_bytes());
        builder.end();
    }
    builder.begin_for(BATCH_SUBSYSTEM, BATCH_END, NLM_F_REQUEST, sequence.wrapping_add(1), 0);
    builder.end();
    builder.finish()
}

/// Reads what the kernel has answered to a batch, which is all there before its send returns.
fn read_answers(socket: &Socket, last: u32) -> Result<(), DeletionError> {
    let (mut buffer, mut is_done, now) = (vec![0; DATAGRAM_MAX], false, Instant::now());
    loop {
        match socket.receive(&mut buffer, now) {
            Ok(datagram) => is_done |= read_answer(datagram, last)?,
            Err(SocketError::TimedOut) if is_done => return Ok(()),
            Err(error) => return Err(DeletionError::Unknown(error)),
        }
    }
}

/// Whether a datagram has the answer to the message `last`.
///
/// # Errors
/// Some message has failed, and with it the batch.
fn read_answer(datagram: &[u8], last: u32) -> Result<bool, DeletionError> {
    let mut is_done = false;
    for message in messages(datagram) {
        let message = message?;
        match message.content()? {
            Content::Answer { code: 0, .. } => is_done |= message.sequence == last,
            Content::Answer { code: GENERATION_IS_ANOTHER, .. } => return Err(DeletionError::Changed),
            Content::Answer { code, .. } => return Err(DeletionError::Refused(code)),
            Content::Done(_) | Content::Data(_) => {}
        }
    }
    Ok(is_done)
}

#[cfg(test)]
mod tests;
