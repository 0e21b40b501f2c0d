SELECT STOCK.szcode FROM (SELECT szcode, eventTime + INTERVAL '1' HOUR AS eventTime FROM STOCK) AS STOCK JOIN TRANSACTION b
ON STOCK.szcode = b.szcode AND STOCK.eventTime BETWEEN b.eventTime AND b.eventTime + INTERVAL '1' MINUTE
