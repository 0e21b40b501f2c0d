-- An aggregate in SQL, which a sliding window need not keep rows for.
CREATE AGGREGATE product (x DOUBLE) RETURNS DOUBLE STATE (logs DOUBLE DEFAULT 0)
UPDATE (logs + ln(x)) MERGE (logs + other.logs) FINISH round(exp(logs));
SELECT window_end, product(CAST(v AS DOUBLE)) AS v FROM t [Range 10, Slide 10] GROUP BY window_end;
