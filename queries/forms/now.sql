-- At the time of every row, the rows of that time.
SELECT window_end, SUM(v) AS v FROM t [Now] GROUP BY window_end;
