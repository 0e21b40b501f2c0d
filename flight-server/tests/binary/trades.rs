//! Real trades in windows of five minutes every minute, against an evaluation row by row that shares no code.

#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::collections::BTreeMap;

use super::process::{root, run, send_lines, serve};

const PLAIN: &str = "flight-server/tests/data/us-equity-trades-slice.csv";
const PACKED: &str = "flight-server/tests/data/us-equity-trades-slice.csv.gz";
const EXACT: &str = "DECIMAL(12,4)";
const APPROXIMATE: &str = "DOUBLE";
const INTERVALS: [&str; 3] = ["1ms", "100ms", "10s"];

/// What one window holds of one code; the value is in hundredths of a cent.
#[derive(Debug, Default, PartialEq, Eq)]
struct Sums {
    trades: i64,
    shares: i64,
    value: i128,
}

/// By window end, as it is printed, and code.
type Windows = BTreeMap<(String, String), Sums>;

fn slice() -> String {
    std::fs::read_to_string(root().join(PLAIN)).unwrap()
}

/// Puts each row into every window that it lies in: [end − 5 minutes, end), at every whole minute.
fn evaluate_row_by_row(csv: &str) -> Windows {
    const MINUTE: i64 = 60_000;
    let mut windows = Windows::new();
    for line in csv.lines().skip(1) {
        let fields: Vec<&str> = line.split(',').collect();
        let millis = milliseconds_of_day(fields[2]);
        let (shares, price): (i64, i128) = (fields[3].parse().unwrap(), ten_thousandths(fields[4]));
        for end in (0..24 * 60).filter(|end| end * MINUTE - 5 * MINUTE <= millis && millis < end * MINUTE) {
            let label = format!("2013-10-07T{:02}:{:02}:00", end / 60, end % 60);
            let sums = windows.entry((label, fields[0].to_owned())).or_default();
            sums.trades += 1;
            sums.shares += shares;
            sums.value += price * i128::from(shares);
        }
    }
    windows
}

/// Of `2013-10-07 09:30:17.731`; a whole second has no fraction.
fn milliseconds_of_day(timestamp: &str) -> i64 {
    let clock = timestamp.strip_prefix("2013-10-07 ").unwrap();
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, "0"));
    let seconds = clock.split(':').fold(0, |sum, part| sum * 60 + part.parse::<i64>().unwrap());
    seconds * 1_000 + format!("{fraction:0<3}").parse::<i64>().unwrap()
}

fn ten_thousandths(decimal: &str) -> i128 {
    let (whole, fraction) = decimal.split_once('.').unwrap_or((decimal, ""));
    format!("{whole}{fraction:0<4}").parse().unwrap()
}

fn query(price: &str, connector: &str) -> String {
    format!(
        "CREATE STREAM trades (
           szcode VARCHAR, venue VARCHAR, eventTime TIMESTAMP(3), Turnover BIGINT, Price {price},
           WATERMARK FOR eventTime AS eventTime
         ) WITH ({connector});
         SELECT window_end, szcode, COUNT(*) AS trades, SUM(Turnover) AS shares, SUM(Price*Turnover) AS value
         FROM trades [Range 5 minutes, Slide 1 minute]
         GROUP BY window_end, szcode"
    )
}

fn run_query(price: &str, connector: &str, interval: &str) -> String {
    run(&["run", "-e", &query(price, connector), "--format", "csv", "--batch-interval", interval]).silent()
}

/// Compares output with what each row says by itself; doubles may differ by one part in 10^12.
#[track_caller]
fn check(csv: &str, price: &str) {
    let mut expected = evaluate_row_by_row(&slice());
    assert!(expected.len() > 100, "the slice has {} windows", expected.len());
    assert_eq!(csv.lines().next(), Some("window_end,szcode,trades,shares,value"));
    for row in csv.lines().skip(1) {
        let fields: Vec<&str> = row.split(',').collect();
        let sums = expected.remove(&(fields[0].to_owned(), fields[1].to_owned()));
        let sums = sums.unwrap_or_else(|| panic!("{row} is no window, or comes twice"));
        assert_eq!((fields[2].parse(), fields[3].parse()), (Ok(sums.trades), Ok(sums.shares)), "{row}");
        if price == EXACT {
            assert_eq!(fields[4], format!("{}.{:04}", sums.value / 10_000, sums.value % 10_000), "{row}");
        } else {
            let (found, exact) = (fields[4].parse::<f64>().unwrap(), sums.value as f64 / 10_000.0);
            assert!((found - exact).abs() <= 1e-12 * exact.abs(), "{row} is not {exact}");
        }
    }
    assert!(expected.is_empty(), "not in the output: {expected:?}");
}

#[test]
fn decimal_prices_are_summed_exactly_at_every_batch_interval() {
    for interval in INTERVALS {
        check(&run_query(EXACT, &format!("connector = 'files', path = '{PLAIN}'"), interval), EXACT);
    }
}

#[test]
fn double_prices_are_summed_to_twelve_digits_at_every_batch_interval() {
    for interval in INTERVALS {
        check(&run_query(APPROXIMATE, &format!("connector = 'files', path = '{PLAIN}'"), interval), APPROXIMATE);
    }
}

#[test]
fn a_gzip_file_gives_the_same_as_the_plain_one() {
    for price in [EXACT, APPROXIMATE] {
        check(&run_query(price, &format!("connector = 'files', path = '{PACKED}'"), "100ms"), price);
    }
}

#[test]
fn lines_from_a_socket_give_the_same_as_the_file() {
    for interval in INTERVALS {
        let lines: String = slice().split_inclusive('\n').skip(1).collect();
        let (address, sending) = serve(move |client| send_lines(client, &lines));
        let connector = format!("connector = 'socket', address = '{address}', reconnect = 'false'");
        check(&run_query(EXACT, &connector, interval), EXACT);
        sending.join().unwrap();
    }
}
