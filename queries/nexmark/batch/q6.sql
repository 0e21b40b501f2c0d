WITH ended AS (
  SELECT date_bin(INTERVAL '10 seconds', expires) + INTERVAL '10 seconds' AS window_end, seller, id, expires,
    MAX(price) AS price
  FROM auction JOIN bid ON id = auction
  WHERE bid.date_time >= auction.date_time AND bid.date_time <= expires
  GROUP BY seller, id, expires
),
pairs AS (
  SELECT latest.window_end, latest.seller, latest.id, earlier.price,
    ROW_NUMBER() OVER (PARTITION BY latest.id ORDER BY earlier.expires DESC, earlier.id DESC) AS age
  FROM ended AS latest JOIN ended AS earlier ON latest.seller = earlier.seller
  WHERE (earlier.expires < latest.expires OR (earlier.expires = latest.expires AND earlier.id <= latest.id))
    AND earlier.expires >= latest.window_end - INTERVAL '60 seconds'
)
SELECT window_end, seller, id, CAST(SUM(price) AS DOUBLE) / COUNT(*)
FROM pairs WHERE age <= 10 GROUP BY window_end, seller, id
