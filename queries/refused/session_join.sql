SELECT * FROM STOCK [Session Gap 5 minutes Partition By szcode] a JOIN TRANSACTION [Range 5 minutes, Slide 1 minute] b ON a.szcode = b.szcode
