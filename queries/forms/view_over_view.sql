-- A view of a view.
CREATE VIEW large AS SELECT ts, k, v FROM t WHERE v > 5;
CREATE VIEW twice AS SELECT ts, k, v * 2 AS v FROM large;
SELECT k, v FROM twice;
