use super::input::{Input, pieces};
use crate::api::address_list::{Forbidden, List, ListError, ListReader};
use crate::rule::network::Network;
use crate::rule::rights::MissingRight;
use std::fmt::Write;

/// Input: a byte for what is asked of the list; a number for the pieces; a list.
pub(super) fn holds(data: &[u8]) {
    let mut input = Input::new(data);
    let options = input.byte();
    let seed = input.u32();
    let text = input.rest();
    let options = (options & 1 != 0, options & 2 != 0, options & 4 != 0);
    let whole = read([text].into_iter(), options);
    for other in [read(pieces(text, seed), options), read(text.chunks(1), options)] {
        match (&whole, other) {
            (Ok(whole), Ok(other)) => assert_eq!(other, *whole),
            (Err(whole), Err(other)) => assert_eq!(other.to_string(), whole.to_string()),
            (whole, other) => panic!("{whole:?} as one, {other:?} in pieces"),
        }
    }
    let lines = text.split(|byte| *byte == b'\n').count();
    match whole {
        Err(ListError::Right(line, right)) => {
            assert!((1..=lines).contains(&line) && matches!(right, MissingRight::Mask(..)));
        }
        Ok(list) => check(&list, lines, options),
        Err(ListError::Line(line, quoted, _)) => {
            assert!((1..=lines).contains(&line) && quoted.chars().count() <= 81 && !quoted.contains('\n'));
        }
        Err(ListError::Empty) => {}
        Err(ListError::Glued(_)) => assert!(options.2),
        Err(ListError::AllSkipped(count)) => assert!(count > 0 && options.1),
        Err(ListError::Http(error)) => panic!("{error}"),
    }
}

fn forbidden(network: &Network) -> Option<Forbidden> {
    match network.prefix() {
        // No right to the widest, and the next are passed over.
        0..4 => Some(Forbidden::Refused(MissingRight::Mask(*network, 4))),
        4..9 => Some(Forbidden::Skipped("too wide".to_owned())),
        _ => None,
    }
}

fn read<'a>(
    pieces: impl Iterator<Item = &'a [u8]>,
    (keeps_reasons, is_replacement, is_form): (bool, bool, bool),
) -> Result<List, ListError> {
    let mut reader = ListReader::new(keeps_reasons, is_replacement);
    reader.set_form(is_form);
    for piece in pieces {
        reader.take(piece, forbidden)?;
    }
    reader.end(forbidden)?;
    Ok(reader.into_list())
}

fn check(list: &List, lines: usize, options: (bool, bool, bool)) {
    assert!(list.networks.is_sorted_by(|before, next| before < next));
    assert!(list.networks.len() + list.skipped_total <= lines);
    assert_eq!(list.skipped.len(), list.skipped_total.min(100));
    assert!(list.networks.iter().all(|network| forbidden(network).is_none()));
    assert!(list.skipped.iter().all(|skipped| forbidden(&skipped.address).is_some()));
    assert!(list.skipped.is_sorted_by_key(|skipped| skipped.line));
    assert!(list.reasons.keys().all(|network| list.networks.binary_search(network).is_ok()));
    assert!(options.0 || list.reasons.is_empty());
    // What it holds, as a list.
    let mut printed = String::new();
    for network in &list.networks {
        let reason = list.reasons.get(network).map_or("", |reason| reason.as_str());
        let _ = write!(printed, " {network} 7 # {reason}\r\n");
    }
    let again = read([printed.as_bytes()].into_iter(), (options.0, false, false));
    match again {
        Ok(again) => assert_eq!((&again.networks, &again.reasons), (&list.networks, &list.reasons)),
        Err(error) => assert!(list.networks.is_empty(), "{error}"),
    }
}
