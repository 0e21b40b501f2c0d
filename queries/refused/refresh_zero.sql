CREATE TABLE t (a INT) WITH (connector = 'files', path = 'x.csv', refresh_interval = '0 s')
