SELECT *
FROM TRANSACTIONS [Range 5 minutes, Slide 1 minute]
