SELECT * FROM STOCK [Partition By szcode]
