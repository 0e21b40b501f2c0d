SELECT * FROM STOCK [Partition By zcode Rows 1]
