-- The most of two windows, by a window over a view.
CREATE VIEW sums AS SELECT k, SUM(v) AS v FROM t [Range 5, Slide 5] GROUP BY k;
SELECT window_end, k, MAX(v) AS most FROM sums [Range 10, Slide 10] GROUP BY window_end, k;
