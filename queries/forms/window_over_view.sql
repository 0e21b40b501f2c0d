-- A window over a view that rows pass through.
CREATE VIEW named AS SELECT t.ts, t.k, v, name FROM t JOIN names ON t.k = names.k WHERE v > 5;
SELECT window_end, name, SUM(v) AS v FROM named [Range 10, Slide 10] GROUP BY window_end, name;
