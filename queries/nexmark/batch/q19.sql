WITH windowed AS (
  SELECT *, date_bin(INTERVAL '10 seconds', date_time) AS window_start FROM bid
),
ranked AS (
  SELECT bid.auction, bid.bidder, bid.price, bid.channel, bid.url, bid.date_time, bid.extra, bid.window_start,
    COUNT(*) AS place
  FROM windowed AS bid JOIN windowed AS other ON bid.auction = other.auction AND bid.window_start = other.window_start
  WHERE other.price > bid.price OR (other.price = bid.price AND other.date_time <= bid.date_time)
  GROUP BY bid.auction, bid.bidder, bid.price, bid.channel, bid.url, bid.date_time, bid.extra, bid.window_start
)
SELECT auction, bidder, price, channel, url, date_time, extra, window_start, window_start + INTERVAL '10 seconds', place
FROM ranked WHERE place <= 10
