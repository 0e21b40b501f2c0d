//! Tests in SQL files: how they are read, and that every mistake in `queries/refused/tests` is said as in the file
//! beside it. With `BLESS=1` in the environment the expected words are written anew.

use std::fs;
use std::path::Path;

use millstream_engine::time::EventTime;
use millstream_sql::test_block::{AssertedQuery, Moment, TestAction, TestItem};

use crate::session;

#[test]
fn tests_stand_between_statements_and_keep_their_places() {
    let text = "INCLUDE 'a.sql'; SELECT 1;
        TEST first BEGIN
          INSERT INTO stock (szcode) VALUES ('a'), ('b');
          ADVANCE WATERMARK FOR stock TO 1500;
          ADVANCE WATERMARK TO TIMESTAMP '1970-01-01 00:00:02';
          ADVANCE WATERMARK TO END;
          ASSERT SELECT CASE WHEN 1 = 1 THEN 2 END AS x RETURNS VALUES (2);
          ASSERT FILE 'q.sql' WITH (n = '5 minutes') RETURNS (2), (3);
          ASSERT NO ROWS SELECT 1 WHERE false;
          ASSERT ERROR SELEC LIKE '%';
        END
        TEST 'the second' BEGIN END;
        SHOW STREAMS";
    let items = session().parse_tests(text).unwrap();
    assert_eq!(items.len(), 5);
    let TestItem::Include(name) = &items[0] else { panic!("{:?}", items[0]) };
    assert_eq!(name.path, "a.sql");
    let TestItem::Test(test) = &items[2] else { panic!("{:?}", items[2]) };
    assert_eq!((test.name.as_str(), test.steps.len()), ("first", 8));
    assert_eq!(test.steps[4].location.unwrap().line, 7);
    let moments = test.steps.iter().filter_map(|step| match &step.action {
        TestAction::Advance { to, .. } => Some(*to),
        _ => None,
    });
    let times = [EventTime(1_500_000_000), EventTime(2_000_000_000)].map(Moment::Time);
    assert_eq!(moments.collect::<Vec<_>>(), [times[0], times[1], Moment::End]);
    let TestAction::Assert { query: AssertedQuery::File { parameters, .. }, rows: Some(rows) } = &test.steps[5].action
    else {
        panic!("{:?}", test.steps[5])
    };
    assert_eq!(parameters[0].value, "5 minutes");
    assert_eq!(session().compile_rows(rows).unwrap().schema().fields().len(), 1);
    let TestItem::Test(second) = &items[3] else { panic!("{:?}", items[3]) };
    assert_eq!(second.name, "the second");
}

#[test]
fn every_mistake_in_a_test_says_what_to_type_instead() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../queries/refused/tests");
    let (mut wrong, mut count) = (Vec::new(), 0);
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "sql") {
            continue;
        }
        count += 1;
        let text = fs::read_to_string(&path).unwrap();
        let found = match session().parse_tests(&text) {
            Ok(_) => "accepted\n".to_owned(),
            Err(error) => format!("{}\n", error.render(&text)),
        };
        let expected = path.with_extension("expected");
        if std::env::var_os("BLESS").is_some() {
            fs::write(&expected, &found).unwrap();
        }
        if found == "accepted\n" || fs::read_to_string(&expected).unwrap_or_default() != found {
            wrong.push(format!("{}:\n{found}", path.display()));
        }
    }
    assert!(count > 10, "only {count} refusals were found");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
