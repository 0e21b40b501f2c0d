//! Runs that are killed: at every durable step in turn, and at random moments. What they leave in their sink is what
//! an undisturbed run leaves.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::kept::{Delta, Destination, Parquet, Postgres, Scenario, Sqlite};

/// More steps than any scenario has; a loop that comes here does not end by itself.
const MAX_STEPS: u64 = 5_000;
/// Fewer steps than any scenario has.
const MIN_STEPS: u64 = 50;

/// Kills a run at its first durable step, another at its second, until one ends by itself; each is begun again.
pub(crate) fn check_every_step(scenario: &Scenario, destination: &dyn Destination) {
    let expected = scenario.undisturbed();
    assert!(expected.len() > 50, "{} rows", expected.len());
    for step in 1..MAX_STEPS {
        let place = destination.place();
        let was_killed = scenario.run_to_crash(place.as_ref(), step);
        if was_killed {
            scenario.run_kept(place.as_ref()).check();
        }
        let rows = place.rows(scenario);
        assert!(rows == expected, "{} killed at step {step}: {rows:?} instead of {expected:?}", scenario.name);
        if !was_killed {
            println!("{}: {} durable steps", scenario.name, step - 1);
            assert!(step > MIN_STEPS, "only {step} steps");
            return;
        }
    }
    unreachable!("{} steps and no end", MAX_STEPS);
}

/// Kills runs at random moments, begins each again with the same command until it ends, and starts over with new
/// places until there were `kills`.
fn check_random_kills(scenario: &Scenario, destination: &dyn Destination, seed: u64, kills: u32) {
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let expected = scenario.undisturbed();
    let mut killed = 0;
    let mut ended = 0;
    while killed < kills {
        let place = destination.place();
        loop {
            let mut run = scenario.start_kept(place.as_ref());
            if killed < kills && !run.ends_within(Duration::from_micros(random.random_range(1_000..50_000))) {
                run.kill();
                killed += 1;
                continue;
            }
            run.finish().check();
            break;
        }
        ended += 1;
        let rows = place.rows(scenario);
        assert!(rows == expected, "seed {seed}, kill {killed}: {} rows, {}", rows.len(), expected.len());
    }
    println!("{}: {killed} kills in {ended} runs", scenario.name);
    assert!(killed > 0);
}

/// The number in an environment variable, for longer runs by hand.
fn number(variable: &str, default: u32) -> u32 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn seed() -> u64 {
    u64::from(number("MILLSTREAM_TEST_SEED", 3))
}

#[test]
fn a_group_by_survives_a_kill_at_every_step() {
    check_every_step(&Scenario::group_by(40), &Parquet::AN_EPOCH);
    check_every_step(&Scenario::group_by(40), &Sqlite);
}

#[test]
fn files_that_are_put_together_survive_a_kill_at_every_step() {
    check_every_step(&Scenario::group_by(40), &Parquet::COMPACTED);
}

#[test]
fn runs_into_a_delta_table_survive_a_kill_at_every_step() {
    for scenario in [Scenario::group_by(40), Scenario::join(40), Scenario::ranks(40)] {
        check_every_step(&scenario, &Delta);
    }
}

#[test]
fn a_join_survives_a_kill_at_every_step() {
    check_every_step(&Scenario::join(40), &Parquet::AN_EPOCH);
    check_every_step(&Scenario::join(40), &Sqlite);
}

#[test]
fn a_query_with_row_state_survives_a_kill_at_every_step() {
    check_every_step(&Scenario::ranks(40), &Parquet::AN_EPOCH);
    check_every_step(&Scenario::ranks(40), &Sqlite);
}

#[test]
fn runs_into_postgres_survive_a_kill_at_every_step() {
    let Some(postgres) = Postgres::of_environment() else { return };
    for scenario in [Scenario::group_by(40), Scenario::join(40), Scenario::ranks(40)] {
        check_every_step(&scenario, &postgres);
    }
}

#[test]
fn random_kills_lose_nothing_and_repeat_nothing() {
    let kills = number("MILLSTREAM_TEST_KILLS", 200);
    let (files, sqlite) = (Parquet::AN_EPOCH, Sqlite);
    let scenarios: [(Scenario, &dyn Destination); 4] = [
        (Scenario::group_by(4_000), &files),
        (Scenario::join(400), &sqlite),
        (Scenario::ranks(2_000), &files),
        (Scenario::group_by(4_000), &Delta),
    ];
    for (scenario, destination) in scenarios {
        check_random_kills(&scenario, destination, seed(), kills.div_ceil(4));
    }
}
