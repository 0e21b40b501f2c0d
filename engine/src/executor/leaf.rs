//! What the windows of one leaf hold, and what a plan sees of it at an instant.

use std::sync::Arc;

use datafusion::arrow::array::ArrayRef;
use datafusion::arrow::record_batch::RecordBatch;

use crate::arrays::{concat_rows, without_waste};
use crate::durable::{FullDisk, ROOM_PAUSE};
use crate::error::{Error, Result};
use crate::executor::assign::PaneTag;
use crate::executor::counted::Counted;
use crate::executor::held::{blocking, for_each};
use crate::executor::latest::Latest;
use crate::executor::preceding::Preceding;
use crate::executor::sessions::Sessions;
use crate::executor::shard::Shard;
use crate::executor::stage::StageOptions;
use crate::program::{Bound, InputPlan, Kept};
use crate::state::{Batches, KeyRouter, PaneStore, StateMemory};
use crate::time::EventTime;
use crate::window::{Contents, Pane, Window, WindowSpec};

/// Row state of one pane is made one batch once it has this many.
const UNMERGED_ROW_BATCHES: usize = 64;

/// The state of a leaf.
#[derive(Debug)]
pub(crate) enum LeafState {
    /// Partial aggregates by pane, in shards by key.
    Aggregate { router: KeyRouter, shards: Vec<Shard> },
    /// Rows by pane.
    Rows(PaneStore),
    /// The latest rows of each key.
    Latest(Latest),
    /// The rows of the last window, and those towards the next.
    Counted(Counted),
    /// The rows of each key that come before others.
    Preceding(Preceding),
    /// The rows of open sessions.
    Sessions(Sessions),
}

/// What a leaf has at an instant, to be made rows of.
#[derive(Debug)]
pub(crate) enum Seen {
    /// State rows of each shard.
    States(Vec<Vec<RecordBatch>>, Window),
    /// Kept rows, perhaps on disk.
    Stored(Vec<Batches>, Window),
    /// Kept rows.
    Kept(Vec<RecordBatch>, Window),
    /// Kept rows with windows of their own.
    Bounded(BoundedRows),
}

/// Rows, each with the bounds of its window.
#[derive(Debug)]
pub(crate) struct BoundedRows {
    /// In the order of event time, partition and offset.
    pub(crate) rows: Option<RecordBatch>,
    pub(crate) starts: ArrayRef,
    pub(crate) ends: ArrayRef,
}

impl Seen {
    /// Where the bounds do not matter, because there are no rows.
    pub(crate) const NO_WINDOW: Window = Window { start: EventTime(0), end: EventTime(0) };

    /// The leaf's rows, or those of its groups.
    pub(crate) fn rows(self, input: &InputPlan) -> Result<Vec<RecordBatch>> {
        match self {
            Self::States(states, window) => {
                let Kept::Aggregate(plans) = &input.keeps else {
                    return Err(Error::internal("a leaf of rows has state of groups"));
                };
                let mut rows = Vec::new();
                for state in states {
                    rows.extend(plans.finish(state, window)?);
                }
                Ok(rows)
            }
            Self::Stored(entries, window) => {
                let mut rows = Vec::new();
                for batch in entries.iter().map(Batches::read).collect::<Result<Vec<_>>>()?.iter().flatten() {
                    rows.push(input.with_bounds(batch, window)?);
                }
                Ok(rows)
            }
            Self::Kept(batches, window) => batches.iter().map(|batch| input.with_bounds(batch, window)).collect(),
            Self::Bounded(BoundedRows { rows, starts, ends }) => {
                let Some(rows) = rows else { return Ok(Vec::new()) };
                let rows = input.with_bound_columns(&rows, |bound| match bound {
                    Bound::Start => Arc::clone(&starts),
                    Bound::End => Arc::clone(&ends),
                })?;
                Ok(vec![rows])
            }
        }
    }
}

impl LeafState {
    /// The state of a windowed leaf, with nothing in it.
    pub(super) fn new(input: &InputPlan, options: &StageOptions) -> Result<Self> {
        let window = *input.window()?;
        if let Some(selection) = &input.head.selection {
            let schema = input.kept_schema()?;
            return Ok(match window.contents() {
                Contents::Latest(rows) => Self::Latest(Latest::new(selection.clone(), rows, &schema)?),
                Contents::Preceding(frame) => Self::Preceding(Preceding::new(selection.clone(), frame, &schema)?),
                Contents::Counted { rows, slide } => Self::Counted(Counted::new(selection.clone(), rows, slide)?),
                _ => Self::Sessions(Sessions::new(selection.clone(), window.range(), schema)?),
            });
        }
        Ok(match &input.keeps {
            Kept::Rows => Self::Rows(PaneStore::default()),
            Kept::Aggregate(plans) => {
                // Small state stays in one piece: sending each of its rows to a task would cost more than it saves.
                let router =
                    KeyRouter { key_columns: plans.key_columns, partitions: options.key_partitions.max(1), shards: 1 };
                let shard = Shard::new(Arc::clone(plans), window, Arc::clone(&options.memory));
                let shards = vec![shard.correctable_for(options.lateness)];
                Self::Aggregate { router, shards }
            }
        })
    }

    /// Takes state of a micro-batch in.
    pub(super) async fn add(&mut self, states: Vec<(PaneTag, Vec<RecordBatch>)>) -> Result<()> {
        match self {
            Self::Rows(store) => states.into_iter().try_for_each(|(pair, rows)| add_rows(store, pair, rows)),
            Self::Latest(latest) => {
                states.into_iter().try_for_each(|(pair, rows)| add_rows(latest.panes(), pair, rows))
            }
            Self::Preceding(preceding) => {
                states.into_iter().try_for_each(|(pair, rows)| add_rows(preceding.panes(), pair, rows))
            }
            Self::Counted(counted) => {
                states.into_iter().try_for_each(|(pair, rows)| add_rows(counted.panes(), pair, rows))
            }
            Self::Sessions(sessions) => states.into_iter().try_for_each(|(pair, rows)| {
                sessions.note(&rows)?;
                add_rows(sessions.panes(), pair, rows)
            }),
            Self::Aggregate { router, shards, .. } => {
                let mut parts: Vec<Vec<(PaneTag, RecordBatch)>> = shards.iter().map(|_| Vec::new()).collect();
                for (pair, batches) in states {
                    for batch in batches {
                        for (shard, rows) in router.split(batch)? {
                            if let Some(part) = parts.get_mut(shard) {
                                part.push((pair, rows));
                            }
                        }
                    }
                }
                let mut parts = parts.into_iter();
                for_each(shards, move |_| {
                    let part = parts.next().unwrap_or_default();
                    move |shard: &mut Shard| shard.add(part)
                })
                .await?;
                Ok(())
            }
        }
    }

    /// What the windows at `instants`, which ascend, hold.
    pub(super) async fn at(&mut self, window: &WindowSpec, instants: Vec<EventTime>) -> Result<Vec<Seen>> {
        let window = *window;
        match self {
            Self::Rows(store) => {
                let seen = instants.iter().map(|at| Seen::Stored(store.visible(&window, *at), window.window(*at)));
                Ok(seen.collect())
            }
            Self::Latest(latest) => {
                instants.iter().map(|at| Ok(Seen::Kept(latest.at(&window, *at)?, window.window(*at)))).collect()
            }
            Self::Preceding(preceding) => {
                instants.iter().map(|at| Ok(Seen::Bounded(preceding.at(&window, *at)?))).collect()
            }
            Self::Counted(counted) => {
                let seen = instants.iter().map(|at| counted.at(&window, *at));
                seen.map(|seen| seen.map(|(rows, extent)| Seen::Kept(rows, extent))).collect()
            }
            Self::Sessions(sessions) => Ok(sessions.take(&instants)?.into_iter().map(Seen::Bounded).collect()),
            Self::Aggregate { shards, .. } => {
                let of_shards = for_each(shards, |_| {
                    let instants = instants.clone();
                    move |shard: &mut Shard| {
                        instants.iter().map(|instant| shard.window_state(*instant)).collect::<Result<Vec<_>>>()
                    }
                })
                .await?;
                let mut of_shards: Vec<_> = of_shards.into_iter().map(Vec::into_iter).collect();
                let seen = instants.iter().map(|at| {
                    Seen::States(of_shards.iter_mut().filter_map(Iterator::next).collect(), window.window(*at))
                });
                Ok(seen.collect())
            }
        }
    }

    /// What the windows at `instants` hold so far, which are open still or have been evaluated before.
    pub(super) fn again(&self, window: &WindowSpec, instants: &[EventTime]) -> Result<Vec<Seen>> {
        let seen = instants.iter().map(|at| {
            let extent = window.window(*at);
            Ok(match self {
                Self::Rows(store) => Seen::Stored(store.visible(window, *at), extent),
                Self::Aggregate { shards, .. } => {
                    Seen::States(shards.iter().map(|shard| shard.visible(*at)).collect::<Result<_>>()?, extent)
                }
                Self::Latest(_) | Self::Counted(_) | Self::Preceding(_) | Self::Sessions(_) => {
                    return Err(Error::internal("a window that selects rows is looked at twice"));
                }
            })
        });
        seen.collect()
    }

    /// Passes the instants up to `limit`, whose results were made before.
    pub(super) fn pass(&mut self, window: &WindowSpec, limit: EventTime) -> Result<()> {
        let sessions = match self {
            Self::Sessions(sessions) => sessions,
            Self::Counted(counted) => return counted.pass(window, limit),
            // What comes up to now is not new to the next instant.
            Self::Preceding(preceding) => return preceding.at(window, limit).map(drop),
            Self::Aggregate { .. } | Self::Rows(_) | Self::Latest(_) => return Ok(()),
        };
        let mut ended = Vec::new();
        let mut after = EventTime(i64::MIN);
        while let Some(end) = sessions.next_end(after).filter(|end| *end <= limit) {
            ended.push(end);
            after = end;
        }
        sessions.take(&ended)?;
        Ok(())
    }

    /// Spreads the key partitions over all tasks once windows have grown large; waits where state on disk finds no room
    /// there.
    pub(super) async fn spread(&mut self, options: &StageOptions) -> Result<()> {
        let Self::Aggregate { router, shards, .. } = self else { return Ok(()) };
        if shards.len() > 1 || options.tasks <= 1 || router.key_columns == 0 {
            return Ok(());
        }
        if !shards.iter().any(|shard| shard.is_large(options.shared_rows)) {
            return Ok(());
        }
        router.shards = u32::try_from(options.tasks).unwrap_or(1);
        if let Some(whole) = shards.pop() {
            *shards = split(whole, *router).await?;
        }
        Ok(())
    }

    /// Drops panes before `first`.
    pub(super) fn evict(&mut self, first: Pane) {
        match self {
            Self::Rows(store) => store.evict(first),
            Self::Aggregate { shards, .. } => shards.iter_mut().for_each(|shard| shard.evict(first)),
            // Their rows go when others come, or with their session.
            Self::Latest(_) | Self::Counted(_) | Self::Preceding(_) | Self::Sessions(_) => {}
        }
    }

    /// Takes the panes before `end` together, where rows go when others come: all of them have been passed.
    pub(super) fn settle(&mut self, end: Pane) -> Result<()> {
        match self {
            Self::Counted(counted) => counted.settle(end),
            _ => Ok(()),
        }
    }

    /// Writes state to disk until at least `bytes` of memory are free or nothing is left in it.
    pub(super) async fn spill(&mut self, bytes: usize, memory: &Arc<StateMemory>) -> Result<()> {
        match self {
            Self::Aggregate { shards, .. } => {
                let share = bytes.div_ceil(shards.len().max(1));
                for_each(shards, |_| move |shard: &mut Shard| shard.spill(share)).await?;
                Ok(())
            }
            Self::Rows(_) | Self::Latest(_) | Self::Counted(_) | Self::Preceding(_) | Self::Sessions(_) => {
                let Some(store) = self.store() else { return Ok(()) };
                let (mut moved, memory) = (std::mem::take(store), Arc::clone(memory));
                let (back, ended) = blocking(move || {
                    let ended = moved.spill(bytes, &memory);
                    Ok((moved, ended))
                })
                .await?;
                if let Some(store) = self.store() {
                    *store = back;
                }
                ended
            }
        }
    }

    /// The rows by pane, where it keeps rows.
    pub(super) const fn store(&mut self) -> Option<&mut PaneStore> {
        match self {
            Self::Aggregate { .. } => None,
            Self::Rows(store) => Some(store),
            Self::Latest(latest) => Some(latest.panes()),
            Self::Counted(counted) => Some(counted.panes()),
            Self::Preceding(preceding) => Some(preceding.panes()),
            Self::Sessions(sessions) => Some(sessions.panes()),
        }
    }

    /// The first instant after `time` that its rows make, if it is they who do.
    pub(super) fn next_end(&self, window: &WindowSpec, time: EventTime) -> Option<EventTime> {
        match self {
            Self::Sessions(sessions) => sessions.next_end(time),
            Self::Counted(counted) => counted.next_end(window, time),
            _ => None,
        }
    }

    /// The last of these instants as known now.
    pub(super) fn last_end(&self, window: &WindowSpec) -> Option<EventTime> {
        match self {
            Self::Sessions(sessions) => sessions.last_end(),
            Self::Counted(counted) => counted.last_end(window),
            _ => None,
        }
    }

    /// Whether it shows what it last did until its next instant.
    pub(super) fn has_shown(&self) -> bool {
        matches!(self, Self::Counted(counted) if counted.has_shown())
    }

    pub(super) fn is_on_disk(&self) -> bool {
        match self {
            Self::Aggregate { shards, .. } => shards.iter().any(Shard::is_on_disk),
            Self::Rows(store) => store.is_on_disk(),
            Self::Latest(latest) => latest.is_on_disk(),
            Self::Counted(counted) => counted.is_on_disk(),
            Self::Preceding(preceding) => preceding.is_on_disk(),
            Self::Sessions(sessions) => sessions.is_on_disk(),
        }
    }

    pub(super) fn rows_read(&self) -> u64 {
        match self {
            Self::Aggregate { shards, .. } => shards.iter().map(|shard| shard.rows_read).sum(),
            _ => 0,
        }
    }

    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Aggregate { shards, .. } => shards.iter().map(Shard::bytes).sum(),
            Self::Rows(store) => store.bytes(),
            Self::Latest(latest) => latest.bytes(),
            Self::Counted(counted) => counted.bytes(),
            Self::Preceding(preceding) => preceding.bytes(),
            Self::Sessions(sessions) => sessions.bytes(),
        }
    }
}

/// Adds rows to a pane and tag, alone in their buffers.
fn add_rows(store: &mut PaneStore, (pane, tag): PaneTag, rows: Vec<RecordBatch>) -> Result<()> {
    let rows = rows.into_iter().map(without_waste).collect::<Result<Vec<_>>>()?;
    store.add(pane, tag, rows);
    if store.recent(pane, tag).len() < UNMERGED_ROW_BATCHES {
        return Ok(());
    }
    let batches = store.take_recent(pane, tag);
    if let Some(schema) = batches.first().map(RecordBatch::schema) {
        let whole = without_waste(concat_rows(&schema, &batches)?)?;
        store.put(pane, tag, vec![whole].into());
    }
    Ok(())
}

/// The same state as several shards; waits for room on a full disk.
async fn split(mut whole: Shard, router: KeyRouter) -> Result<Vec<Shard>> {
    let mut full_disk = FullDisk::new("the query, whose state is spread over all tasks,");
    let mut parts = whole.empty_parts(&router);
    loop {
        let (rest, moved, ended) = blocking(move || {
            let ended = whole.move_into(&mut parts, &router);
            Ok((whole, parts, ended))
        })
        .await?;
        match ended {
            Err(error) if error.is_disk_full() => full_disk.say(&error),
            ended => return ended.map(|()| moved),
        }
        (whole, parts) = (rest, moved);
        tokio::time::sleep(ROOM_PAUSE).await;
    }
}
