WITH dear AS (SELECT * FROM STOCK WHERE lastPrice > 1)
SELECT * FROM dear [Range 5 minutes, Slide 1 minute]
