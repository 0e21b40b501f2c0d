CREATE AGGREGATE total(v DOUBLE) RETURNS DOUBLE (
  STATE (s DOUBLE = 0, n BIGINT = 0),
  UPDATE (s + v),
  MERGE (s + other.s, n + other.n),
  FINISH s / n
)
