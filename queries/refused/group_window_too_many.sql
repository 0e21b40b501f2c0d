SELECT COUNT(*) FROM STOCK GROUP BY session(eventTime, 5 minutes, 1 minute)
