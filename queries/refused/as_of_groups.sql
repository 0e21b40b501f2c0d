SELECT t.userID, COUNT(*) FROM TRANSACTION t JOIN STOCK FOR SYSTEM_TIME AS OF t.eventTime AS s ON t.szcode = s.szcode GROUP BY t.userID
