SELECT t.userID, COUNT(s.lastPrice) FROM TRANSACTION t LEFT JOIN STOCK s ON t.szcode = s.szcode AND t.eventTime BETWEEN s.eventTime AND s.eventTime + INTERVAL '5' SECOND GROUP BY t.userID
