//! Statements with words lost, doubled, swapped and cut: each is accepted or refused, none is a crash.

use std::panic::AssertUnwindSafe;

use crate::session;

const SEED: u64 = 0x5eed_2026;
const ROUNDS: usize = 4_000;

const STATEMENTS: [&str; 17] = [
    "SELECT hop(interval '2 second', 10s) AS window, szcode, window.start FROM stock GROUP BY 1, szcode HAVING window.end > window_time(window) ORDER BY window",
    "SELECT szcode, WINDOWSTART, t.window_time FROM stock t WINDOW HOPPING (SIZE 10 SECONDS, ADVANCE BY 2 SECONDS, GRACE PERIOD 1 s) GROUP BY szcode ORDER BY windowend",
    "SELECT TUMBLE_ROWTIME(s.eventTime, SIZE := 5m), window(eventTime, '1 day', TIMEZONE => 'Asia/Shanghai') FROM stock s GROUP BY TUMBLE(eventTime, 5m), session_window(eventTime, '1 s')",
    "CREATE STREAM t (szcode VARCHAR NOT NULL, ts TIMESTAMP(3), WATERMARK FOR ts AS ts - INTERVAL '5' SECOND) WITH (connector = 'x', 'a.b' = 1)",
    "CREATE OR REPLACE VIEW w AS SELECT szcode FROM STOCK [Range 5 minutes, Slide 1 minute] WHERE lastPrice > 1",
    "CREATE SINK k WITH (connector = 'console'); INSERT INTO out SELECT * FROM stock; DROP SINK IF EXISTS k; SHOW STREAMS",
    "SELECT p.userID,SUM(s.lastPrice* openInterest) FROM POSITION[Range n,Slide s] as p,STOCK[Range n,Slide s] as s, ON p.szcode = s.szcode GROUP BY p.userID",
    "SELECT szcode, count(*) FROM HOP(TABLE STOCK, DESCRIPTOR(eventTime), INTERVAL '1' MINUTE, SIZE => INTERVAL '5' MINUTE) t GROUP BY 1",
    "SELECT CASE WHEN end > 1 THEN [range, rows][1] ELSE 'é' END, timestamp FROM odd AS window ORDER BY start LIMIT 3",
    "SELECT * FROM (SELECT szcode FROM v_minutes [Range 1 hour Slide 60 Closed Right Offset 5s]) d JOIN codes USING (szcode)",
    "WITH c AS (SELECT * FROM stock [Range 1, Slide 1] s) SELECT rank() OVER (PARTITION BY szcode ORDER BY lastPrice) FROM c",
    "SELECT szcode FROM stock UNION ALL SELECT szcode FROM transaction WHERE Turnover IN (SELECT 1) AND EXISTS (SELECT 2)",
    "EXPLAIN SELECT a.szcode FROM STOCK a, POSITION b, codes c ON a.szcode = c.szcode GROUP BY GROUPING SETS ((a.szcode), ())",
    "SET batch_interval = 100 ms; DESCRIBE stock; SELECT \"Odd\".x, $1, -1::int, 'a' || b'1' FROM market.\"Odd name\" [Range 5 Slide 1]",
    "CREATE OR REPLACE FUNCTION f(a DOUBLE, b DECIMAL(9, 2)) RETURNS DOUBLE LANGUAGE SQL AS $$ SELECT a -> 'x' ->> 0 + b $$; SELECT f(1, 2)",
    "CREATE AGGREGATE w(v DOUBLE) RETURNS DOUBLE (STATE (s DOUBLE = 0, n INT = -1), UPDATE (s + v, n), MERGE (other.s, n), INVERSE (s, 1), FINISH s / n)",
    "SELECT sum(lastPrice) FILTER (WHERE szcode LIKE 'a%') FROM TUMBLE(TABLE stock, DESCRIPTOR(eventTime), INTERVAL '1 month')",
];

/// Steele and Vigna's SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % bound.max(1) as u64).unwrap()
    }
}

/// The statement's words and marks, one edit later.
fn mutate(random: &mut Random, words: &mut Vec<String>) {
    if words.is_empty() {
        return;
    }
    let at = random.below(words.len());
    match random.below(6) {
        0 => drop(words.remove(at)),
        1 => words.insert(at, words[at].clone()),
        2 => {
            let other = random.below(words.len());
            words.swap(at, other);
        }
        3 => words.truncate(at + 1),
        4 => {
            let statement = STATEMENTS[random.below(STATEMENTS.len())];
            let others = split(statement);
            words[at] = others[random.below(others.len())].clone();
        }
        _ => {
            let marks =
                ["[", "]", "(", ")", ",", "'", "\"", ";", "-", "=>", "ON", "é", "--", "9999999999999999999", ".", "$"];
            words.insert(at, marks[random.below(marks.len())].to_owned());
        }
    }
}

/// Words, and single marks between them.
fn split(text: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    for letter in text.chars() {
        let joins = letter.is_alphanumeric() || letter == '_';
        let last = words.last_mut().unwrap();
        if joins && last.chars().last().is_none_or(|previous| previous.is_alphanumeric() || previous == '_') {
            last.push(letter);
        } else {
            words.push(letter.to_string());
        }
    }
    words
}

#[test]
fn no_statement_is_a_crash() {
    println!("seed {SEED:#x}");
    let mut random = Random(SEED);
    let mut session = session();
    session.bind_parameter("n", "5 minutes");
    session.bind_parameter("s", "1 minute");
    let mut accepted = 0;
    for _ in 0..ROUNDS {
        let mut words = split(STATEMENTS[random.below(STATEMENTS.len())]);
        for _ in 0..=random.below(4) {
            mutate(&mut random, &mut words);
        }
        let text = words.concat();
        match session.parse(&text) {
            Ok(parsed) => {
                for statement in &parsed {
                    match session.compile(statement) {
                        Ok(_) => accepted += 1,
                        Err(error) => drop(error.render(&text)),
                    }
                }
            }
            Err(error) => drop(error.render(&text)),
        }
    }
    assert!(accepted > 100, "the edits are too wild to test much: {accepted} accepted");
}

/// Parses a text and compiles its statements.
fn read(session: &millstream_sql::Session, text: &str) {
    match session.parse(text) {
        Ok(parsed) => parsed.iter().for_each(|statement| match session.compile(statement) {
            Ok(_) => {}
            Err(error) => drop(error.render(text)),
        }),
        Err(error) => drop(error.render(text)),
    }
}

#[test]
fn fuzz_texts_of_words_that_statements_have() {
    let mut words: Vec<String> = STATEMENTS.iter().flat_map(|statement| split(statement)).collect();
    words.sort_unstable();
    words.dedup();
    // It is not changed.
    let session = AssertUnwindSafe(session());
    bolero::check!().with_type::<Vec<u16>>().for_each(|drawn| {
        let words = drawn.iter().take(60).map(|number| words[usize::from(*number) % words.len()].as_str());
        read(&session, &words.collect::<Vec<_>>().join(" "));
    });
}

#[test]
fn fuzz_texts_of_any_bytes() {
    let session = AssertUnwindSafe(session());
    bolero::check!().for_each(|bytes: &[u8]| read(&session, &String::from_utf8_lossy(bytes)));
}

#[test]
fn deep_statements_are_refused_or_planned() {
    let session = session();
    let repeat = |part: &str, count: usize| part.repeat(count);
    let texts = [
        format!("SELECT {}1{}", repeat("(", 10_000), repeat(")", 10_000)),
        format!("SELECT 1{}", repeat("+1", 100_000)),
        format!("SELECT 1{}", repeat("+1", 250)),
        format!("SELECT szcode FROM stock WHERE false{}", repeat(" OR szcode = 'a'", 120)),
        format!("SELECT 1{}", repeat("::int", 5_000)),
        format!("SELECT 1{}", repeat(" UNION ALL SELECT 1", 250)),
        format!("SELECT 1{}", repeat(" UNION ALL SELECT 1", 5_000)),
        format!("SELECT {}true", repeat("NOT ", 5_000)),
        format!("SELECT {}1", repeat("- ", 5_000)),
        format!("SELECT {}1{}", repeat("abs(", 5_000), repeat(")", 5_000)),
        format!("SELECT {}1{}", repeat("CASE WHEN true THEN ", 5_000), repeat(" END", 5_000)),
        format!("SELECT * FROM {}codes{}", repeat("(SELECT * FROM ", 2_000), repeat(")", 2_000)),
        format!("SELECT c0.szcode FROM codes c0{}", (1..200).map(|i| format!(", codes c{i}")).collect::<String>()),
        repeat("[", 10_000),
        repeat("SELECT 1;", 2_000),
        "x".repeat(2 << 20),
    ];
    for text in texts {
        match session.parse(&text) {
            Ok(parsed) => parsed.iter().for_each(|statement| drop(session.compile(statement))),
            Err(error) => assert!(!error.message.is_empty()),
        }
    }
}
