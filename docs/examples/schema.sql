-- The streams and the table of the examples in docs/sql.md and docs/semantics.md; run from the root of the repository.

-- Seven rows in order, of two keys.
CREATE STREAM t (ts TIMESTAMP(3), k VARCHAR, v BIGINT, WATERMARK FOR ts)
WITH (connector = 'files', path = 'docs/examples/t.csv');

-- Prices of the two keys.
CREATE STREAM q (ts TIMESTAMP(3), k VARCHAR, price BIGINT, WATERMARK FOR ts)
WITH (connector = 'files', path = 'docs/examples/q.csv');

-- Eight rows out of order, in three files.
CREATE STREAM l (ts TIMESTAMP(3), v BIGINT, WATERMARK FOR ts AS ts - INTERVAL '2 seconds')
WITH (connector = 'files', path = 'docs/examples/l');

CREATE TABLE names (k VARCHAR, name VARCHAR) WITH (connector = 'files', path = 'docs/examples/names.csv');
