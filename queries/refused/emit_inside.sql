SELECT * FROM (SELECT COUNT(*) FROM STOCK [Range 5 minutes, Slide 1 minute] EMIT CHANGES) x
