CREATE STREAM t (a INT) WITH (connector = 'files', path = 'x.csv', refresh_interval = '1 s')
