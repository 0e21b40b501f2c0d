SELECT COUNT(*) FROM STOCK [Range 5 minutes, Offset 1 minute]
