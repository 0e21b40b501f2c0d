SELECT COUNT(*) FROM STOCK AS s [Range 5 minutes, Slide 1 minute]
