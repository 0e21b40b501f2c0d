-- Windows that begin a second after the full five.
SELECT window_end, SUM(v) AS v FROM t [Range 5 s, Slide 5 s, Offset 1 s] GROUP BY window_end;
