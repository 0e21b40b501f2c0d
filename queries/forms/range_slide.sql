-- Ten seconds, every five.
SELECT window_end, k, SUM(v) AS v FROM t [Range 10 seconds, Slide 5 seconds] GROUP BY window_end, k;
