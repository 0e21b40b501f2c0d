ISTREAM (SELECT szcode FROM STOCK [Range 5 minutes, Slide 1 minute]) x
