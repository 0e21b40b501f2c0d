-- The last window only.
CREATE MATERIALIZED VIEW sums AS
  SELECT window_end AS closed, k, SUM(v) AS v FROM t [Range 10, Slide 10] GROUP BY window_end, k RETAIN 0 seconds;
SELECT closed, k, v FROM sums;
