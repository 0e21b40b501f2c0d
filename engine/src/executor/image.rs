//! Taking a stage's state out for a checkpoint, and putting it back.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::Arc;

use datafusion::arrow::datatypes::{Schema, SchemaRef};

use crate::checkpoint::{LeafImage, PaneEntry, PaneTag, StageImage};
use crate::error::{Error, Result};
use crate::executor::held::State;
use crate::executor::leaf::LeafState;
use crate::executor::shard::Shard;
use crate::executor::stage::Stage;
use crate::function::declarations_in;
use crate::plan::{Input, StreamDefinition};
use crate::program::{InputPlan, Kept, Shape};
use crate::state::{Batches, PaneStore};
use crate::time::EventTime;
use crate::window::Pane;

impl Stage {
    /// What this stage and its views hold, views first; the entries are those that changed since the last call.
    pub(crate) fn images(&mut self) -> Result<Vec<StageImage>> {
        let mut images = Vec::new();
        for view in &mut self.views {
            images.extend(view.stage.images()?);
            if let Some(image) = images.last_mut() {
                image.rows = view.rows;
            }
        }
        let calendars: Vec<Vec<PaneTag>> = self.calendars.iter().map(|calendar| calendar.entries().collect()).collect();
        let mut leaves = self.state.image(self.options.key_partitions);
        leaves.resize_with(calendars.len(), LeafImage::default);
        for (index, (leaf, calendar)) in leaves.iter_mut().zip(calendars).enumerate() {
            leaf.calendar = calendar;
            leaf.counts = self.counts.get(index).copied().unwrap_or_default();
            leaf.window = self.windows.get(index).copied();
        }
        leaves.extend(self.output.image());
        images.push(StageImage {
            contract: self.contract()?,
            evaluated: self.evaluated,
            rows: 0,
            is_done: matches!(self.state, State::Finite { plan: None }),
            leaves,
        });
        Ok(images)
    }

    /// Takes every entry as changed: the images since the last one put on disk were lost.
    pub(crate) fn forget_images(&mut self) {
        self.views.iter_mut().for_each(|view| view.stage.forget_images());
        match &mut self.state {
            State::Windows { leaves, .. } => leaves.iter_mut().for_each(LeafState::forget_image),
            State::Unbounded { state, .. } => state.partitions().forget_image(),
            State::Stateless { .. } | State::Finite { .. } => {}
        }
    }

    /// The contract of this stage and each of its views, views first, with the columns of each leaf's state.
    pub(crate) fn contracts(&self) -> Result<Vec<(String, Vec<SchemaRef>)>> {
        let mut contracts = Vec::new();
        for view in &self.views {
            contracts.extend(view.stage.contracts()?);
        }
        contracts.push((self.contract()?, self.state_schemas()?));
        Ok(contracts)
    }

    /// Puts back what [`Stage::images`] took out, with every entry; how many rows a view had given.
    ///
    /// # Errors
    /// Fails if there are more or fewer images than stages; their contracts must have been compared.
    pub(crate) fn put_back(&mut self, images: &mut dyn Iterator<Item = StageImage>) -> Result<u64> {
        for view in &mut self.views {
            view.rows = view.stage.put_back(images)?;
        }
        let mut image = images.next().ok_or_else(|| Error::internal("a checkpoint has too few stages"))?;
        if self.output.has_history() && image.leaves.len() > self.calendars.len() {
            image.leaves.pop().map_or(Ok(()), |given| self.output.put_back(given))?;
        }
        self.evaluated = image.evaluated;
        for (calendar, leaf) in self.calendars.iter_mut().zip(&image.leaves) {
            leaf.calendar.iter().for_each(|(pane, tag)| calendar.note(*pane, *tag));
        }
        for (counts, leaf) in self.counts.iter_mut().zip(&image.leaves) {
            *counts = leaf.counts;
        }
        if let (true, State::Finite { plan }) = (image.is_done, &mut self.state) {
            *plan = None;
        }
        for (index, leaf) in image.leaves.into_iter().enumerate() {
            self.state.put_back(index, leaf.entries)?;
        }
        self.touch_all();
        // What was put back is in a checkpoint already.
        self.state.image(self.options.key_partitions);
        Ok(image.rows)
    }

    /// All that decides what the state means: streams, windows, the plans that make it, its columns.
    fn contract(&self) -> Result<String> {
        let mut text = String::new();
        for input in &self.program.inputs {
            match input.table().input() {
                Input::Stream(stream) => text.push_str(&stream_contract(stream)),
                Input::View(view) => {
                    // What the view gives is what this state is made of, to its last expression.
                    push_line(&mut text, &format!("view {}", view.name));
                    view.query.display_indent().to_string().lines().for_each(|line| push_line(&mut text, line));
                    declarations_in(&view.query)?.iter().for_each(|declared| push_line(&mut text, declared));
                }
            }
            push_line(&mut text, &format!("scan {}", input.table().scan_name()));
            input.head.display().iter().for_each(|line| push_line(&mut text, line));
        }
        match &self.program.shape {
            Shape::Windows(_) => self.program.inputs.iter().for_each(|input| text.push_str(&kept_text(&input.keeps))),
            Shape::Unbounded(plans, _) => text.push_str(&format!("state of all groups\n{}", plans.display()[0])),
            Shape::Stateless(_) => text.push_str("no state\n"),
            Shape::Finite(plan) => text.push_str(&plan.display()),
        }
        for input in &self.program.inputs {
            if let Kept::Aggregate(plans) = &input.keeps {
                plans.arguments().iter().for_each(|argument| push_line(&mut text, argument));
                plans.declarations().iter().for_each(|declared| push_line(&mut text, declared));
            }
        }
        if let Some(outer) = &self.program.outer {
            outer.display().lines().for_each(|line| push_line(&mut text, line));
        }
        if self.output.has_history() {
            push_line(&mut text, &format!("emit {:?}", self.output.emission));
        }
        for schema in self.state_schemas()? {
            push_line(&mut text, &columns(&schema));
        }
        Ok(text)
    }

    /// The columns of each leaf's state.
    fn state_schemas(&self) -> Result<Vec<SchemaRef>> {
        match &self.program.shape {
            Shape::Windows(_) | Shape::Unbounded(..) => {
                let mut schemas: Vec<_> =
                    self.program.inputs.iter().map(InputPlan::state_schema).collect::<Result<_>>()?;
                if self.output.has_history() {
                    schemas.push(Arc::clone(&self.program.schema));
                }
                Ok(schemas)
            }
            Shape::Stateless(_) | Shape::Finite(_) => Ok(Vec::new()),
        }
    }
}

/// What the panes of a leaf keep, in words.
fn kept_text(kept: &Kept) -> String {
    match kept {
        Kept::Aggregate(plans) => format!("state by pane\n{}", plans.display()[0]),
        Kept::Rows => "state of rows\n".to_owned(),
    }
}

fn push_line(text: &mut String, line: &str) {
    text.push_str(line.trim_end());
    text.push('\n');
}

fn columns(schema: &Schema) -> String {
    let fields = schema.fields().iter().map(|field| format!("{} {}", field.name(), field.data_type()));
    format!("columns {}", fields.collect::<Vec<_>>().join(", "))
}

/// All of a stream's declaration that decides which rows it has and when they are late.
pub(crate) fn stream_contract(stream: &StreamDefinition) -> String {
    let mut text = format!("stream {}\n{}\n", stream.name, columns(&stream.schema));
    match &stream.event_time {
        Some(rule) => {
            let column = stream.schema.fields().get(rule.column).map_or("?", |field| field.name().as_str());
            // Writing to a String does not fail.
            let _ = writeln!(text, "watermark for {column} as {column} - {}", rule.delay);
            if let Some(skew) = rule.max_future_skew {
                let _ = writeln!(text, "max_future_skew {skew}");
            }
        }
        None => text.push_str("event time is arrival time\n"),
    }
    let mut options: Vec<_> = stream.options.iter().filter(|option| is_meaning(&option.key)).collect();
    options.sort_by(|a, b| a.key.cmp(&b.key));
    for option in options {
        let _ = match &option.secret {
            // The text of a secret may change, and is not for every eye.
            Some(secret) => writeln!(text, "{} = SECRET {secret}", option.key),
            None => writeln!(text, "{} = {}", option.key, option.value),
        };
    }
    text
}

/// Whether an option decides which rows a stream has, and not only how they come or are kept.
fn is_meaning(option: &str) -> bool {
    !["rate", "rate_limit", "refresh_interval", "reconnect", "watch_interval", "durability", "bad_data"]
        .contains(&option)
}

impl State {
    /// What each leaf holds, so far as the state knows it.
    fn image(&mut self, key_partitions: u32) -> Vec<LeafImage> {
        match self {
            Self::Windows { leaves, .. } => leaves.iter_mut().map(|leaf| leaf.image(key_partitions)).collect(),
            Self::Unbounded { state, .. } => {
                let key_columns = state.router().key_columns;
                vec![LeafImage { key_columns, key_partitions, ..store_image(state.partitions()) }]
            }
            Self::Stateless { .. } | Self::Finite { .. } => Vec::new(),
        }
    }

    fn put_back(&mut self, leaf: usize, entries: Vec<PaneEntry>) -> Result<()> {
        for PaneEntry { pane, tag, state: batches } in entries {
            match self {
                Self::Windows { leaves, .. } => {
                    let leaf = leaves.get_mut(leaf).ok_or_else(|| Error::internal("no such leaf"))?;
                    leaf.put_back(pane, tag, batches)?;
                }
                Self::Unbounded { state, .. } => state.partitions().put(pane, tag, batches),
                Self::Stateless { .. } | Self::Finite { .. } => {
                    return Err(Error::internal("a query without state was given some"));
                }
            }
        }
        Ok(())
    }
}

impl LeafState {
    fn image(&mut self, key_partitions: u32) -> LeafImage {
        match self {
            Self::Aggregate { shards, router, .. } => {
                LeafImage { key_columns: router.key_columns, key_partitions, ..shards_image(shards) }
            }
            Self::Rows(_) | Self::Latest(_) | Self::Counted(_) | Self::Preceding(_) | Self::Sessions(_) => {
                let image = self.store().map(store_image).unwrap_or_default();
                LeafImage { key_partitions, ..image }
            }
        }
    }

    fn forget_image(&mut self) {
        match self {
            Self::Aggregate { shards, .. } => shards.iter_mut().for_each(|shard| shard.panes().forget_image()),
            Self::Rows(_) | Self::Latest(_) | Self::Counted(_) | Self::Preceding(_) | Self::Sessions(_) => {
                if let Some(store) = self.store() {
                    store.forget_image();
                }
            }
        }
    }

    fn put_back(&mut self, pane: Pane, tag: EventTime, batches: Batches) -> Result<()> {
        match self {
            Self::Aggregate { shards, .. } => {
                let shard = shards.first_mut().ok_or_else(|| Error::internal("an aggregate has no shard"))?;
                shard.put(pane, tag, batches);
            }
            Self::Sessions(sessions) => {
                sessions.note(&batches.read()?)?;
                sessions.panes().put(pane, tag, batches);
            }
            Self::Rows(_) | Self::Latest(_) | Self::Counted(_) | Self::Preceding(_) => {
                if let Some(store) = self.store() {
                    store.put(pane, tag, batches);
                }
            }
        }
        Ok(())
    }
}

/// The image of all shards. An entry that changed in one of them is taken from all: its file replaces the one before.
fn shards_image(shards: &mut [Shard]) -> LeafImage {
    let mut live = BTreeSet::new();
    let mut changed = BTreeSet::new();
    for shard in shards.iter_mut() {
        let (entries, new) = shard.panes().image();
        live.extend(entries);
        changed.extend(new.into_iter().map(|entry| (entry.pane, entry.tag)));
    }
    let entries = changed.into_iter().map(|(pane, tag)| {
        let mut state = Batches::default();
        shards
            .iter_mut()
            .filter_map(|shard| shard.panes().entry(pane, tag))
            .for_each(|part| state.append(part.clone()));
        PaneEntry { pane, tag, state }
    });
    let entries = entries.collect();
    LeafImage { live: live.into_iter().collect(), entries, ..LeafImage::default() }
}

fn store_image(store: &mut PaneStore) -> LeafImage {
    let (live, entries) = store.image();
    LeafImage { live, entries, ..LeafImage::default() }
}
