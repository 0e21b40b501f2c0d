-- The price at the time of each row.
SELECT t.ts, t.k, v, price FROM t ASOF JOIN q MATCH_CONDITION (t.ts >= q.ts) ON t.k = q.k;
