//! A listing on its way: rows are taken from the kernel in pieces between other requests,
//! kept in a compact form, and become text while the client takes it. Neither the lock nor
//! a dump of the kernel waits for a slow reader.

use crate::api::Origin;
use crate::api::error::ApiError;
use crate::api::format::Format;
use crate::api::rows::{RowText, Rows};
use crate::firewall::Step;
use crate::firewall::listing::{Filter, Listing};
use crate::http::answer::{Answer, Content};
use std::cell::Cell;
use std::rc::Rc;
use std::time::Instant;

/// Maximum number of long listings at a time.
const LISTINGS_MAX: usize = 2;

/// A listing of more rows is a long one.
const SHORT: usize = 1_000;

/// Rows read between two looks at the clock.
const ROWS: usize = 64;

/// How many places of long listings are taken.
#[derive(Debug, Clone, Default)]
pub(super) struct Slots(Rc<Cell<usize>>);

/// A place that is taken until it is dropped.
struct Slot(Slots);

impl Slots {
    /// Refuses what is likely to be a long listing while all places are taken, before the
    /// kernel is asked.
    pub(super) fn check(&self, filter: &Filter) -> Result<(), ApiError> {
        match self.0.get() >= LISTINGS_MAX && filter.address.is_none() {
            true => Err(ApiError::Listings(LISTINGS_MAX)),
            false => Ok(()),
        }
    }

    fn take(&self) -> Result<Slot, ApiError> {
        self.check(&Filter::default())?;
        self.0.set(self.0.get() + 1);
        Ok(Slot(self.clone()))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.0.set(self.0.0.get().saturating_sub(1));
    }
}

/// A listing that is being read.
pub(crate) struct Collecting {
    origin: Origin,
    listing: Listing,
    format: Format,
    rows: Rows,
    slots: Slots,
    /// Its place, once it is a long one.
    slot: Option<Slot>,
}

impl Collecting {
    /// A listing of which nothing is read yet.
    pub(super) fn new(origin: Origin, listing: Listing, format: Format, slots: &Slots) -> Collecting {
        Collecting { origin, listing, format, rows: Rows::default(), slots: slots.clone(), slot: None }
    }

    /// Whose listing it is.
    pub(super) fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Reads rows until that time; the answer, once all are read or none can be.
    pub(crate) fn advance(&mut self, until: Instant) -> Option<Answer> {
        match self.read_until(until) {
            Ok(false) => None,
            Ok(true) => Some(self.answer()),
            Err(error) => Some(self.origin.refuse(&error)),
        }
    }

    /// Whether all rows are read.
    fn read_until(&mut self, until: Instant) -> Result<bool, ApiError> {
        loop {
            for _ in 0..ROWS {
                match self.listing.next_row()? {
                    Step::Next(row) => self.rows.push(&row),
                    Step::Piece => break,
                    Step::End => return Ok(true),
                }
            }
            if self.rows.len() > SHORT && self.slot.is_none() {
                self.slot = Some(self.slots.take()?);
            }
            if Instant::now() >= until {
                return Ok(false);
            }
        }
    }

    /// The answer, whose text becomes of the rows part by part.
    fn answer(&mut self) -> Answer {
        let rows = std::mem::take(&mut self.rows).into_text(self.format);
        let parts = Text { rows, _slot: self.slot.take() };
        let body = Content::Parts(Box::new(parts));
        Answer { media_type: self.format.media_type(), ..Answer::json(200, body) }
    }
}

/// The text of a listing, with the place that it takes.
struct Text {
    rows: RowText,
    _slot: Option<Slot>,
}

impl Iterator for Text {
    type Item = String;

    fn next(&mut self) -> Option<String> {
        self.rows.next()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_two_places_which_come_back() {
        let slots = Slots::default();
        let (first, second) = (slots.take().unwrap_or_else(|_| panic!()), slots.take());
        assert!(second.is_ok() && slots.take().is_err());
        drop(first);
        assert!(slots.take().is_ok());
    }
}
