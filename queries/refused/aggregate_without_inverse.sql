CREATE AGGREGATE wavg(v DOUBLE, w DOUBLE) RETURNS DOUBLE (
  STATE (s DOUBLE = 0, n DOUBLE = 0),
  UPDATE (s + v * w, n + w),
  MERGE (s + other.s, n + other.n),
  FINISH s / NULLIF(n, 0)
);
SELECT wavg(lastPrice, 1) OVER (ORDER BY eventTime ROWS 9 PRECEDING) FROM STOCK [Range 5 minutes, Slide 1 minute]
