SELECT COUNT(*) FROM STOCK [Range 5 minutes, Closed Left]
