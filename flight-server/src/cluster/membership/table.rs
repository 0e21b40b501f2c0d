//! What SHOW EXECUTORS tells.

use std::sync::Arc;
use std::time::Instant;

use datafusion::arrow::array::{ArrayRef, StringArray, UInt32Array, UInt64Array};
use datafusion::arrow::record_batch::RecordBatch;
use millstream_engine::time::EventTime;

use super::members::{Member, MemberState, Members};
use crate::error::Result;
use crate::queries::short_duration;

/// Times are shown in whole milliseconds.
const NANOS_PER_MILLI: i64 = 1_000_000;

/// One row per executor, those that are lost among them.
///
/// # Errors
/// Fails only if the columns have different lengths.
pub(crate) fn executors_table(members: &Members) -> Result<RecordBatch> {
    table_at(members, Instant::now())
}

fn table_at(members: &Members, now: Instant) -> Result<RecordBatch> {
    let executors = &members.executors;
    let text = |value: &dyn Fn(&Member) -> Option<String>| -> ArrayRef {
        Arc::new(executors.iter().map(value).collect::<StringArray>())
    };
    let count = |value: fn(&Member) -> u32| -> ArrayRef {
        Arc::new(executors.iter().map(|member| Some(value(member))).collect::<UInt32Array>())
    };
    let figure = |value: fn(&Member) -> u64| -> ArrayRef {
        Arc::new(executors.iter().map(|member| Some(value(member))).collect::<UInt64Array>())
    };
    let last_heartbeat = |member: &Member| {
        let silence = now.saturating_duration_since(member.last_heartbeat);
        Some(format!("{} ago", short_duration(silence)))
    };
    let columns = [
        ("executor", text(&|member| Some(member.name.clone()))),
        ("state", text(&|member| Some(word(member.state).to_owned()))),
        ("address", text(&|member| Some(address(&member.control).to_owned()))),
        ("pid", count(|member| member.pid)),
        ("cores", count(|member| member.cores)),
        ("memory", figure(|member| member.memory_bytes)),
        ("since", text(&|member| Some(whole_millis(member.since).to_string()))),
        ("slots", count(|member| member.figures.slots)),
        ("rows_read", figure(|member| member.figures.rows_read)),
        ("rows", figure(|member| member.figures.rows)),
        ("state_bytes", figure(|member| member.figures.state_bytes)),
        ("jobs", count(|member| member.figures.jobs)),
        ("last_heartbeat", text(&last_heartbeat)),
        ("times_lost", figure(|member| member.times_lost)),
        ("lost", text(&|member| member.lost_reason.clone())),
    ];
    Ok(RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, true)))
        .map_err(millstream_engine::Error::from)?)
}

const fn word(state: MemberState) -> &'static str {
    match state {
        MemberState::Live => "live",
        MemberState::Leaving => "leaving",
        MemberState::Lost => "lost",
    }
}

/// A URL without its scheme, which is the same for all.
fn address(url: &str) -> &str {
    url.split_once("://").map_or(url, |(_, address)| address)
}

const fn whole_millis(time: EventTime) -> EventTime {
    EventTime(time.0 - time.0.rem_euclid(NANOS_PER_MILLI))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use datafusion::arrow::util::pretty::pretty_format_batches;

    use super::*;
    use crate::cluster::membership::incarnation::Incarnation;
    use crate::cluster::membership::members::Moment;
    use crate::cluster::membership::messages::{Figures, RELEASE, Registration};

    fn member(name: &str, at: Moment) -> Member {
        let registration = Registration {
            name: name.to_owned(),
            data: "http://10.0.0.7:1".to_owned(),
            control: "http://10.0.0.7:2".to_owned(),
            incarnation: Incarnation::new(at.time),
            process: uuid::Uuid::new_v4(),
            version: RELEASE.to_owned(),
            cores: 2,
            memory_bytes: 1,
            pid: 7,
        };
        Member::new(registration, at, 0)
    }

    #[test]
    fn executors_are_shown_with_what_they_hold_and_why_they_are_lost() {
        let at = Moment { instant: Instant::now(), time: EventTime(1_700_000_000_123_456_789) };
        let mut live = member("executor-1", at);
        live.figures = Figures { state_bytes: 4_096, rows: 50, rows_read: 9_000, slots: 512, jobs: 1 };
        let mut lost = member("executor-2", at);
        lost.lose("no heartbeat for 1.0 s", at);
        let members = Members { version: 3, executors: vec![live, lost] };
        let table = table_at(&members, at.instant + Duration::from_millis(200)).unwrap();
        let shown = pretty_format_batches(&[table]).unwrap().to_string();
        let cells = |line: &str| line.split('|').map(|cell| cell.trim().to_owned()).collect::<Vec<_>>().join("|");
        let lines: Vec<String> = shown.lines().filter(|line| line.starts_with('|')).map(cells).collect();
        let since = "2023-11-14T22:13:20.123";
        assert_eq!(
            lines,
            [
                "|executor|state|address|pid|cores|memory|since|slots|rows_read|rows|state_bytes|jobs|last_heartbeat|times_lost|lost|"
                    .to_owned(),
                format!("|executor-1|live|10.0.0.7:2|7|2|1|{since}|512|9000|50|4096|1|200 ms ago|0||"),
                format!("|executor-2|lost|10.0.0.7:2|7|2|1|{since}|0|0|0|0|0|200 ms ago|0|no heartbeat for 1.0 s|"),
            ]
        );
    }
}
