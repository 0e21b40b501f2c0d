SELECT summ(lastPrice) FROM STOCK
