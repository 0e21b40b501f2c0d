-- Rows without a partner too.
SELECT t.ts, q.ts AS quoted, t.k, v, price FROM t LEFT JOIN q
ON t.k = q.k AND t.ts BETWEEN q.ts AND q.ts + INTERVAL '2' SECOND;
