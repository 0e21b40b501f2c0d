-- Query 7, highest bid: the highest bids of every ten seconds.
-- Published with the bids themselves not in a window but between its bounds, which is the same.
SELECT b.auction, b.price, b.bidder, b.date_time, b.extra
FROM TABLE(TUMBLE(TABLE bid, DESCRIPTOR(date_time), INTERVAL '10' SECOND)) AS b
JOIN (
  SELECT window_end, MAX(price) AS price
  FROM TABLE(TUMBLE(TABLE bid, DESCRIPTOR(date_time), INTERVAL '10' SECOND))
  GROUP BY window_start, window_end
) AS highest
ON b.price = highest.price AND b.window_end = highest.window_end;
