-- Each key, and all of them.
SELECT window_end, k, SUM(v) AS v FROM t [Range 10, Slide 10] GROUP BY GROUPING SETS ((window_end, k), (window_end));
