SELECT szcode, lead(lastPrice) OVER (PARTITION BY szcode ORDER BY eventTime) FROM STOCK
