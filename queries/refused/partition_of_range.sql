SELECT COUNT(*) FROM STOCK [Partition By szcode Range 5 minutes, Slide 1 minute]
