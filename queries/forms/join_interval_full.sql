-- Prices without a partner too.
SELECT t.ts, q.ts AS quoted, v, price FROM t FULL JOIN q
ON t.k = q.k AND t.ts BETWEEN q.ts AND q.ts + INTERVAL '2' SECOND;
