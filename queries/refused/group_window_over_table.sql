SELECT COUNT(*) FROM codes GROUP BY tumble(interval '5 minutes')
