-- Sessions of each key.
SELECT k, SUM(v) AS v FROM t GROUP BY session(INTERVAL '3 seconds'), k;
