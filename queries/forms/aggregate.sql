-- An aggregate in SQL: the mean of v with weights.
CREATE AGGREGATE wavg(v DOUBLE, w DOUBLE) RETURNS DOUBLE (
  STATE (s DOUBLE = 0, n DOUBLE = 0),
  UPDATE (s + v * w, n + w),
  MERGE (s + other.s, n + other.n),
  FINISH s / NULLIF(n, 0)
);
SELECT window_end, wavg(v, length(k)) AS mean FROM t [Range 10, Slide 10] GROUP BY window_end;
