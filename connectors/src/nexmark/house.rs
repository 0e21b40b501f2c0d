//! The auction house: every value of every event as a function of the event's number.
//!
//! Identifiers count from [`FIRST_ID`] on. People and auctions have theirs in order, so that the newest at an event
//! follow from the event's number; who sells, bids and is bid on is chosen among the newest.

use millstream_engine::time::EventTime;
use millstream_engine::{Error, Result};

use crate::choice::Choices;

/// The events after which the house repeats its pattern: one person, three auctions, 46 bids.
pub(super) const CYCLE: u64 = 50;
/// The auctions of a cycle.
const AUCTIONS: u64 = 3;
const FIRST_ID: u64 = 1_000;
const FIRST_CATEGORY: u64 = 10;
const CATEGORIES: u32 = 5;
/// How many of the newest people sell and bid.
const ACTIVE_PEOPLE: u64 = 1_000;
/// How many auctions are open at a time, about.
const OPEN_AUCTIONS: u64 = 100;
/// How far a choice may reach ahead, to people and auctions that are still to come.
const LEAD: u64 = 10;
/// A hot seller, bidder or auction is one in this many.
const HOT: u64 = 100;
const MILLIS_PER_SECOND: u64 = 1_000;
const NANOS_PER_MILLI: i64 = 1_000_000;

/// What a value is chosen for, so that no two values of an event hang together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Draw {
    Name,
    Email,
    Card,
    City,
    State,
    Item,
    Description,
    InitialBid,
    Reserve,
    Length,
    Seller,
    Category,
    Auction,
    Bidder,
    Price,
    Channel,
    Extra,
}

/// The auction house of one seed.
#[derive(Debug, Clone, Copy)]
pub(super) struct House {
    seed: u64,
    start_millis: i64,
    event_rate: u32,
}

impl House {
    /// The house whose first event is at `start`, with `event_rate` events a second.
    ///
    /// # Errors
    /// Fails if there are no events in a second.
    pub(super) fn new(seed: u64, start: EventTime, event_rate: u32) -> Result<Self> {
        if event_rate == 0 {
            return Err(Error::query("nexmark: event_rate is 0", "set it to 1 or more events per second"));
        }
        Ok(Self { seed, start_millis: start.0.div_euclid(NANOS_PER_MILLI), event_rate })
    }

    /// The choices for one value of an event.
    pub(super) const fn choices(&self, event: u64, draw: Draw) -> Choices {
        Choices::new(self.seed, event, draw as u64)
    }

    /// When an event happens, in milliseconds since 1970.
    pub(super) fn time(&self, event: u64) -> i64 {
        self.start_millis.saturating_add(i64::try_from(self.elapsed(event)).unwrap_or(i64::MAX))
    }

    /// The milliseconds from the first event to another.
    fn elapsed(&self, event: u64) -> u64 {
        let millis = u128::from(event) * u128::from(MILLIS_PER_SECOND) / u128::from(self.event_rate);
        u64::try_from(millis).unwrap_or(u64::MAX)
    }

    /// The person that an event brings.
    pub(super) const fn person(&self, event: u64) -> u64 {
        FIRST_ID + newest_person(event)
    }

    /// The auction that an event opens.
    pub(super) const fn auction(&self, event: u64) -> u64 {
        FIRST_ID + newest_auction(event)
    }

    /// Three auctions in four are those of the first of the newest hundred people.
    pub(super) const fn seller(&self, event: u64) -> u64 {
        let mut choices = self.choices(event, Draw::Seller);
        FIRST_ID + if choices.below(4) > 0 { hottest(newest_person(event)) } else { any_person(event, &mut choices) }
    }

    /// Three bids in four are those of the second of the newest hundred people, who is no hot seller.
    pub(super) const fn bidder(&self, event: u64) -> u64 {
        let mut choices = self.choices(event, Draw::Bidder);
        FIRST_ID
            + if choices.below(4) > 0 { hottest(newest_person(event)) + 1 } else { any_person(event, &mut choices) }
    }

    /// Every other bid is on the first of the newest hundred auctions.
    pub(super) const fn auction_bid_on(&self, event: u64) -> u64 {
        let mut choices = self.choices(event, Draw::Auction);
        FIRST_ID + if choices.below(2) > 0 { hottest(newest_auction(event)) } else { any_auction(event, &mut choices) }
    }

    pub(super) const fn category(&self, event: u64) -> u64 {
        FIRST_CATEGORY + self.choices(event, Draw::Category).below(CATEGORIES) as u64
    }

    /// When an auction ends: so that about [`OPEN_AUCTIONS`] are open at a time, in milliseconds since 1970.
    pub(super) fn expires(&self, event: u64) -> i64 {
        let horizon = self.elapsed(event + OPEN_AUCTIONS * CYCLE / AUCTIONS) - self.elapsed(event);
        let longest = u32::try_from(horizon * 2).unwrap_or(u32::MAX).max(1);
        let length = 1 + i64::from(self.choices(event, Draw::Length).below(longest));
        self.time(event).saturating_add(length)
    }

    pub(super) fn initial_bid(&self, event: u64) -> u64 {
        self.amount(event, Draw::InitialBid)
    }

    pub(super) fn reserve(&self, event: u64) -> u64 {
        self.initial_bid(event) + self.amount(event, Draw::Reserve)
    }

    pub(super) fn price(&self, event: u64) -> u64 {
        self.amount(event, Draw::Price)
    }

    /// An amount from 1 to a million, every order of magnitude as likely, in hundredths.
    fn amount(&self, event: u64, draw: Draw) -> u64 {
        /// The powers of two in a million.
        const OCTAVES: f64 = 19.931_568_569_324_174;
        let even = f64::from(self.choices(event, draw).below(u32::MAX)) / f64::from(u32::MAX);
        let octaves = even * OCTAVES;
        let whole = octaves.floor();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 19, and below 2 ^ 28")]
        let amount = (100.0 * power_of_two(octaves - whole) * (1_u64 << whole as u64) as f64).round() as u64;
        amount
    }
}

/// Two to the power of a number from 0 to 1, to 1 in 5,000; by arithmetic that is the same on every machine, as the
/// mathematical libraries are not.
fn power_of_two(part: f64) -> f64 {
    1.0 + part * (0.695_8 + part * (0.225_1 + part * 0.079_1))
}

/// The newest person at an event, from 0.
const fn newest_person(event: u64) -> u64 {
    event / CYCLE
}

/// The newest auction at an event that is not before the first auction, from 0.
const fn newest_auction(event: u64) -> u64 {
    let before = event / CYCLE * AUCTIONS;
    match event % CYCLE {
        0 => before.saturating_sub(1),
        place if place < AUCTIONS => before + place - 1,
        _ => before + AUCTIONS - 1,
    }
}

/// The first of the newest hundred.
const fn hottest(newest: u64) -> u64 {
    newest / HOT * HOT
}

const fn any_person(event: u64, choices: &mut Choices) -> u64 {
    any_of_newest(newest_person(event), ACTIVE_PEOPLE - 1, choices)
}

const fn any_auction(event: u64, choices: &mut Choices) -> u64 {
    any_of_newest(newest_auction(event), OPEN_AUCTIONS, choices)
}

/// One from `span` before the newest, or [`LEAD`] behind it.
const fn any_of_newest(newest: u64, span: u64, choices: &mut Choices) -> u64 {
    let oldest = newest.saturating_sub(span);
    #[expect(clippy::cast_possible_truncation, reason = "at most span and lead")]
    let choice = choices.below((newest - oldest + 1 + LEAD) as u32);
    oldest + choice as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn house() -> House {
        House::new(7, EventTime(0), 1_000).unwrap()
    }

    #[test]
    fn people_and_auctions_are_numbered_in_order() {
        let house = house();
        let people: Vec<u64> = (0..4).map(|cycle| house.person(cycle * CYCLE)).collect();
        assert_eq!(people, [1_000, 1_001, 1_002, 1_003]);
        let events = [1, 2, 3, 51, 52, 53, 101];
        assert_eq!(events.map(|event| house.auction(event)), [1_000, 1_001, 1_002, 1_003, 1_004, 1_005, 1_006]);
    }

    /// The share of the bids for which something holds, in percent.
    fn percent(holds: impl Fn(u64) -> bool) -> u64 {
        let bids = (1_000_000..1_020_000).filter(|event| event % CYCLE > AUCTIONS);
        let (all, held) = bids.fold((0, 0), |(all, held), event| (all + 1, held + u64::from(holds(event))));
        (held * 100 + all / 2) / all
    }

    #[test]
    fn the_hot_are_as_hot_as_they_should_be() {
        let house = house();
        assert!((49..=52).contains(&percent(|event| house.auction_bid_on(event).is_multiple_of(HOT))));
        assert!((74..=77).contains(&percent(|event| house.bidder(event) % HOT == 1)));
        assert!((74..=77).contains(&percent(|event| house.seller(event).is_multiple_of(HOT))));
        assert_eq!(percent(|event| (10..15).contains(&house.category(event))), 100);
        assert_eq!(percent(|event| house.auction_bid_on(event).abs_diff(house.auction(event)) <= 100), 100);
    }

    #[test]
    fn amounts_are_spread_over_six_orders_of_magnitude() {
        let house = house();
        for limit in [1_000, 10_000, 100_000, 1_000_000, 10_000_000, 100_000_000] {
            let share = percent(|event| (limit / 10..limit).contains(&house.price(event)));
            assert!((15..=18).contains(&share), "{share} % below {limit}");
        }
        assert_eq!(percent(|event| house.reserve(event) >= house.initial_bid(event) + 100), 100);
        for thousandths in 0..=1_000 {
            let part = f64::from(thousandths) / 1_000.0;
            assert!((power_of_two(part) / part.exp2() - 1.0).abs() < 2e-4, "{part}");
        }
    }

    #[test]
    fn auctions_last_as_long_as_a_hundred_openings_on_average() {
        let house = house();
        let lengths: Vec<i64> =
            (0..3_000).map(|cycle| cycle * CYCLE + 1).map(|e| house.expires(e) - house.time(e)).collect();
        assert!(lengths.iter().all(|length| (1..=3_333).contains(length)), "{lengths:?}");
        let average = lengths.iter().sum::<i64>() / 3_000;
        assert!((1_600..1_730).contains(&average), "{average} ms");
    }
}
