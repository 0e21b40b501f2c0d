SELECT window, COUNT(*) FROM STOCK GROUP BY window(eventTime, '1 minute', '5 minutes')
