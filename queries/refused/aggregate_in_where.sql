SELECT szcode FROM STOCK [Range 5, Slide 1] WHERE SUM(lastPrice) > 1
