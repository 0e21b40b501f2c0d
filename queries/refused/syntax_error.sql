SELECT szcode,
  lastPrice lastPrice2 extra
FROM STOCK
