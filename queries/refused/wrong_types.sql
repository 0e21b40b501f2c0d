SELECT szcode FROM STOCK WHERE lastPrice > eventTime
