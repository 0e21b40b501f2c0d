-- Results that are kept, read with a table.
CREATE MATERIALIZED VIEW sums AS
  SELECT window_end AS closed, k, SUM(v) AS v FROM t [Range 10, Slide 10] GROUP BY window_end, k;
SELECT closed, name, v FROM sums JOIN names ON sums.k = names.k;
