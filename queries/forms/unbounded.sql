-- All rows so far; what is given in between depends on the micro-batches, so they are one here.
SET batch_interval = '10 s';
SELECT k, COUNT(*) AS n, SUM(v) AS v FROM t [Range Unbounded] GROUP BY k;
