-- Query 1, currency: the price of each bid in euros instead of dollars, exactly.
SELECT auction, bidder, CAST('0.908' AS DECIMAL(4,3)) * price AS price, date_time, extra FROM bid;
