//! The texts of the auction house.
//!
//! Each function appends to its last argument, which is used again for the next row.

use std::fmt::Write;

use super::house::{Draw, House};
use crate::choice::Choices;

const FIRST_NAMES: [&str; 11] =
    ["peter", "paul", "luke", "john", "saul", "vicky", "kate", "julie", "sarah", "deiter", "walter"];
const LAST_NAMES: [&str; 9] = ["shultz", "abrams", "spencer", "white", "bartels", "walton", "smith", "jones", "noris"];
const CITIES: [&str; 10] =
    ["phoenix", "los angeles", "san francisco", "boise", "portland", "bend", "redmond", "seattle", "kent", "cheyenne"];
const STATES: [&str; 6] = ["az", "ca", "id", "or", "wa", "wy"];
/// Every other bid comes through one of these.
const HOT_CHANNELS: [&str; 4] = ["Google", "Facebook", "Baidu", "Apple"];
/// The other channels, `channel-0` and so on.
const CHANNELS: u32 = 10_000;
/// The letters that 64 even bits make.
const LETTERS_OF_BITS: usize = 12;

pub(super) fn name(house: &House, event: u64, out: &mut String) {
    let mut choices = house.choices(event, Draw::Name);
    out.push_str(one_of(&FIRST_NAMES, &mut choices));
    out.push(' ');
    out.push_str(one_of(&LAST_NAMES, &mut choices));
}

pub(super) fn email_address(house: &House, event: u64, out: &mut String) {
    let mut choices = house.choices(event, Draw::Email);
    letters(7, &mut choices, out);
    out.push('@');
    letters(5, &mut choices, out);
    out.push_str(".com");
}

pub(super) fn credit_card(house: &House, event: u64, out: &mut String) {
    let mut choices = house.choices(event, Draw::Card);
    for group in 0..4 {
        let gap = if group == 0 { "" } else { " " };
        // Writing to a string never fails.
        let _ = write!(out, "{gap}{:04}", choices.below(10_000));
    }
}

pub(super) fn city(house: &House, event: u64, out: &mut String) {
    out.push_str(one_of(&CITIES, &mut house.choices(event, Draw::City)));
}

pub(super) fn state(house: &House, event: u64, out: &mut String) {
    out.push_str(one_of(&STATES, &mut house.choices(event, Draw::State)));
}

pub(super) fn item_name(house: &House, event: u64, out: &mut String) {
    letters(20, &mut house.choices(event, Draw::Item), out);
}

pub(super) fn description(house: &House, event: u64, out: &mut String) {
    letters(100, &mut house.choices(event, Draw::Description), out);
}

pub(super) fn channel(house: &House, event: u64, out: &mut String) {
    match Channel::of(house, event) {
        Channel::Hot(number) => out.push_str(HOT_CHANNELS.get(number).unwrap_or(&"")),
        Channel::Other(number) => {
            let _ = write!(out, "channel-{number}");
        }
    }
}

/// The address of a channel; nine in ten of those that are not hot have their number in it.
pub(super) fn url(house: &House, event: u64, out: &mut String) {
    match Channel::of(house, event) {
        Channel::Hot(number) => path(number as u64, out),
        Channel::Other(number) => {
            path(number.into(), out);
            if number % 10 > 0 {
                let _ = write!(out, "&channel_id={}", number.reverse_bits() >> 1);
            }
        }
    }
}

/// Filler that brings a person to 200 bytes, more or less.
pub(super) fn person_extra(house: &House, event: u64, out: &mut String) {
    filler(120, house, event, out);
}

/// Filler that brings an auction to 500 bytes, more or less.
pub(super) fn auction_extra(house: &House, event: u64, out: &mut String) {
    filler(332, house, event, out);
}

/// Filler that brings a bid to 100 bytes without its channel and address, more or less.
pub(super) fn bid_extra(house: &House, event: u64, out: &mut String) {
    filler(68, house, event, out);
}

/// How a bid came.
#[derive(Debug, Clone, Copy)]
enum Channel {
    Hot(usize),
    Other(u32),
}

impl Channel {
    fn of(house: &House, event: u64) -> Self {
        let mut choices = house.choices(event, Draw::Channel);
        if choices.below(2) > 0 { Self::Hot(choices.below(4) as usize) } else { Self::Other(choices.below(CHANNELS)) }
    }
}

/// The same three folders for a channel, whatever the seed.
fn path(channel: u64, out: &mut String) {
    let mut choices = Choices::new(0, channel, 0);
    out.push_str("https://www.nexmark.com");
    for _ in 0..3 {
        out.push('/');
        for _ in 0..3 + choices.below(2) {
            out.push(if choices.below(13) == 0 { '_' } else { letter(choices.below(26)) });
        }
    }
    out.push_str("/item.htm?query=1");
}

/// As many letters as `average`, or a fifth more or less.
fn filler(average: u32, house: &House, event: u64, out: &mut String) {
    let mut choices = house.choices(event, Draw::Extra);
    let fifth = (average + 2) / 5;
    let length = average - fifth + choices.below(2 * fifth);
    letters(length as usize, &mut choices, out);
}

fn letters(count: usize, choices: &mut Choices, out: &mut String) {
    let mut bits = 0;
    for position in 0..count {
        if position % LETTERS_OF_BITS == 0 {
            bits = choices.bits() >> 1;
        }
        out.push(letter((bits % 26) as u32));
        bits /= 26;
    }
}

/// The letter with a number below 26.
fn letter(number: u32) -> char {
    char::from_u32(u32::from(b'a') + number).unwrap_or('a')
}

fn one_of<'a>(words: &[&'a str], choices: &mut Choices) -> &'a str {
    let count = u32::try_from(words.len()).unwrap_or(u32::MAX);
    words.get(choices.below(count) as usize).copied().unwrap_or_default()
}
