SELECT window_end, category, CAST(SUM(price) AS DOUBLE) / COUNT(*)
FROM (
  SELECT date_bin(INTERVAL '10 seconds', expires) + INTERVAL '10 seconds' AS window_end, category, id,
    MAX(price) AS price
  FROM auction JOIN bid ON id = auction
  WHERE bid.date_time >= auction.date_time AND bid.date_time <= expires
  GROUP BY expires, category, id
)
GROUP BY window_end, category
