SELECT * FROM (TRANSACTION t JOIN codes c ON t.szcode = c.szcode) FULL JOIN STOCK s ON t.szcode = s.szcode AND t.eventTime BETWEEN s.eventTime AND s.eventTime + INTERVAL '5' SECOND
