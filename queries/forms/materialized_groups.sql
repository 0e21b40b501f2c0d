-- The present row of each group.
CREATE MATERIALIZED VIEW totals AS SELECT k, COUNT(*) AS n, SUM(v) AS v FROM t GROUP BY k;
SELECT k, n, v FROM totals;
