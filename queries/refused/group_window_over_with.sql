WITH dear AS (SELECT * FROM STOCK WHERE lastPrice > 1)
SELECT COUNT(*) FROM dear GROUP BY tumble(interval '5 minutes')
