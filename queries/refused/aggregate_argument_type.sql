CREATE AGGREGATE wavg(v DOUBLE, w DOUBLE) RETURNS DOUBLE (
  STATE (s DOUBLE = 0, n DOUBLE = 0),
  UPDATE (s + v * w, n + w),
  MERGE (s + other.s, n + other.n),
  FINISH s / NULLIF(n, 0)
);
SELECT wavg(szcode, Turnover) FROM TRANSACTION [Range 5 minutes, Slide 1 minute]
