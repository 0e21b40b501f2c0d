//! Random streams and the windows over them, as text and as what the windows hold by definition.

use rand::Rng;
use rand::rngs::StdRng;

use crate::expression::{Scope, Type};
use crate::oracle::batch::Relation;
use crate::oracle::generate::{Shape, random_log};
use crate::oracle::kinds::Kind;
use crate::oracle::{Log, Window};

/// Nanoseconds in a tick; logs have times of whole milliseconds.
const TICK: i64 = 1_000_000;

/// The columns of a stream.
const STREAM: [(&str, Type); 9] = [
    ("p", Type::Integer),
    ("o", Type::Integer),
    ("k", Type::Text),
    ("g", Type::Integer),
    ("i", Type::Integer),
    ("d", Type::Decimal),
    ("f", Type::Double),
    ("ts", Type::Time),
    ("window_end", Type::Time),
];

/// The columns of a view.
const VIEW: [(&str, Type); 5] =
    [("k", Type::Text), ("g", Type::Integer), ("i", Type::Integer), ("d", Type::Decimal), ("window_end", Type::Time)];

/// A window over a stream or view.
#[derive(Debug, Clone)]
pub(crate) struct Windowed {
    /// As it stands behind FROM: `s0 [Range 9 ms, Slide 3 ms]`.
    pub(crate) text: String,
    /// The same for the batch query.
    pub(crate) relation: Relation,
    columns: Vec<(&'static str, Type)>,
    /// Whether it has no window.
    is_endless: bool,
}

impl Windowed {
    /// Its columns under an alias.
    pub(crate) fn scope(&self, alias: &str) -> Scope {
        Scope::of_relation(alias, &self.columns)
    }

    /// The columns, all of them, that make a row of it unlike every other.
    pub(crate) fn identity(&self) -> Vec<&'static str> {
        let is_stream = self.columns.len() > VIEW.len();
        if is_stream { vec!["p", "o"] } else { self.columns.iter().map(|(name, _)| *name).collect() }
    }

    /// The stream of that name without a window, and so without bounds of one.
    pub(crate) fn without_window(&self, stream: &str) -> Self {
        let columns = self.columns.iter().filter(|(name, _)| !name.starts_with("window")).copied().collect();
        Self { text: stream.to_owned(), relation: self.relation.clone(), columns, is_endless: true }
    }
}

/// What a query reads.
#[derive(Debug, Clone)]
pub(crate) struct Inputs {
    pub(crate) logs: Vec<Log>,
    /// The statements that create its views.
    pub(crate) views: Vec<String>,
    /// One or two of them.
    pub(crate) windowed: Vec<Windowed>,
}

impl Inputs {
    /// Whether a query may read its windows only once.
    pub(crate) fn is_read_once(&self) -> bool {
        self.windowed.iter().any(|windowed| windowed.is_endless || windowed.relation.window.kind == Kind::Session)
    }

    /// Random logs of one or two streams and windows over them.
    pub(crate) async fn random(rng: &mut StdRng) -> Self {
        let count = if rng.random_bool(0.4) { 2 } else { 1 };
        let streams = if count == 2 && rng.random_bool(0.6) { 2 } else { 1 };
        let rows = if count == 2 { 32 } else { 48 };
        let shape = Shape { rows, partitions: 2, idles: streams == 1, tick: TICK, ..Shape::default() };
        let logs: Vec<_> = (0..streams).map(|number| random_log(&format!("s{number}"), &shape, rng)).collect();
        let mut inputs = Self { logs, views: Vec::new(), windowed: Vec::new() };
        for number in 0..count {
            let log = inputs.logs[number % streams].clone();
            let windowed = if rng.random_bool(0.2) {
                inputs.over_view(number, count == 1, &log, rng).await
            } else {
                let window = random_window(count == 1, rng);
                over_stream(&format!("t{number}"), &log, window, rng)
            };
            inputs.windowed.push(windowed);
        }
        inputs
    }

    /// A window over each of as many streams: `s0`, `s1` and so on.
    pub(crate) fn over_streams(windows: &[Window], rng: &mut StdRng) -> Self {
        let shape = Shape { rows: 40, partitions: 2, idles: false, tick: TICK, ..Shape::default() };
        let mut inputs = Self { logs: Vec::new(), views: Vec::new(), windowed: Vec::new() };
        for (number, window) in windows.iter().enumerate() {
            let log = random_log(&format!("s{number}"), &shape, rng);
            inputs.windowed.push(over_stream(&format!("t{number}"), &log, window.times(TICK), rng));
            inputs.logs.push(log);
        }
        inputs
    }

    /// A window over a view of a windowed query.
    async fn over_view(&mut self, number: usize, is_alone: bool, log: &Log, rng: &mut StdRng) -> Windowed {
        let name = format!("v{number}");
        let inner = over_stream("t", log, random_window(true, rng), rng);
        let is_grouped = rng.random_bool(0.6);
        let query = if is_grouped {
            "SELECT a.window_end, a.k, COUNT(*) AS g, SUM(a.i) AS i, MAX(a.d) AS d FROM @ AS a GROUP BY a.window_end, a.k"
                .to_owned()
        } else {
            let condition = inner.scope("a").condition(1, rng);
            format!("SELECT a.window_end, a.k, a.g, a.i, a.d FROM @ AS a WHERE {condition}")
        };
        self.views.push(format!("CREATE VIEW {name} AS {}", query.replace('@', &inner.text)));
        // Which of several rows of one instant is the latest is not for a batch to say: keys make it one, if rows are
        // not counted besides.
        let window = loop {
            let window = random_window(is_alone, rng);
            let is_latest = matches!(window.kind, Kind::Latest(_) | Kind::LatestByRow(_));
            let is_counted = matches!(window.kind, Kind::Counted(..));
            if !is_counted && (!is_latest || (is_grouped && window.is_keyed)) {
                break window;
            }
        };
        let text = spelling(&name, "window_end", &window, rng);
        let query = query.replace('@', "t");
        let relation = Relation::of_view(&format!("t{number}"), &name, &query, &[inner.relation], window).await;
        Windowed { text, relation, columns: VIEW.to_vec(), is_endless: false }
    }
}

fn over_stream(table: &str, log: &Log, window: Window, rng: &mut StdRng) -> Windowed {
    let mut columns = STREAM.to_vec();
    if !matches!(window.kind, Kind::Latest(_) | Kind::LatestByRow(_) | Kind::Counted(..)) {
        columns.push(("window_start", Type::Time));
    }
    let relation = Relation::of_stream(table, log, &log.replay(), window);
    Windowed { text: spelling(&log.name, "ts", &window, rng), relation, columns, is_endless: false }
}

/// A window of any kind; lengths are nanoseconds.
fn random_window(allows_session: bool, rng: &mut StdRng) -> Window {
    let window = match rng.random_range(0..20) {
        0..8 => {
            let window = random_sliding(rng);
            if rng.random_bool(0.3) { window.closed_right() } else { window }
        }
        8..10 => {
            let step = rng.random_range(1..6);
            Window::new(step * rng.random_range(2..6), step).kind(Kind::Cumulating)
        }
        10..12 => Window::new(rng.random_range(1..16), 1).kind(Kind::ByRow),
        12 => return Window::new(1, 1).kind(Kind::ByRow),
        13 | 14 => {
            let slide = rng.random_range(2..9);
            keyed(Window::new(slide, slide).kind(Kind::Latest(rng.random_range(1..5))), rng)
        }
        15 | 16 => return keyed(Window::new(1, 1).kind(Kind::LatestByRow(rng.random_range(1..5))), rng),
        17 => {
            let (rows, slide) = (rng.random_range(1..9), rng.random_range(1..7));
            return Window::new(1, 1).kind(Kind::Counted(rows, slide));
        }
        18 if allows_session => keyed(Window::new(rng.random_range(1..6), 1).kind(Kind::Session), rng),
        _ => random_sliding(rng),
    };
    let has_offset = matches!(window.kind, Kind::Sliding | Kind::Cumulating | Kind::Latest(_));
    let window = if has_offset && rng.random_bool(0.3) { window.offset(rng.random_range(-5..6)) } else { window };
    window.times(TICK)
}

fn random_sliding(rng: &mut StdRng) -> Window {
    let slide = rng.random_range(2..10);
    match rng.random_range(0..3) {
        0 => Window::new(slide, slide),
        1 => Window::new(slide * rng.random_range(1..5), slide),
        _ => Window::new(rng.random_range(1..24), slide),
    }
}

fn keyed(window: Window, rng: &mut StdRng) -> Window {
    if rng.random_bool(0.7) { window.keyed() } else { window }
}

/// The window in one of its spellings.
fn spelling(name: &str, time: &str, window: &Window, rng: &mut StdRng) -> String {
    let as_function = rng.random_bool(0.3);
    let range_is_longer = window.range >= window.slide;
    let (range, slide) = (duration(window.range), duration(window.slide));
    let input = format!("TABLE {name}, DESCRIPTOR({time})");
    let keys = if window.is_keyed { "Partition By k " } else { "" };
    let moved = if window.offset == 0 { String::new() } else { format!(", {}", duration(window.offset)) };
    let mut rest = if window.offset == 0 { String::new() } else { format!(", Offset {}", duration(window.offset)) };
    if window.closed_right {
        rest.push_str(", Closed Right");
    }
    match window.kind {
        Kind::Sliding if as_function && !window.closed_right && range == slide => {
            format!("TUMBLE({input}, {range}{moved})")
        }
        // Longer slides than ranges are taken for a mistake there.
        Kind::Sliding if as_function && !window.closed_right && range_is_longer => {
            format!("HOP({input}, {slide}, {range}{moved})")
        }
        Kind::Sliding => format!("{name} [Range {range}, Slide {slide}{rest}]"),
        Kind::Cumulating => format!("CUMULATE({input}, {slide}, {range}{moved})"),
        Kind::ByRow if window.range == 1 => format!("{name} [Now]"),
        Kind::ByRow => format!("{name} [Range {range}]"),
        Kind::Latest(rows) => format!("{name} [{keys}Rows {rows}, Slide {slide}{rest}]"),
        Kind::LatestByRow(rows) => format!("{name} [{keys}Rows {rows}]"),
        Kind::Counted(rows, slide) => format!("{name} [Rows {rows}, Slide {slide}]"),
        Kind::Session if as_function && window.is_keyed => {
            format!("SESSION(TABLE {name} PARTITION BY k, DESCRIPTOR({time}), {range})")
        }
        Kind::Session => format!("{name} [Session Gap {range} {}]", keys.trim_end()),
    }
}

fn duration(nanoseconds: i64) -> String {
    format!("{} ms", nanoseconds / TICK)
}
