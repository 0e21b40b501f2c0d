WITH counts AS (SELECT szcode, COUNT(*) AS n FROM STOCK GROUP BY szcode)
SELECT COUNT(*) FROM counts GROUP BY tumble(interval '5 minutes')
