SELECT COUNT(*) FROM STOCK [Range 5 minutes, Range 6 minutes, Slide 1]
