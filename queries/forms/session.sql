-- Rows of a key that are less than three seconds apart.
SELECT window_start, window_end, k, SUM(v) AS v FROM t [Session Gap 3 s Partition By k]
GROUP BY window_start, window_end, k;
