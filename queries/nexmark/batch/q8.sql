SELECT id, name, date_bin(INTERVAL '10 seconds', date_time)
FROM person
WHERE EXISTS (
  SELECT 1 FROM auction
  WHERE auction.seller = person.id
    AND date_bin(INTERVAL '10 seconds', auction.date_time) = date_bin(INTERVAL '10 seconds', person.date_time)
)
