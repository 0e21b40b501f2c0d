-- The same with a slide.
SELECT k, SUM(v) AS v FROM t GROUP BY hop(INTERVAL '5 seconds', INTERVAL '10 seconds'), k;
