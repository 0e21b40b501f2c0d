-- Rows before the first price too.
SELECT t.ts, t.k, v, price FROM t LEFT ASOF JOIN q MATCH_CONDITION (t.ts >= q.ts) ON t.k = q.k;
