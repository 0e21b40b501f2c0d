SELECT COUNT(*) FROM STOCK [Partition By szcode Rows 100, Slide 10]
