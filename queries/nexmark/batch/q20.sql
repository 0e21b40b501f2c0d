WITH windowed AS (
  SELECT *, date_bin(INTERVAL '10 seconds', date_time) + INTERVAL '10 seconds' AS window_end FROM bid
)
SELECT b.auction, b.bidder, b.price, b.channel, b.url, b.date_time, b.extra, a.item_name, a.description, a.initial_bid,
  a.reserve, a.date_time, a.expires, a.seller, a.category, a.extra
FROM windowed AS b, auction AS a
WHERE a.category = 10 AND b.auction = a.id
  AND a.date_time < b.window_end AND a.date_time >= b.window_end - INTERVAL '60 seconds'
