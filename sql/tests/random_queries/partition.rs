//! A condition parts the rows of a query into those it holds for, those it does not, and those it is NULL for: the
//! answers to the three parts together are the answer to the whole.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::answer::{Outcome, answer, typed, wait_for};
use crate::oracle::cut::ways;
use crate::oracle::table::{Cell, Cells, difference, line};
use crate::query::{Query, Select};
use crate::relation::Inputs;
use crate::select::random_rows;
use crate::tally;

#[test]
fn the_rows_of_a_query_are_those_of_its_three_parts() {
    tally(80, of_rows).check();
}

#[test]
fn the_aggregates_of_a_query_are_those_of_its_three_parts() {
    tally(80, of_aggregates).check();
}

fn of_rows(seed: u64) -> (String, Outcome) {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut inputs = wait_for(Inputs::random(&mut rng));
    if inputs.windowed.len() == 1 && inputs.views.is_empty() && rng.random_bool(0.2) {
        // A stream without a window, whose rows pass.
        inputs.windowed[0] = inputs.windowed[0].without_window("s0");
    }
    let (select, scope) = random_rows(&inputs, &mut rng);
    let condition = scope.condition(2, &mut rng);
    in_three_parts(select, &condition, &inputs, seed, <[Cells]>::to_vec)
}

/// COUNT, SUM, MIN and MAX by the end of the window and a key.
fn of_aggregates(seed: u64) -> (String, Outcome) {
    let mut rng = StdRng::seed_from_u64(seed);
    let inputs = wait_for(Inputs::random(&mut rng));
    let (mut select, scope) = random_rows(&inputs, &mut rng);
    let condition = scope.condition(2, &mut rng);
    select.groups = vec!["a.window_end".to_owned(), "a.k".to_owned()];
    let values = ["COUNT(*)", "COUNT(a.i)", "SUM(a.i)", "SUM(a.d)", "MIN(a.i)", "MAX(a.d)"];
    select.items = select.groups.iter().cloned().chain(values.map(str::to_owned)).collect();
    in_three_parts(select, &condition, &inputs, seed, regrouped)
}

/// Compares the whole and its parts, each answered in a way of its own, after `fold` has gone over both.
fn in_three_parts(
    select: Select,
    condition: &str,
    inputs: &Inputs,
    seed: u64,
    fold: fn(&[Cells]) -> Vec<Cells>,
) -> (String, Outcome) {
    let query = |filters: Vec<String>| Query::of(vec![Select { filters, ..select.clone() }]);
    let text = |filters: Vec<String>| typed(&query(filters).texts().streaming, inputs);
    let whole = text(Vec::new());
    let parts = [format!("({condition})"), format!("NOT ({condition})"), format!("({condition}) IS NULL")]
        .map(|part| text(vec![part]));
    let described = format!("{whole}\n{}", parts.join("\n"));
    let ways = ways(seed);
    let mut answers = Vec::new();
    for (text, way) in [&whole].into_iter().chain(&parts).zip(&ways) {
        match answer(text, inputs, way) {
            Ok(answer) => answers.push(answer),
            Err(outcome) => return (described, outcome.unless_known()),
        }
    }
    let (rest, first) = (answers.split_off(1), answers.remove(0));
    let rest: Vec<Cells> = rest.into_iter().flat_map(|part| part.rows).collect();
    let outcome = match difference(&fold(&rest), &fold(&first.rows)) {
        Ok(()) => Outcome::Right(first.rows.len()),
        Err(difference) => Outcome::Wrong(difference),
    };
    (described, outcome.unless_known())
}

/// Rows of two keys and six values as one row for each pair of keys: the values are four sums, a minimum, a maximum.
fn regrouped(rows: &[Cells]) -> Vec<Cells> {
    let mut groups = std::collections::BTreeMap::<String, (Cells, [Option<i128>; 6])>::new();
    for row in rows {
        let (keys, values) = row.split_at(2);
        let (_, totals) = groups.entry(line(&keys.to_vec())).or_insert_with(|| (keys.to_vec(), [None; 6]));
        for (number, (total, value)) in totals.iter_mut().zip(values).enumerate() {
            let Cell::Exact(value) = value else { continue };
            let value = value.parse::<i128>().unwrap();
            *total = Some(total.map_or(value, |total| match number {
                4 => total.min(value),
                5 => total.max(value),
                _ => total + value,
            }));
        }
    }
    let row = |(keys, totals): (Cells, [Option<i128>; 6])| keys.into_iter().chain(totals.map(Cell::maybe)).collect();
    groups.into_values().map(row).collect()
}
