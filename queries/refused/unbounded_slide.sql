SELECT COUNT(*) FROM STOCK [Range Unbounded, Slide 1 minute]
