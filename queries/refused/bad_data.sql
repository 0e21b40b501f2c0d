CREATE STREAM t (x INT) WITH (connector = 'socket',
  bad_data = 'ignore')
