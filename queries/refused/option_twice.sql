CREATE STREAM t (x INT) WITH (format = 'csv', 'FORMAT' = 'json')
