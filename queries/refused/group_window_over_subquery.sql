SELECT COUNT(*) FROM (SELECT * FROM STOCK WHERE lastPrice > 1) d
GROUP BY window(eventTime, '5 minutes', '1 minute')
