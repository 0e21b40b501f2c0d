SELECT * FROM TRANSACTION t JOIN STOCK s MATCH_CONDITION (t.eventTime >= s.eventTime) ON t.szcode = s.szcode
