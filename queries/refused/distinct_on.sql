SELECT DISTINCT ON (szcode) szcode, lastPrice FROM STOCK
