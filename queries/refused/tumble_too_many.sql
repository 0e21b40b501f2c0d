SELECT COUNT(*) FROM TUMBLE(TABLE STOCK, DESCRIPTOR(eventTime), 5 minutes, 1 minute, 1 minute)
