//! Random queries of the dialect: what runs over streams answers as a batch does, and as the parts of itself do.
//!
//! `MILLSTREAM_SEED=n` runs one query alone, `MILLSTREAM_CASES=n` another number of them.

#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod answer;
mod expression;
mod known;
#[expect(dead_code, reason = "each test uses a part of it")]
#[path = "../../../engine/tests/engine/oracle/mod.rs"]
mod oracle;
mod partition;
mod query;
mod relation;
mod select;

use std::collections::BTreeMap;
use std::sync::Mutex;

use rand::SeedableRng;
use rand::rngs::StdRng;

use answer::{Outcome, compare, typed, wait_for, without_panic};
use oracle::cut::{Way, ways};
use oracle::generate::seeds;
use query::Query;
use relation::Inputs;
use select::random_query;

/// The batch keeps rows of an outer join whose `NULL LIKE '%'` is not true, and the engine drops them as SQL has it.
const NULL_LIKE_SEED: u64 = 148;
const NULL_LIKE_ANYTHING: &str = "0 rows, 65 expected";

/// What became of the cases.
#[derive(Debug, Default)]
struct Tally {
    right: usize,
    /// Those among them that had rows.
    with_rows: usize,
    refused: BTreeMap<String, Vec<u64>>,
    /// Cases that ran into a bug that is known, by the bug.
    known: BTreeMap<&'static str, usize>,
    wrong: Vec<String>,
}

impl Tally {
    fn add(&mut self, seed: u64, text: &str, outcome: Outcome) {
        match outcome {
            Outcome::Right(rows) => {
                self.right += 1;
                self.with_rows += usize::from(rows > 0);
            }
            Outcome::Refused(message) => self.refused.entry(message).or_default().push(seed),
            Outcome::Known(bug) => *self.known.entry(bug).or_default() += 1,
            Outcome::Wrong(message) if message.contains(NULL_LIKE_ANYTHING) && seed == NULL_LIKE_SEED => {
                *self.known.entry("NULL LIKE '%' is true in one of two DataFusion plans").or_default() += 1;
            }
            Outcome::Wrong(message) => self.wrong.push(format!("MILLSTREAM_SEED={seed}\n{text}\n{message}")),
        }
    }

    /// Fails unless every answer was right, few queries were refused and most had rows.
    fn check(&self) {
        let refused: usize = self.refused.values().map(Vec::len).sum();
        let known = self.known.values().sum::<usize>();
        let all = self.right + refused + known + self.wrong.len();
        println!("{} of {all} right, {} with rows", self.right, self.with_rows);
        println!("{refused} refused: {:#?}\nknown bugs: {:#?}", self.refused, self.known);
        let shown: Vec<_> = self.wrong.iter().take(20).map(String::as_str).collect();
        assert!(self.wrong.is_empty(), "{} wrong:\n{}", self.wrong.len(), shown.join("\n\n"));
        if all >= 50 {
            assert!(refused * 100 <= all * 3, "{refused} of {all} were refused");
            assert!(known * 100 <= all * 4, "{known} of {all} ran into known bugs");
            assert!(self.with_rows * 5 >= all * 3, "only {} of {all} had rows", self.with_rows);
        }
    }
}

/// Tries each seed, on every core.
fn tally(count: u64, case: fn(u64) -> (String, Outcome)) -> Tally {
    let tally = Mutex::new(Tally::default());
    let seeds = Mutex::new(seeds(count));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let Some(seed) = seeds.lock().unwrap().next() else { return };
                    let (text, outcome) = without_panic(|| case(seed))
                        .unwrap_or_else(|panic| ("no query was made".to_owned(), Outcome::Wrong(panic)));
                    tally.lock().unwrap().add(seed, &text, outcome);
                }
            });
        }
    });
    tally.into_inner().unwrap()
}

/// Two of the ways, others for each seed.
fn two_ways(seed: u64) -> [Way; 2] {
    let ways = ways(seed);
    let first = usize::try_from(seed % 4).unwrap();
    let second = usize::try_from(seed / 4 % 3).unwrap();
    [ways[first], ways[(first + 1 + second) % 4]]
}

#[test]
fn a_random_query_answers_as_a_batch_at_each_instant() {
    tally(300, against_batch).check();
}

fn against_batch(seed: u64) -> (String, Outcome) {
    let mut rng = StdRng::seed_from_u64(seed);
    let inputs = wait_for(Inputs::random(&mut rng));
    let query = random_query(&inputs, &mut rng);
    let ways = two_ways(seed);
    match compare(&query.texts(), &inputs, &ways) {
        Outcome::Wrong(message) => reduced(query, message, &inputs, &ways),
        outcome => (described(&query, &inputs), outcome),
    }
}

fn described(query: &Query, inputs: &Inputs) -> String {
    let windows: Vec<_> = inputs.windowed.iter().map(|windowed| windowed.relation.window).collect();
    let statements: Vec<_> = inputs.views.iter().cloned().chain([typed(&query.texts().streaming, inputs)]).collect();
    format!("{}\n{windows:?}", statements.join(";\n"))
}

/// The query with as many parts left out as it takes to be wrong still.
fn reduced(mut query: Query, mut message: String, inputs: &Inputs, ways: &[Way]) -> (String, Outcome) {
    'smaller: loop {
        for smaller in query.parts_less() {
            if let Outcome::Wrong(its_message) = compare(&smaller.texts(), inputs, ways) {
                (query, message) = (smaller, its_message);
                continue 'smaller;
            }
        }
        return (described(&query, inputs), Outcome::Wrong(message));
    }
}
