SELECT auction, bidder, CAST(price * 908 AS DECIMAL(20,0)) * CAST('0.001' AS DECIMAL(4,3)),
  CASE substr(CAST(date_time AS VARCHAR), 12, 2) WHEN '07' THEN 'other time' WHEN '19' THEN 'other time'
    WHEN '23' THEN 'night time' WHEN '00' THEN 'night time' END,
  date_time, extra, regexp_count(extra, 'c')
FROM bid
WHERE price * 908 > 1000000000 AND price * 908 < 50000000000
