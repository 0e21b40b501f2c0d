SELECT window_start, szcode FROM STOCK [Partition By szcode Rows 1, Slide 1 minute]
