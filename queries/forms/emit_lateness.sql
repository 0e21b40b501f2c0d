-- Windows again that rows come to within ten seconds; each file is a micro-batch here.
SET batch_rows = 1;
SELECT window_end, SUM(v) AS v FROM l [Range 10, Slide 10] GROUP BY window_end ALLOW LATENESS 10 s;
