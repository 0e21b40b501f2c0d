SELECT COUNT(*) FROM clicks GROUP BY window(ts, '5 minutes')
