SELECT window(eventTime, '5 minutes'), COUNT(*) FROM STOCK
