SELECT * FROM TRANSACTION t LEFT JOIN STOCK s ON t.szcode = s.szcode WHERE t.eventTime BETWEEN s.eventTime AND s.eventTime + INTERVAL '5' SECOND
