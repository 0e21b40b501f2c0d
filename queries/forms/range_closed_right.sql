-- The row at the end of a window is in it, and the one at its start is not.
SELECT window_end, SUM(v) AS v FROM t [Range 5 s, Slide 5 s, Closed Right] GROUP BY window_end;
