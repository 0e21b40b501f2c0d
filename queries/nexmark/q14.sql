-- Query 14, calculation: a filter and computed columns.
-- Published with a user-defined function that counts a character; length and replace do the same.
SELECT auction, bidder, CAST('0.908' AS DECIMAL(4,3)) * price AS price,
  CASE
    WHEN date_part('hour', date_time) BETWEEN 8 AND 18 THEN 'day time'
    WHEN date_part('hour', date_time) <= 6 OR date_part('hour', date_time) >= 20 THEN 'night time'
    ELSE 'other time'
  END AS bid_time_type,
  date_time, extra, length(extra) - length(replace(extra, 'c', '')) AS c_counts
FROM bid
WHERE CAST('0.908' AS DECIMAL(4,3)) * price > 1000000 AND CAST('0.908' AS DECIMAL(4,3)) * price < 50000000;
