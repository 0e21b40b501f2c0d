SELECT COUNT(*) FROM STOCK [Rows 100, Slide 10, Offset 5]
