-- Query 17, auction statistics: the prices offered for each auction on each day.
SELECT auction, to_char(window_start, '%Y-%m-%d') AS day,
  COUNT(*) AS bids,
  COUNT(*) FILTER (WHERE price < 10000) AS rank1_bids,
  COUNT(*) FILTER (WHERE price >= 10000 AND price < 1000000) AS rank2_bids,
  COUNT(*) FILTER (WHERE price >= 1000000) AS rank3_bids,
  MIN(price) AS min_price, MAX(price) AS max_price, AVG(price) AS avg_price, SUM(price) AS sum_price
FROM bid [Range 1 day, Slide 1 day]
GROUP BY auction, window_start;
