SELECT * FROM TRANSACTION [Range 5 minutes, Slide 1 minute] t JOIN STOCK FOR SYSTEM_TIME AS OF t.eventTime AS s ON t.szcode = s.szcode
