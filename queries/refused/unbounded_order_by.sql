SELECT szcode, lastPrice FROM STOCK
ORDER BY lastPrice
