CREATE AGGREGATE total(v DOUBLE) RETURNS DOUBLE (
  STATE (s DOUBLE = 0), UPDATE (s + v), UPDATE (s + v), MERGE (s + other.s), FINISH s
)
