SELECT * FROM STOCK [Partition By szcode Rows 1]
