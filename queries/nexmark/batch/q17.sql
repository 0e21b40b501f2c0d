SELECT auction, substr(CAST(date_time AS VARCHAR), 1, 10) AS day,
  COUNT(*),
  SUM(CASE WHEN price < 10000 THEN 1 ELSE 0 END),
  SUM(CASE WHEN price >= 10000 AND price < 1000000 THEN 1 ELSE 0 END),
  SUM(CASE WHEN price >= 1000000 THEN 1 ELSE 0 END),
  MIN(price), MAX(price), CAST(SUM(price) AS DOUBLE) / COUNT(*), SUM(price)
FROM bid GROUP BY auction, day
