SELECT szcode, date_format(eventTime, 'yyyy-MM-dd') AS day FROM STOCK
