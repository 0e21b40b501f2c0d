-- At the time of every row, the last three.
SELECT window_end, SUM(v) AS v FROM t [Rows 3] GROUP BY window_end;
