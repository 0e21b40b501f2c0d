-- Each window once, as without.
SELECT window_end, SUM(v) AS v FROM l [Range 10, Slide 10] GROUP BY window_end EMIT FINAL;
