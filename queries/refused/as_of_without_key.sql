SELECT * FROM TRANSACTION t ASOF JOIN STOCK s MATCH_CONDITION (t.eventTime >= s.eventTime) ON t.price > s.lastPrice
