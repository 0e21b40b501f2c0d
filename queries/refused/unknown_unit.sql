SELECT COUNT(*) FROM STOCK [Range 5 parsecs, Slide 1 minute]
