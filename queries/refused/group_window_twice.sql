SELECT COUNT(*) FROM STOCK GROUP BY TUMBLE(eventTime, 5 minutes, SIZE => 1 minute)
