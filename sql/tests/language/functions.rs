//! Functions and aggregates declared in SQL: what is accepted, and what calls of them become.

use datafusion::arrow::util::pretty::pretty_format_batches;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::{Expr, LogicalPlan};
use millstream_sql::{Session, Statement};

use crate::{query, run, session};

const WAVG: &str = "CREATE AGGREGATE wavg(v DOUBLE, w DOUBLE) RETURNS DOUBLE (
  STATE (s DOUBLE = 0, n DOUBLE = 0), UPDATE (s + v * w, n + w), MERGE (s + other.s, n + other.n),
  INVERSE (s - v * w, n - w), FINISH s / NULLIF(n, 0))";

fn declared(text: &str) -> Session {
    let mut session = session();
    run(&mut session, text).unwrap_or_else(|error| panic!("{}", error.render(text)));
    session
}

/// The plan of a query in one line, without the names of columns.
fn plan(session: &Session, text: &str) -> String {
    plan_text(&query(session, text).logical)
}

fn plan_text(plan: &LogicalPlan) -> String {
    plan.display_indent().to_string().lines().map(str::trim).collect::<Vec<_>>().join(" < ")
}

/// The functions that a plan calls and DataFusion does not have.
fn calls(plan: &LogicalPlan) -> Vec<String> {
    let known = Session::new();
    let mut calls = Vec::new();
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expression| {
            expression.apply(|expression| {
                if let Expr::ScalarFunction(call) = expression
                    && !known.state().scalar_functions().contains_key(call.func.name())
                {
                    calls.push(call.func.name().to_owned());
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })
    .unwrap();
    calls
}

#[test]
fn every_spelling_of_a_function_is_the_same() {
    let spellings = [
        "CREATE FUNCTION value(price DOUBLE, shares BIGINT) RETURNS DOUBLE AS price * shares",
        "create or replace function VALUE(Price double precision, Shares bigint) returns double as Price * Shares",
        "CREATE FUNCTION IF NOT EXISTS value(price DOUBLE, shares BIGINT) RETURNS DOUBLE RETURN price * shares",
        "CREATE FUNCTION value(price DOUBLE, shares BIGINT) RETURNS DOUBLE LANGUAGE SQL RETURN price * shares",
        "CREATE FUNCTION value(price DOUBLE, shares BIGINT) RETURNS DOUBLE AS $$ price * shares $$",
        "CREATE FUNCTION value(price DOUBLE, shares BIGINT) RETURNS DOUBLE AS $x$ SELECT price * shares; $x$ LANGUAGE SQL",
        "CREATE FUNCTION value(price DOUBLE, shares BIGINT) RETURNS DOUBLE LANGUAGE SQL AS 'SELECT price * shares'",
        "CREATE FUNCTION value(price DOUBLE, shares BIGINT) RETURNS DOUBLE AS 'price * shares' LANGUAGE SQL",
    ];
    let expected = plan(&declared(spellings[0]), "SELECT value(Price, Turnover) AS x FROM transaction");
    assert!(expected.contains("transaction.price * "), "{expected}");
    for text in spellings {
        let session = declared(text);
        let definition = session.catalog().function("value").unwrap();
        assert_eq!(definition.signature(), "value(price DOUBLE, shares BIGINT) RETURNS DOUBLE", "{text}");
        assert_eq!(plan(&session, "SELECT value(Price, Turnover) AS x FROM transaction"), expected, "{text}");
    }
}

#[test]
fn calls_are_replaced_by_expressions_under_their_names() {
    let session = declared(
        "CREATE FUNCTION twice(x DOUBLE) RETURNS DOUBLE AS x + x;
         CREATE FUNCTION label(code VARCHAR, high BOOLEAN) RETURNS VARCHAR AS code || CASE WHEN high THEN '+' ELSE '' END;
         CREATE FUNCTION pi2() RETURNS DOUBLE AS 6.28;
         CREATE FUNCTION four_times(x DOUBLE) RETURNS DOUBLE AS twice(twice(x));
         CREATE FUNCTION small(n INT) RETURNS SMALLINT AS n;
         CREATE FUNCTION since(t TIMESTAMP) RETURNS BIGINT AS CAST(t AS BIGINT)",
    );
    for text in [
        "SELECT twice(lastPrice), twice(x => 1), pi2(), small(7), since('2024-01-01'), since(eventTime) FROM stock",
        "SELECT szcode FROM stock WHERE four_times(lastPrice) > 100 AND label(szcode, true) LIKE 'a%'",
        "SELECT twice(lastPrice), count(*) FROM stock GROUP BY twice(lastPrice) HAVING max(twice(lastPrice)) > 3",
        "SELECT label(szcode, max(lastPrice) > 3), sum(twice(lastPrice)) AS s FROM stock [Range 9 s, Slide 3 s]
         GROUP BY szcode ORDER BY sum(twice(lastPrice)) DESC LIMIT 3",
        "SELECT twice(lastPrice), count(*) FROM stock [Range 9 s, Slide 3 s] GROUP BY ROLLUP (twice(lastPrice))",
        "SELECT s.szcode FROM stock s JOIN codes c ON label(s.szcode, false) = label(c.szcode, true)",
        "SELECT rank() OVER (PARTITION BY twice(lastPrice) ORDER BY four_times(lastPrice)) FROM stock [Range 9 s, Slide 3 s]",
        "SELECT szcode FROM stock WHERE szcode IN (SELECT label(name, true) FROM codes WHERE twice(1) > 1)",
        "SELECT label(a, b) FROM (VALUES ('x', true)) AS v(a, b) UNION ALL SELECT label('y', NULL)",
        "SELECT DISTINCT twice(lastPrice) FROM stock",
    ] {
        assert_eq!(calls(&query(&session, text).logical), Vec::<String>::new(), "{text}");
    }
    let names = query(&session, "SELECT twice(lastPrice), four_times(1) AS y FROM stock").logical;
    let names: Vec<_> = names.schema().fields().iter().map(|field| field.name().clone()).collect();
    assert_eq!(names, ["twice(stock.lastprice)", "y"]);
}

#[test]
fn a_function_that_is_replaced_changes_those_that_call_it() {
    let mut session = declared(
        "CREATE FUNCTION rate() RETURNS DOUBLE AS 0.19;
         CREATE FUNCTION gross(x DOUBLE) RETURNS DOUBLE AS x * (1 + rate());
         CREATE VIEW priced AS SELECT gross(lastPrice) AS x FROM stock;
         CREATE AGGREGATE total(v DOUBLE) RETURNS DOUBLE
           (STATE (s DOUBLE = 0), UPDATE (s + gross(v)), MERGE (s + other.s), FINISH s)",
    );
    assert!(plan(&session, "SELECT x FROM priced").contains("0.19"));
    run(&mut session, "CREATE OR REPLACE FUNCTION rate() RETURNS DOUBLE AS 0.07").unwrap();
    assert!(plan(&session, "SELECT x FROM priced").contains("0.07"));
    let text = "SELECT total(lastPrice) FROM stock [Range 9 s, Slide 3 s]";
    assert!(plan(&session, text).contains("total(stock.lastprice)"));
    run(&mut session, "DROP AGGREGATE total; DROP FUNCTION gross; DROP FUNCTION rate; DROP FUNCTION IF EXISTS rate")
        .unwrap();
    assert_eq!(session.catalog().functions().count(), 0);
}

#[test]
fn aggregates_stand_wherever_aggregates_do() {
    let session = declared(WAVG);
    for text in [
        "SELECT szcode, wavg(Price, Turnover) FROM transaction [Range 9 s, Slide 3 s] GROUP BY szcode",
        "SELECT wavg(Price, 1) FILTER (WHERE Turnover > 3) AS x, wavg(v => Price, w => 2.5) FROM transaction [Range 9 s, Slide 3 s]",
        "SELECT szcode, wavg(Price, Turnover) AS x FROM transaction GROUP BY szcode HAVING wavg(Price, Turnover) > 3",
        "SELECT wavg(Price, Turnover) OVER (PARTITION BY szcode ORDER BY eventTime) FROM transaction [Range 9 s, Slide 3 s]",
        "SELECT wavg(Price, Turnover) OVER (ORDER BY eventTime ROWS 3 PRECEDING) FROM transaction [Range 9 s, Slide 3 s]",
        "SELECT wavg(x, 1) FROM (VALUES (1), (2)) AS v(x)",
    ] {
        query(&session, text);
    }
}

#[test]
fn clauses_come_in_any_order_and_state_is_null_unless_said() {
    let session = declared(
        "CREATE AGGREGATE most_of(v BIGINT, note VARCHAR) RETURNS VARCHAR (
           FINISH concat(best, '@', most),
           MERGE (CASE WHEN most >= other.most OR other.most IS NULL THEN best ELSE other.best END, greatest(most, OTHER.Most)),
           STATE (best VARCHAR, most BIGINT DEFAULT -5 + 2),
           UPDATE (CASE WHEN most >= v THEN best ELSE note END, greatest(most, v)))",
    );
    query(&session, "SELECT most_of(Turnover, userID) FROM transaction [Range 9 s, Slide 3 s]");
}

#[test]
fn functions_are_shown_as_declared() {
    let mut session = declared("CREATE FUNCTION twice(x DOUBLE) RETURNS DOUBLE AS x + x");
    run(&mut session, WAVG).unwrap();
    let mut rows = |text| match run(&mut session, text).unwrap().remove(0) {
        Statement::Show { rows: batch, .. } => pretty_format_batches(&[batch]).unwrap().to_string(),
        other => panic!("{other:?}"),
    };
    let functions = rows("SHOW FUNCTIONS");
    for part in [
        "| twice ",
        "| function ",
        "twice(x DOUBLE) RETURNS DOUBLE",
        "| x + x ",
        "| aggregate ",
        "FINISH s / NULLIF(n, 0))",
    ] {
        assert!(functions.contains(part), "{functions}");
    }
    assert!(!rows("SHOW AGGREGATES").contains("twice"));
}

#[test]
fn names_that_exist_are_respected() {
    let mut session = declared("CREATE FUNCTION twice(x DOUBLE) RETURNS DOUBLE AS x + x");
    let again = run(&mut session, "CREATE FUNCTION IF NOT EXISTS twice(x BIGINT) RETURNS BIGINT AS x").unwrap();
    assert!(matches!(again[0], Statement::Nothing { .. }));
    assert_eq!(session.catalog().function("twice").unwrap().signature(), "twice(x DOUBLE) RETURNS DOUBLE");
    // A stream and a function have names of their own.
    run(&mut session, "CREATE FUNCTION stock(x DOUBLE) RETURNS DOUBLE AS x; SELECT stock(lastPrice) FROM stock")
        .unwrap();
}

#[test]
fn json_is_read_by_operators_and_functions() {
    let session = session();
    for text in [
        "SELECT szcode -> 'a' -> 0, szcode ->> 'b' FROM stock WHERE szcode ->> 'c' = 'd' AND (szcode -> 'e')::INT > 3",
        "SELECT json_get_str(szcode, 'a'), json_get_int(szcode, 'a', 0), json_get_float(szcode, szcode) FROM stock",
        "SELECT unnest(json_get_array(szcode, 'items')) AS item FROM stock",
    ] {
        query(&session, text);
    }
    let functions =
        ["json_get_bool", "json_get_json", "json_as_text", "json_length", "json_contains", "json_object_keys"];
    for function in functions {
        query(&session, &format!("SELECT {function}(szcode, 'a') FROM stock"));
    }
}
