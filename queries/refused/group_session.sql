SELECT session(interval '5 minutes') AS window, szcode, COUNT(*) FROM STOCK GROUP BY 1, szcode
