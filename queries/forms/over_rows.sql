-- Each row with the two before it.
SELECT ts, v, SUM(v) OVER (ORDER BY ts ROWS BETWEEN 2 PRECEDING AND CURRENT ROW) AS v3 FROM t;
