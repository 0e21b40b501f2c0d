-- A function in SQL.
CREATE FUNCTION half (x BIGINT) RETURNS DOUBLE AS x / 2.0;
SELECT ts, half(v) AS v FROM t;
