SELECT * FROM TRANSACTION t JOIN STOCK s ON t.szcode = s.szcode AND t.eventTime >= s.eventTime - INTERVAL '10' SECOND
