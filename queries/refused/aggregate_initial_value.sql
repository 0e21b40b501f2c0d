CREATE AGGREGATE total(v DOUBLE) RETURNS DOUBLE (
  STATE (s DOUBLE = now()), UPDATE (s + v), MERGE (s + other.s), FINISH s
)
