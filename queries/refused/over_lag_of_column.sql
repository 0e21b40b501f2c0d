SELECT lag(lastPrice, CAST(lastPrice AS BIGINT)) OVER (ORDER BY eventTime) FROM STOCK
