SELECT * FROM TRANSACTION t LEFT SEMI JOIN STOCK s ON t.szcode = s.szcode AND t.eventTime BETWEEN s.eventTime AND s.eventTime + INTERVAL '5' SECOND
