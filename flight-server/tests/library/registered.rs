//! Functions that a Rust program brings: they run in windows, row by row and below aggregates.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, AsArray};
use datafusion::arrow::datatypes::{DataType, Int64Type};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::{Accumulator, ColumnarValue, Volatility, create_udaf, create_udf};
use millstream::cli::Format;
use millstream::output::Output;
use millstream::screen::Screen;
use millstream::session::{Mode, Script, Session};

/// The bits of all numbers together.
#[derive(Debug, Default)]
struct Bits(i64);

impl Accumulator for Bits {
    fn update_batch(&mut self, values: &[ArrayRef]) -> datafusion::error::Result<()> {
        self.0 = values[0].as_primitive::<Int64Type>().iter().flatten().fold(self.0, |bits, value| bits | value);
        Ok(())
    }

    fn evaluate(&mut self) -> datafusion::error::Result<ScalarValue> {
        Ok(ScalarValue::Int64(Some(self.0)))
    }

    fn size(&self) -> usize {
        size_of::<Self>()
    }

    fn state(&mut self) -> datafusion::error::Result<Vec<ScalarValue>> {
        Ok(vec![self.evaluate()?])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> datafusion::error::Result<()> {
        self.update_batch(states)
    }
}

/// The rows of a script in a session that knows `cube` and `bits`, however its input is cut.
async fn rows(settings: &str, select: &str) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let (input, output) = (folder.path().join("in.csv"), folder.path().join("out.csv"));
    let lines: String = (0..12).map(|number| format!("2024-01-01T00:00:{number:02},{number}\n")).collect();
    std::fs::write(&input, format!("ts,n\n{lines}")).unwrap();
    let screen = Screen::new();
    let (_stop, stopped) = tokio::sync::watch::channel(false);
    let sink = Output::new(Format::Csv, Some(&output), screen.clone()).unwrap();
    let mut session = Session::new(sink, screen, stopped, Mode::Run);
    let cube = Arc::new(|arguments: &[ColumnarValue]| {
        let numbers = arguments[0].to_array(1)?;
        let cubes = numbers.as_primitive::<Int64Type>().unary::<_, Int64Type>(|number| number * number * number);
        Ok(ColumnarValue::Array(Arc::new(cubes) as Arc<_>))
    });
    session.register_function(create_udf("cube", vec![DataType::Int64], DataType::Int64, Volatility::Immutable, cube));
    let state = Arc::new(vec![DataType::Int64]);
    let make = Arc::new(|_: datafusion::logical_expr::function::AccumulatorArgs<'_>| {
        Ok(Box::new(Bits::default()) as Box<dyn Accumulator>)
    });
    let bits =
        create_udaf("bits", vec![DataType::Int64], Arc::new(DataType::Int64), Volatility::Immutable, make, state);
    session.register_aggregate(bits);
    let stream = format!(
        "CREATE STREAM s (ts TIMESTAMP(3), n BIGINT, WATERMARK FOR ts AS ts)
         WITH (connector = 'files', path = '{}');",
        input.display()
    );
    let script = Script::new("test", &[settings, &stream, select].concat());
    session.run(&script).await.unwrap();
    drop(session);
    let text = std::fs::read_to_string(output).unwrap();
    let mut rows: Vec<String> = text.lines().skip(1).map(str::to_owned).collect();
    rows.sort_unstable();
    rows
}

#[tokio::test(flavor = "multi_thread")]
async fn rust_functions_work_in_every_plan() {
    let cuts =
        ["", "SET batch_rows = 1; SET batch_interval = '1 ms';", "SET batch_rows = 5; SET batch_interval = '1 ms';"];
    for settings in cuts {
        let passing = "SELECT cube(n) AS c FROM s WHERE cube(n) BETWEEN 20 AND 100";
        assert_eq!(rows(settings, passing).await, ["27", "64"]);
        let windowed =
            "SELECT window_end, bits(n) AS b, sum(cube(n)) AS c FROM s [Range 6 s, Slide 6 s] GROUP BY window_end";
        let expected = ["2024-01-01T00:00:06,7,225", "2024-01-01T00:00:12,15,4131"];
        assert_eq!(rows(settings, windowed).await, expected);
        let through = "CREATE FUNCTION odd_cube(n BIGINT) RETURNS BIGINT AS CASE WHEN n % 2 = 1 THEN cube(n) END;
                       SELECT n % 3 AS k, bits(odd_cube(n)) AS b FROM s [Range 6 s, Slide 6 s] WHERE n < 6 GROUP BY n % 3";
        assert_eq!(rows(settings, through).await, ["0,27", "1,1", "2,125"]);
    }
    let unbounded = rows("", "SELECT bits(n) AS b FROM s").await;
    assert_eq!(unbounded.last().map(String::as_str), Some("15"));
}
