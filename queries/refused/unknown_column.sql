SELECT szcode, lastPrise FROM STOCK
