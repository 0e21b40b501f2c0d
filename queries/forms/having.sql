-- Groups of a window that are large.
SELECT window_end, k, SUM(v) AS v FROM t [Range 10, Slide 10] GROUP BY window_end, k HAVING SUM(v) > 6;
