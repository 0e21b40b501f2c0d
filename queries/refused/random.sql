SELECT szcode, random() FROM STOCK
