SELECT COUNT(*) FROM STOCK [Range 5 minutes, Slide 0]
