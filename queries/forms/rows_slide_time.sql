-- Every five seconds, the last three rows.
SELECT window_end, SUM(v) AS v FROM t [Rows 3, Slide 5 s] GROUP BY window_end;
