//! Bugs that random queries have found; cases of those that are not ours to mend are counted and not judged.

use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::answer::{Outcome, compare};
use crate::oracle::Window;
use crate::oracle::cut::ways;
use crate::query::Texts;
use crate::relation::Inputs;

/// DataFusion's own, over tables too: the physical columns of a join under groups may be NULL, the logical may not.
const NULLABILITY: &str = "DataFusion takes columns for not null that are null for outer joins";

/// Texts that only the failure of a bug has.
const FAILURES: [(&str, &str); 1] = [("Physical input schema should be the same as the one converted", NULLABILITY)];

/// Short queries that once ran into a bug, and still have to be right. `@0` slides by 3 and `@1` by 4.
const MENDED: [&str; 8] = [
    "SELECT b.i AS c0 FROM @1 AS a RIGHT JOIN @0 AS b ON a.k = b.k AND 11 < 10",
    "SELECT DISTINCT a.d AS c0 FROM @0 AS a LEFT JOIN @1 AS b ON a.k = b.k AND a.i = b.i",
    "SELECT a.i AS c0 FROM @0 AS a UNION ALL SELECT b.i AS c0 FROM @1 AS b WHERE 11 < 10",
    "SELECT COUNT(*) AS c0 FROM @0 AS a WHERE 11 < 10",
    "SELECT SUM(a.i) AS c0, a.p - a.o AS c1 FROM @0 AS a GROUP BY ROLLUP (a.p - a.o)",
    "SELECT RANK() OVER (PARTITION BY a.k ORDER BY a.o) AS c0 FROM @0 AS a WHERE a.k = 'C'",
    "SELECT RANK() OVER (PARTITION BY a.k ORDER BY a.p) AS c0 FROM (SELECT b.k, b.p, SUM(b.i) AS s FROM @0 AS b \
     WHERE b.k = 'C' GROUP BY b.k, b.p) AS a",
    "SELECT RANK() OVER (PARTITION BY a.k, b.k ORDER BY a.o, b.o) AS c0 FROM @0 AS a JOIN @1 AS b ON a.k = b.k \
     WHERE a.k = 'A'",
];

/// The bug that a failure comes from.
pub(crate) fn known_bug(failure: &str) -> Option<&'static str> {
    FAILURES.iter().find(|(mark, _)| failure.contains(mark)).map(|(_, bug)| *bug)
}

#[test]
fn what_was_mended_stays_right() {
    let mut rng = StdRng::seed_from_u64(1);
    let inputs = Inputs::over_streams(&[Window::new(9, 3), Window::new(8, 4)], &mut rng);
    for query in MENDED {
        let outcome = compare(&Texts::from(query), &inputs, &ways(1));
        assert!(matches!(outcome, Outcome::Right(_)), "{query}\n{outcome:?}");
    }
}
