-- Query 9, winning bids: the highest bid of each auction, the first of several.
-- Published over all auctions for ever, with a winner that changes; here once for each auction, at the end of the ten
-- seconds in which it ends. Auctions last less than 34 seconds, so that a window of a minute has all their bids.
SELECT id, item_name, description, initial_bid, reserve, date_time, expires, seller, category,
  auction, bidder, price, bid_date_time, bid_extra
FROM (
  SELECT a.*, b.auction, b.bidder, b.price, b.date_time AS bid_date_time, b.extra AS bid_extra,
    ROW_NUMBER() OVER (PARTITION BY a.window_end, a.id ORDER BY b.price DESC, b.date_time) AS place
  FROM auction [Range 1 minute, Slide 10 seconds] AS a
  JOIN bid [Range 1 minute, Slide 10 seconds] AS b ON a.id = b.auction
  WHERE b.date_time BETWEEN a.date_time AND a.expires
    AND a.expires >= a.window_end - INTERVAL '10' SECOND AND a.expires < a.window_end
) AS offers
WHERE place = 1;
