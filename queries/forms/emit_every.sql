-- The same, once an hour of the clock at the most.
SET batch_rows = 1;
SELECT window_end, SUM(v) AS v FROM l [Range 10, Slide 10] GROUP BY window_end EMIT EVERY 1 hour;
