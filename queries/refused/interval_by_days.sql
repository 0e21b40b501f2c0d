SELECT a.szcode FROM STOCK a JOIN TRANSACTION b ON a.szcode = b.szcode AND CAST(a.eventTime AS DATE) = CAST(b.eventTime AS DATE)
