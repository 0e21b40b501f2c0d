-- Lengths from the command line.
SELECT window_end, SUM(v) AS v FROM t [Range n, Slide s] GROUP BY window_end;
