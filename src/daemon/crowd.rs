//! All clients that are connected: how many there may be, who has to go for another, and
//! whose turn it is.

use crate::api::{Collecting, Peer, Pending};
use crate::http::connection::Connection;
use std::cmp::Reverse;
use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Instant;

/// Maximum number of body bytes of all requests together that are not yet executed, as many
/// as one may have. Bodies beyond it wait unread, all but one.
const BODIES_MAX: u64 = 16 << 20;

/// A body up to this size is always read.
const BODY_SMALL: u64 = 64 << 10;

/// Maximum number of listings that are read from the kernel at a time.
const COLLECTING_MAX: usize = 2;

/// A client that is connected.
pub(super) struct Client {
    /// Its connection.
    pub connection: Connection<Pending>,
    /// Who it is.
    pub peer: Peer,
    /// The listing that is read for it.
    pub collecting: Option<Box<Collecting>>,
    /// Its place in the order of accepted connections.
    number: u64,
    /// Its place in the order in which requests have become complete.
    complete: Option<u64>,
    /// When it had its last turn.
    served: u64,
    /// Whether a request of it has been admitted, so that it has logged in where that is asked.
    admitted: bool,
    /// Whether its address is not in the white list, and came in since the port is open for all.
    is_unlisted: bool,
}

/// What one client must not take from others: an address, on one of the two servers.
pub(super) type Source = (IpAddr, bool);

impl Client {
    fn source(&self) -> Source {
        (self.peer.address, self.peer.local)
    }

    /// Whether it is in the white list or has logged in.
    fn is_known(&self) -> bool {
        self.admitted || !self.is_unlisted
    }

    /// Whether it waits for bytes, in which case another may take its place.
    fn may_go(&self) -> bool {
        let state = self.connection.state();
        self.collecting.is_none() && !state.is_waiting() && !state.is_closed()
    }
}

/// All clients.
pub(super) struct Crowd {
    /// The clients, in no order.
    pub clients: Vec<Client>,
    most: usize,
    most_of_source: usize,
    /// Counts connections, complete requests and turns.
    count: u64,
    /// When each source had its last turn.
    turns: HashMap<Source, u64>,
    /// The number of the client whose large body goes on while others wait.
    goes_on: Option<u64>,
}

/// Whether another client fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Room {
    /// It does.
    Free,
    /// It does if this one goes.
    After(usize),
    /// Not now: the others are about to be served.
    None,
}

impl Crowd {
    /// Nobody yet; `most` may come, and `most_of_source` from one address.
    pub(super) fn new(most: usize, most_of_source: usize) -> Crowd {
        Crowd { clients: Vec::new(), most, most_of_source, count: 0, turns: HashMap::new(), goes_on: None }
    }

    /// Changes how many may come.
    pub(super) fn bound(&mut self, most: usize) {
        self.most = most;
    }

    /// Changes how many may come from one address.
    pub(super) fn bound_source(&mut self, most_of_source: usize) {
        self.most_of_source = most_of_source;
    }

    /// Whether there are more than may come.
    pub(super) fn is_over(&self) -> bool {
        self.open() > self.most
    }

    /// Whether a client fits, or who has to go for it: at the bound of its source one of that
    /// source, else one of all.
    pub(super) fn room(&self, peer: &Peer) -> Room {
        let source = (peer.address, peer.local);
        let has = self.counts().get(&source).copied().unwrap_or_default();
        let of_source = (has >= self.most_of_source).then_some(source);
        if of_source.is_none() && self.open() < self.most {
            return Room::Free;
        }
        self.most_silent(of_source).map_or(Room::None, Room::After)
    }

    /// The client that has been silent longest: of that source, or of the one with most
    /// connections, so that a source with many does not drive out one with few. Who has not
    /// logged in goes first, so that a stranger behind the same address drives out nobody, and of these who
    /// has not said anything yet; before all others those of addresses that are not even listed, of which
    /// anybody may have many.
    pub(super) fn most_silent(&self, of_source: Option<Source>) -> Option<usize> {
        let counts = self.counts();
        let all = self.clients.iter().enumerate().filter(|(_, client)| client.may_go());
        let of_source = all.filter(|(_, client)| of_source.is_none_or(|source| client.source() == source));
        most_silent(
            &counts,
            of_source.map(|(index, client)| {
                let silence = (client.admitted, client.connection.has_spoken(), client.connection.active());
                (index, client.source(), client.is_known(), silence)
            }),
        )
    }

    fn open(&self) -> usize {
        self.clients.iter().filter(|client| !client.connection.state().is_closed()).count()
    }

    fn counts(&self) -> HashMap<Source, usize> {
        let mut counts = HashMap::new();
        for client in self.clients.iter().filter(|client| !client.connection.state().is_closed()) {
            *counts.entry(client.source()).or_default() += 1;
        }
        counts
    }

    /// Whether a request that has come whole waits for its turn.
    pub(super) fn has_request(&self) -> bool {
        self.clients.iter().any(|client| client.connection.state().is_waiting())
    }

    /// Adds a client; `is_unlisted` tells that its address is not in the white list.
    pub(super) fn admit(&mut self, connection: Connection<Pending>, peer: Peer, is_unlisted: bool) {
        let number = self.tick();
        self.clients.push(Client {
            connection,
            peer,
            collecting: None,
            number,
            complete: None,
            served: 0,
            admitted: false,
            is_unlisted,
        });
    }

    fn tick(&mut self) -> u64 {
        self.count = self.count.saturating_add(1);
        self.count
    }

    /// Notes that the request of a client has been admitted, and become complete, if it has.
    pub(super) fn note(&mut self, index: usize) {
        let next = self.tick();
        if let Some(client) = self.clients.get_mut(index) {
            let waits = client.connection.state().is_waiting();
            client.complete = waits.then(|| client.complete.unwrap_or(next));
            client.admitted |= waits || client.connection.state().is_in_body();
        }
    }

    /// The client whose request is executed next: of the source whose last turn is longest
    /// ago, in the order in which requests have become complete. While some listings are being
    /// read, further ones wait.
    pub(super) fn next_turn(&mut self) -> Option<usize> {
        let collecting = self.clients.iter().filter(|client| client.collecting.is_some()).count();
        let may_go = |client: &Client| {
            let request = client.connection.state().request();
            request.is_some_and(|request| collecting < COLLECTING_MAX || !request.is_listing())
        };
        let waiting = self.clients.iter().enumerate().filter(|(_, client)| may_go(client));
        let waiting = waiting.map(|(index, client)| (index, client.source(), client.complete));
        let (index, source) = next_turn(&self.turns, waiting)?;
        let now = self.tick();
        self.turns.insert(source, now);
        if let Some(client) = self.clients.get_mut(index) {
            (client.served, client.complete) = (now, None);
        }
        Some(index)
    }

    /// Orders clients so that who has waited longest for a turn comes first: what is ready at
    /// the same time is as if it had come in that order.
    pub(super) fn by_last_turn(&self, indices: &mut [usize]) {
        indices.sort_by_key(|index| self.clients.get(*index).map(|client| client.served));
    }

    /// Orders clients so that the first of each source come first, then the second, and so on.
    pub(super) fn in_turns(&self, indices: Vec<usize>) -> Vec<usize> {
        let client = |index: usize| self.clients.get(index).map(|client| (index, client));
        let clients = indices.into_iter().filter_map(client);
        in_turns(clients.map(|(index, client)| (index, client.source(), client.number)))
    }

    /// Has large bodies wait unread where all together are too large, and tells which. One goes
    /// on to its end.
    pub(super) fn hold(&mut self, now: Instant) -> Vec<bool> {
        let taken = |client: &Client| client.connection.state().taken();
        let is_large =
            |client: &&Client| client.connection.state().is_in_body() && taken(client) >= BODY_SMALL;
        let total: u64 = self.clients.iter().map(taken).sum();
        let large = self.clients.iter().filter(is_large);
        let large: Vec<_> = large.map(|client| (client.number, client.source(), taken(client))).collect();
        let is_full = total >= BODIES_MAX;
        self.goes_on = if is_full { goes_on(self.goes_on, &large) } else { None };
        let is_held = |client: &Client| is_full && is_large(&client) && Some(client.number) != self.goes_on;
        let held: Vec<bool> = self.clients.iter().map(is_held).collect();
        for (client, held) in self.clients.iter_mut().zip(&held) {
            client.connection.conversation().hold(*held, now);
        }
        held
    }

    /// The client for which a piece of a listing is read next, after the one at `last`.
    pub(super) fn next_collecting(&self, last: usize) -> Option<usize> {
        let all = self.clients.iter().enumerate();
        let collecting = all.filter(|(_, client)| client.collecting.is_some()).map(|(index, _)| index);
        collecting.min_by_key(|index| (*index <= last, *index))
    }

    /// Forgets the clients whose connection is over.
    pub(super) fn bury(&mut self) {
        let before = self.clients.len();
        self.clients.retain(|client| !client.connection.state().is_closed());
        if self.clients.len() < before {
            let counts = self.counts();
            self.turns.retain(|source, _| counts.contains_key(source));
        }
    }
}

/// Whose large body goes on, given by number, source and bytes: still the last one, since only
/// who comes to an end gives room, else the eldest of the source with the fewest bytes, so that
/// one with many bodies does not have that of another wait for each.
fn goes_on(last: Option<u64>, bodies: &[(u64, Source, u64)]) -> Option<u64> {
    let of_source = |source: &Source| -> u64 {
        bodies.iter().filter(|(_, other, _)| other == source).map(|(.., taken)| taken).sum()
    };
    let still = bodies.iter().map(|(number, ..)| *number).find(|number| Some(*number) == last);
    let first = || bodies.iter().min_by_key(|(number, source, _)| (of_source(source), *number));
    still.or_else(|| first().map(|(number, ..)| *number))
}

/// Who goes first has the least: whether it has logged in, whether it has said anything, and when last.
type Silence = (bool, bool, Instant);

fn most_silent(
    counts: &HashMap<Source, usize>,
    clients: impl Iterator<Item = (usize, Source, bool, Silence)>,
) -> Option<usize> {
    let weight = |source: &Source| counts.get(source).copied().unwrap_or_default();
    let first =
        clients.min_by_key(|(_, source, is_known, order)| (*is_known, Reverse(weight(source)), *order));
    first.map(|(index, ..)| index)
}

fn next_turn(
    turns: &HashMap<Source, u64>,
    waiting: impl Iterator<Item = (usize, Source, Option<u64>)>,
) -> Option<(usize, Source)> {
    let turn = |source: &Source| turns.get(source).copied().unwrap_or_default();
    let first = waiting.min_by_key(|(_, source, complete)| (turn(source), *complete));
    first.map(|(index, source, _)| (index, source))
}

fn in_turns(clients: impl Iterator<Item = (usize, Source, u64)>) -> Vec<usize> {
    let mut clients: Vec<_> = clients.collect();
    clients.sort_unstable_by_key(|(.., number)| *number);
    let mut seen: HashMap<Source, usize> = HashMap::new();
    let ranked = clients.into_iter().map(|(index, source, _)| {
        let rank = seen.entry(source).or_default();
        *rank += 1;
        (*rank, index)
    });
    let mut ranked: Vec<(usize, usize)> = ranked.collect();
    // The sort is stable: within a rank the order is that of the connections.
    ranked.sort_by_key(|(rank, _)| *rank);
    ranked.into_iter().map(|(_, index)| index).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;
    use std::time::Duration;

    fn source(name: u8) -> Source {
        (Ipv4Addr::new(10, 0, 0, name).into(), false)
    }

    #[test]
    fn each_source_has_its_turn_in_the_order_of_completion() {
        let mut turns = HashMap::new();
        // A crowd of one source came before two others.
        let mut waiting: Vec<(usize, Source, Option<u64>)> =
            (0..5).map(|n| (n, source(1), Some(n as u64))).collect();
        waiting.extend([(5, source(2), Some(7)), (6, source(3), Some(6)), (7, source(2), Some(8))]);
        let mut order = Vec::new();
        for turn in 1.. {
            let Some((index, source)) = next_turn(&turns, waiting.iter().copied()) else { break };
            waiting.retain(|(waits, ..)| *waits != index);
            turns.insert(source, turn);
            order.push(index);
        }
        assert_eq!(order, [0, 6, 5, 1, 7, 2, 3, 4]);
    }

    #[test]
    fn handshakes_are_made_one_of_each_source_before_the_second() {
        let clients = [(0, 1, 3), (1, 1, 1), (2, 2, 9), (3, 1, 2), (4, 3, 8), (5, 2, 4)];
        let clients = clients.map(|(index, name, number)| (index, source(name), number));
        assert_eq!(in_turns(clients.into_iter()), [1, 5, 4, 3, 2, 0]);
    }

    #[test]
    fn a_large_body_waits_for_one_of_a_crowd_and_not_for_each() {
        let bodies = [(1, source(1), 400), (2, source(1), 300), (3, source(2), 600), (4, source(2), 1)];
        assert_eq!(goes_on(None, &bodies), Some(3));
        assert_eq!(goes_on(None, &bodies[..3]), Some(3));
        assert_eq!(goes_on(Some(2), &bodies), Some(2));
        // The last one is over.
        assert_eq!(goes_on(Some(9), &bodies[..3]), Some(3));
        assert_eq!(goes_on(None, &bodies[..2]), Some(1));
        assert_eq!(goes_on(Some(9), &[]), None);
    }

    #[test]
    fn the_most_silent_of_the_largest_source_goes() {
        let now = Instant::now();
        let clients =
            [(0, 1, 0, false), (1, 2, 1, true), (2, 2, 5, false), (3, 2, 3, false), (4, 2, 9, false)];
        let clients = clients.map(|(index, name, second, admitted)| {
            (index, source(name), true, (admitted, true, now + Duration::from_secs(second)))
        });
        let counts = HashMap::from([(source(1), 1), (source(2), 4)]);
        assert_eq!(most_silent(&counts, clients.into_iter()), Some(3));
        assert_eq!(most_silent(&counts, clients.into_iter().take(2)), Some(1));
        assert_eq!(most_silent(&counts, clients.into_iter().take(1)), Some(0));
        assert_eq!(most_silent(&counts, std::iter::empty()), None);
        // One that is not listed goes first, however few it has.
        let stranger = (5, source(3), false, (false, true, now + Duration::from_secs(20)));
        assert_eq!(most_silent(&counts, clients.into_iter().chain([stranger])), Some(5));
        // One that has come last and said nothing goes before one that waits for an answer.
        let mute = (6, source(2), true, (false, false, now + Duration::from_secs(30)));
        assert_eq!(most_silent(&counts, clients.into_iter().chain([mute])), Some(6));
    }
}
