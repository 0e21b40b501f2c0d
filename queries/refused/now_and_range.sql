SELECT COUNT(*) FROM STOCK [Now, Range 5 minutes]
