SELECT COUNT(*) FROM STOCK [Range 1 month, Slide 1 day]
