-- Open windows after each micro-batch that changes them; each file is one here.
SET batch_rows = 1;
SELECT window_end, SUM(v) AS v FROM l [Range 10, Slide 10] GROUP BY window_end EMIT CHANGES;
