SELECT auction, price, bidder, date_time, extra
FROM (
  SELECT *, RANK() OVER (PARTITION BY date_bin(INTERVAL '10 seconds', date_time) ORDER BY price DESC) AS place FROM bid
)
WHERE place = 1
