-- At the time of every row, the five seconds up to it.
SELECT window_end, COUNT(*) AS n, SUM(v) AS v FROM t [Range 5 s] GROUP BY window_end;
