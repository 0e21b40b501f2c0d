-- Every ten seconds, the last two rows of each key.
SELECT window_end, k, SUM(v) AS v FROM t [Partition By k Rows 2, Slide 10 s] GROUP BY window_end, k;
