SELECT COUNT(*) FROM STOCK [Slide 1 minute]
