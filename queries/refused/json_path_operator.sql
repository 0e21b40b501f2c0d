SELECT szcode #>> '{a,b}' FROM STOCK
