//! The three tables: which events are their rows, and what their columns hold.

use std::ops::Range;

use datafusion::arrow::datatypes::{DataType, TimeUnit};

use super::house::{CYCLE, House};
use super::text;

/// Which kind of event a stream shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Table {
    /// New people: id, name, email_address, credit_card, city, state, date_time, extra.
    Person,
    /// New auctions: id, item_name, description, initial_bid, reserve, date_time, expires, seller, category, extra.
    Auction,
    /// Bids: auction, bidder, price, channel, url, date_time, extra.
    Bid,
}

/// What a column holds, from the number of the event.
#[derive(Debug, Clone, Copy)]
pub(super) enum Content {
    /// An identifier, an amount in hundredths.
    Number(fn(&House, u64) -> u64),
    /// Text, appended.
    Text(fn(&House, u64, &mut String)),
    /// Milliseconds since 1970.
    Time(fn(&House, u64) -> i64),
}

impl Content {
    /// The type it is made in.
    pub(super) const fn data_type(&self) -> DataType {
        match self {
            Self::Number(_) => DataType::Int64,
            Self::Text(_) => DataType::Utf8View,
            Self::Time(_) => DataType::Timestamp(TimeUnit::Millisecond, None),
        }
    }

    /// Whether it can be shown as `kind` and mean the same.
    pub(super) fn fits(&self, kind: &DataType) -> bool {
        match self {
            Self::Number(_) => kind.is_numeric(),
            Self::Text(_) => kind.is_string(),
            Self::Time(_) => matches!(kind, DataType::Timestamp(_, None)),
        }
    }
}

const PERSON: &[(&str, Content)] = &[
    ("id", Content::Number(House::person)),
    ("name", Content::Text(text::name)),
    ("email_address", Content::Text(text::email_address)),
    ("credit_card", Content::Text(text::credit_card)),
    ("city", Content::Text(text::city)),
    ("state", Content::Text(text::state)),
    ("date_time", Content::Time(House::time)),
    ("extra", Content::Text(text::person_extra)),
];

const AUCTION: &[(&str, Content)] = &[
    ("id", Content::Number(House::auction)),
    ("item_name", Content::Text(text::item_name)),
    ("description", Content::Text(text::description)),
    ("initial_bid", Content::Number(House::initial_bid)),
    ("reserve", Content::Number(House::reserve)),
    ("date_time", Content::Time(House::time)),
    ("expires", Content::Time(House::expires)),
    ("seller", Content::Number(House::seller)),
    ("category", Content::Number(House::category)),
    ("extra", Content::Text(text::auction_extra)),
];

const BID: &[(&str, Content)] = &[
    ("auction", Content::Number(House::auction_bid_on)),
    ("bidder", Content::Number(House::bidder)),
    ("price", Content::Number(House::price)),
    ("channel", Content::Text(text::channel)),
    ("url", Content::Text(text::url)),
    ("date_time", Content::Time(House::time)),
    ("extra", Content::Text(text::bid_extra)),
];

impl Table {
    /// The tables by their names.
    pub const NAMES: [(&'static str, Self); 3] =
        [("person", Self::Person), ("auction", Self::Auction), ("bid", Self::Bid)];

    /// The name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Person => "person",
            Self::Auction => "auction",
            Self::Bid => "bid",
        }
    }

    pub(super) const fn columns(self) -> &'static [(&'static str, Content)] {
        match self {
            Self::Person => PERSON,
            Self::Auction => AUCTION,
            Self::Bid => BID,
        }
    }

    /// Which events of a cycle are its rows.
    const fn places(self) -> Range<u64> {
        match self {
            Self::Person => 0..1,
            Self::Auction => 1..4,
            Self::Bid => 4..CYCLE,
        }
    }

    /// Its rows in a cycle.
    const fn rows_of_cycle(self) -> u64 {
        let Range { start, end } = self.places();
        end - start
    }

    /// How many of the first `events` events are its rows.
    pub(super) fn rows_of(self, events: u64) -> u64 {
        let Range { start, end } = self.places();
        (events / CYCLE) * self.rows_of_cycle() + (events % CYCLE).min(end).saturating_sub(start)
    }

    /// The number of the event that is its row `row`.
    pub(super) const fn event(self, row: u64) -> u64 {
        let rows = self.rows_of_cycle();
        row / rows * CYCLE + self.places().start + row % rows
    }

    /// The share of all events that are its rows.
    #[expect(clippy::cast_precision_loss, reason = "at most 50")]
    pub(super) const fn share(self) -> f64 {
        self.rows_of_cycle() as f64 / CYCLE as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_event_is_a_row_of_one_table() {
        for events in 0..200 {
            let mut numbers = Vec::new();
            for (_, table) in Table::NAMES {
                numbers.extend((0..table.rows_of(events)).map(|row| table.event(row)));
            }
            numbers.sort_unstable();
            assert_eq!(numbers, (0..events).collect::<Vec<_>>());
        }
        assert_eq!(Table::Bid.rows_of(100_000), 92_000);
    }
}
