//! One text over a stream and over its history.

use super::process::{Folder, rows, run};

const QUERY: &str = "SELECT window_end, szcode, COUNT(*) AS n, SUM(turnover) AS volume FROM transaction \
                     [Range 2 minutes, Slide 1 minute] GROUP BY window_end, szcode";

#[test]
fn a_query_over_parquet_files_in_any_order_gives_the_rows_of_the_stream() {
    let folder = Folder::new();
    let schema = "queries/stock/small/schema.sql";
    let history = folder.path("history");
    let write = format!(
        "CREATE SINK h WITH (connector = 'files', path = '{history}', format = 'parquet');
         INSERT INTO h SELECT * FROM transaction ORDER BY turnover"
    );
    // A sorted copy has to be made of a table: streams have no order but that of their time.
    let table = "CREATE TABLE transaction (szcode VARCHAR, userID VARCHAR, eventTime TIMESTAMP(3), Turnover BIGINT, \
                 Price DOUBLE) WITH (connector = 'files', path = 'queries/stock/small/transaction.csv');";
    run(&["run", "-e", &format!("{table}{write}")]).silent();
    let late_never = "queries/stock/small/schema.sql";
    let live = run(&["run", schema, "-e", QUERY, "--format", "csv"]);
    let files = format!("transaction={history}/*.parquet");
    let past = run(&["run", late_never, "-e", QUERY, "--format", "csv", "--table", &files]);
    past.check();
    let (live, past) = (live.stdout, past.silent());
    assert_eq!(rows(&past), rows(&live));
    assert!(rows(&live).len() > 10, "{live}");
}

#[test]
fn files_for_a_stream_that_is_not_there_are_refused() {
    let finished = run(&["run", "-e", "SELECT 1", "--table", "trades=x.parquet"]);
    finished.check_error(2, &["no stream \"trades\" is declared"]);
}
