-- A window in GROUP BY, as Arroyo writes it.
SELECT k, SUM(v) AS v FROM t GROUP BY tumble(INTERVAL '10 seconds'), k;
