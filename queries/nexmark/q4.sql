-- Query 4, average price for a category: of the auctions that ended in each ten seconds.
-- Published over all auctions for ever; auctions here last less than 34 seconds, so that a window of a minute has each
-- that ends in its last ten seconds whole, with all its bids.
SELECT window_end, category, AVG(final) AS average
FROM (
  SELECT a.window_end, a.id, a.category, MAX(b.price) AS final
  FROM auction [Range 1 minute, Slide 10 seconds] AS a
  JOIN bid [Range 1 minute, Slide 10 seconds] AS b ON a.id = b.auction
  WHERE b.date_time BETWEEN a.date_time AND a.expires
    AND a.expires >= a.window_end - INTERVAL '10' SECOND AND a.expires < a.window_end
  GROUP BY a.window_end, a.id, a.category
) AS ended
GROUP BY window_end, category;
