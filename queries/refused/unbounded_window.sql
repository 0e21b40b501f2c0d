SELECT COUNT(*) FROM STOCK [Range Unbounded]
