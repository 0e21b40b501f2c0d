-- Query 6, average selling price by seller: over the last ten auctions of the seller, for each that ends.
-- Published over all auctions for ever; here those that ended in the minute before. Auctions last less than 34
-- seconds, so that a window of 100 seconds has all of them with all their bids.
SELECT window_end, seller, id, average
FROM (
  SELECT window_end, seller, id, expires,
    AVG(final) OVER (
      PARTITION BY window_end, seller ORDER BY expires, id ROWS BETWEEN 9 PRECEDING AND CURRENT ROW
    ) AS average
  FROM (
    SELECT a.window_end, a.seller, a.id, a.expires, MAX(b.price) AS final
    FROM auction [Range 100 seconds, Slide 10 seconds] AS a
    JOIN bid [Range 100 seconds, Slide 10 seconds] AS b ON a.id = b.auction
    WHERE b.date_time BETWEEN a.date_time AND a.expires
      AND a.expires >= a.window_end - INTERVAL '60' SECOND AND a.expires < a.window_end
    GROUP BY a.window_end, a.seller, a.id, a.expires
  ) AS ended
) AS averaged
WHERE expires >= window_end - INTERVAL '10' SECOND;
