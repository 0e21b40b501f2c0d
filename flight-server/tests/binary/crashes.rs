//! Runs that are killed: at every durable step in turn, and at random moments. What they leave in their sink is what
//! an undisturbed run leaves.

use std::path::Path;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::databases::{Postgres, Sqlite, SqliteUpsert};
use super::folders::{Delta, Files, LeftBehind};
use super::kept::{Destination, Place, Scenario};
use super::process::Finished;

/// More steps than any scenario has; a loop that comes here does not end by itself.
const MAX_STEPS: u64 = 5_000;
/// Fewer steps than any scenario has.
const MIN_STEPS: usize = 50;
/// No process does anything before this time.
const LEAST_MOMENT: Duration = Duration::from_millis(2);

/// Kills a run at a durable step, another at a later one, until one ends by itself; each is begun again. Every other step
/// has its turn, and every one with `MILLSTREAM_TEST_STRIDE=1`, which takes twice as long.
pub(crate) fn check_steps_in_turn(scenario: &Scenario, destination: &dyn Destination) {
    let expected = scenario.undisturbed();
    assert!(expected.len() > 50, "{} rows", expected.len());
    let stride = number("MILLSTREAM_TEST_STRIDE", 2).max(1);
    let first = 1 + number("MILLSTREAM_TEST_SEED", 3) % stride;
    for step in (u64::from(first)..MAX_STEPS).step_by(stride as usize) {
        let place = destination.place();
        let was_killed = scenario.run_to_crash(place.as_ref(), step);
        if was_killed {
            scenario.run_kept(place.as_ref()).check();
        }
        let (rows, steps) = (place.rows(scenario), place.steps());
        let name = steps.last();
        assert!(rows == expected, "{} killed at step {step}, {name:?}: {rows:?}, not {expected:?}", scenario.name);
        if !was_killed {
            println!("{}: {} durable steps", scenario.name, steps.len());
            check_kinds_of_steps(place.as_ref(), &steps);
            return;
        }
    }
    unreachable!("{} steps and no end", MAX_STEPS);
}

/// Checks that a run came to steps of the engine and of its sink, and so was killed in both before.
fn check_kinds_of_steps(place: &dyn Place, steps: &[String]) {
    assert!(steps.len() > MIN_STEPS, "only {} steps", steps.len());
    let sink = place.sink();
    // The journal's own, as the sink `delta` makes files with the engine's means.
    let journal = if place.state().starts_with("s3://") { "object.put" } else { "file.append" };
    let connector = place.step_prefix();
    let compaction = sink.contains("compact = ").then_some("files.compact");
    for kind in [journal, &connector].into_iter().chain(compaction) {
        assert!(steps.iter().any(|name| name.starts_with(kind)), "no {kind} among {steps:?}");
    }
}

/// Kills runs at random moments, begins each again with the same command until it ends, and starts over with new
/// places until there were `kills`; how many of them came after the first epoch.
fn check_random_kills(scenario: &Scenario, destination: &dyn Destination, random: &mut StdRng, kills: usize) -> usize {
    let expected = scenario.undisturbed();
    let whole = time_of_a_run(scenario, destination, &expected);
    let mut restarts = Vec::new();
    while restarts.len() < kills {
        let place = destination.place();
        let left = kills - restarts.len();
        let runs = run_with_kills(scenario, place.as_ref(), left, || moment(random, whole));
        restarts.extend(runs.into_iter().skip(1));
        let rows = place.rows(scenario);
        assert!(rows == expected, "kill {}: {} rows, {}", restarts.len(), rows.len(), expected.len());
    }
    let late = restarts.iter().filter(|run| goes_on(run)).count();
    println!("{} in {whole:?}: {late} of {kills} kills came after the first epoch", scenario.name);
    late
}

/// How long a query takes that keeps state and that nothing happens to.
fn time_of_a_run(scenario: &Scenario, destination: &dyn Destination, expected: &[String]) -> Duration {
    let place = destination.place();
    let started = Instant::now();
    scenario.run_kept(place.as_ref()).check();
    let time = started.elapsed();
    assert!(place.rows(scenario) == expected, "{} without a kill", scenario.name);
    time
}

/// When to kill a run of which an undisturbed one takes `whole`.
fn moment(random: &mut StdRng, whole: Duration) -> Duration {
    whole.mul_f64(random.random_range(0.0..1.2)).max(LEAST_MOMENT)
}

/// Runs a query again and again until it ends before its next `moment`, or was killed `most` times; all of the runs.
fn run_with_kills(
    scenario: &Scenario,
    place: &dyn Place,
    most: usize,
    mut moment: impl FnMut() -> Duration,
) -> Vec<Finished> {
    let mut runs = Vec::new();
    loop {
        let mut run = scenario.start_kept(place);
        let may_end = runs.len() == most || run.ends_within(moment());
        let finished = if may_end { run.finish() } else { run.kill() };
        // It may have ended by itself between the moment and the kill.
        if may_end || finished.code.is_some() {
            finished.check();
            runs.push(finished);
            return runs;
        }
        finished.check_killed();
        runs.push(finished);
    }
}

/// Whether a run said that it begins behind the first epoch.
fn goes_on(run: &Finished) -> bool {
    let epoch = run.stderr.split_once("goes on from epoch ").map(|(_, epoch)| epoch);
    epoch.is_some_and(|epoch| epoch.starts_with(|digit: char| matches!(digit, '1'..='9')))
}

/// The number in an environment variable, for longer runs by hand.
fn number(variable: &str, default: u32) -> u32 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn seed() -> u64 {
    u64::from(number("MILLSTREAM_TEST_SEED", 3))
}

#[test]
fn a_group_by_survives_a_kill_at_each_step_in_turn() {
    check_steps_in_turn(&Scenario::group_by(40), &Files::AN_EPOCH);
    check_steps_in_turn(&Scenario::group_by(40), &Sqlite);
}

#[test]
fn files_that_are_put_together_survive_a_kill_at_each_step_in_turn() {
    check_steps_in_turn(&Scenario::group_by(40), &Files::COMPACTED);
    check_steps_in_turn(&Scenario::group_by_in(3, 40), &Files::COMPACTED_CSV);
}

#[test]
fn a_recovery_survives_a_kill_at_each_step_in_turn() {
    // The one file has just taken the place of two that are both still there: the most that a sink has to mend.
    let scenario = Scenario::group_by_in(4, 40);
    check_steps_in_turn(&scenario, &LeftBehind::by_kill(&scenario, &Files::COMPACTED, "1:files.remove"));
}

#[test]
fn runs_into_a_delta_table_survive_a_kill_at_each_step_in_turn() {
    for scenario in [Scenario::group_by(40), Scenario::join(40), Scenario::ranks(40)] {
        check_steps_in_turn(&scenario, &Delta);
    }
}

#[test]
fn a_delta_table_with_checkpoints_of_its_log_survives_a_kill_at_each_step_in_turn() {
    let scenario = Scenario::group_by_in(3, 40);
    let tables = LeftBehind::with_log_checkpoints(&scenario);
    let place = tables.place();
    scenario.run_kept(place.as_ref()).check();
    assert!(Path::new(&place.folder().path("out/_delta_log/_last_checkpoint")).exists());
    check_steps_in_turn(&scenario, &tables);
}

#[test]
fn a_join_survives_a_kill_at_each_step_in_turn() {
    check_steps_in_turn(&Scenario::join(40), &Files::AN_EPOCH);
    check_steps_in_turn(&Scenario::join(40), &Sqlite);
}

#[test]
fn a_query_with_row_state_survives_a_kill_at_each_step_in_turn() {
    check_steps_in_turn(&Scenario::ranks(40), &Files::AN_EPOCH);
    check_steps_in_turn(&Scenario::ranks(40), &Sqlite);
}

#[test]
fn windows_of_rows_survive_a_kill_at_each_step_in_turn() {
    for scenario in [Scenario::counted(40), Scenario::over(40), Scenario::over_rows(40)] {
        check_steps_in_turn(&scenario, &Sqlite);
    }
}

#[test]
fn upserts_survive_a_kill_at_each_step_in_turn() {
    check_steps_in_turn(&Scenario::upsert(3, 40), &SqliteUpsert);
}

#[test]
fn runs_into_postgres_survive_a_kill_at_each_step_in_turn() {
    let Some(postgres) = Postgres::of_environment() else { return };
    for scenario in [Scenario::group_by(40), Scenario::join(40), Scenario::ranks(40)] {
        check_steps_in_turn(&scenario, &postgres);
    }
    check_steps_in_turn(&Scenario::upsert(3, 40), &postgres.upserting());
}

#[test]
fn random_kills_lose_nothing_and_repeat_nothing() {
    println!("seed {}", seed());
    let mut random = StdRng::seed_from_u64(seed());
    let (group_by, join, ranks) = (Scenario::group_by(4_000), Scenario::join(400), Scenario::ranks(2_000));
    let tables = LeftBehind::with_log_checkpoints(&group_by);
    let postgres = Postgres::of_environment();
    let mut cases: Vec<(&Scenario, &dyn Destination)> =
        vec![(&group_by, &Files::AN_EPOCH), (&ranks, &Files::COMPACTED_JSON), (&join, &Sqlite), (&group_by, &tables)];
    cases.extend(postgres.iter().map(|postgres| (&ranks, postgres as &dyn Destination)));
    let kills = (number("MILLSTREAM_TEST_KILLS", 200) as usize).div_ceil(cases.len());
    let all = kills * cases.len();
    let late = cases.into_iter().map(|(scenario, place)| check_random_kills(scenario, place, &mut random, kills));
    let late: usize = late.sum();
    assert!(late * 4 >= all, "only {late} of {all} kills came after the first epoch");
}
