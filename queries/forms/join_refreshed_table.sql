-- The same with a table that is read again every hour.
CREATE TABLE listed (k VARCHAR, name VARCHAR)
WITH (connector = 'files', path = 'docs/examples/names.csv', refresh_interval = '1 hour');
SELECT window_end, name, SUM(v) AS v FROM t [Range 10, Slide 10] JOIN listed ON t.k = listed.k GROUP BY window_end, name;
