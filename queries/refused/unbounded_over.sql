SELECT szcode, SUM(lastPrice) OVER (PARTITION BY szcode ORDER BY eventTime) FROM STOCK
