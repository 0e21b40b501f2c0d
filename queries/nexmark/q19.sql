-- Query 19, auction TOP-10 price: the ten highest bids on each auction.
-- Published over all bids for ever, with ranks that change; here of each ten seconds.
SELECT *
FROM (
  SELECT *, ROW_NUMBER() OVER (PARTITION BY window_end, auction ORDER BY price DESC, date_time) AS place
  FROM bid [Range 10 seconds, Slide 10 seconds]
) AS ranked
WHERE place <= 10;
