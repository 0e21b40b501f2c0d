-- Bare numbers are seconds, and the comma may be left out.
SELECT window_start, window_end, COUNT(*) AS n FROM t [RANGE 10 SLIDE 10] GROUP BY window_start, window_end;
