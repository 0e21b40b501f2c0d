-- After every second row, the last three.
SELECT window_end, SUM(v) AS v FROM t [Rows 3, Slide 2] GROUP BY window_end;
