SELECT COUNT(*) FROM (SELECT * FROM STOCK) [Range 5 minutes, Slide 1 minute]
