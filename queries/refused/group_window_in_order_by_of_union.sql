SELECT szcode FROM STOCK UNION ALL SELECT szcode FROM POSITION ORDER BY tumble(interval '5 minutes')
