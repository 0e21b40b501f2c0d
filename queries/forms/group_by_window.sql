-- As Spark writes it: the size, then the slide.
SELECT window(ts, '10 seconds', '5 seconds').end AS closed, k, SUM(v) AS v FROM t
GROUP BY window(ts, '10 seconds', '5 seconds'), k;
