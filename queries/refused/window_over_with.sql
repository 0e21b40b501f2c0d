WITH counts AS (SELECT szcode, COUNT(*) AS n FROM STOCK GROUP BY szcode)
SELECT * FROM counts [Range 5 minutes, Slide 1 minute]
