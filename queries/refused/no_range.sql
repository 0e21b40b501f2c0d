SELECT COUNT(*) FROM STOCK [Slide 5 minutes]
