CREATE AGGREGATE total(v DOUBLE) RETURNS DOUBLE (
  STATE (s DOUBLE = 0), UPDATE (s + v * random()), MERGE (s + other.s), FINISH s
)
