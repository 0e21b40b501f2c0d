SELECT COUNT(*) FROM STOCK [Session Gap 0 Partition By szcode]
