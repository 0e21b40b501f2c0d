SELECT * FROM (SELECT szcode, COUNT(*) AS n FROM STOCK GROUP BY szcode) g JOIN codes c ON g.szcode = c.szcode
