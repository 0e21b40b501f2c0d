-- A minute of generated trades, 100,000 a second, summed up every second of event time into Parquet files.
-- Run it with --state-dir, kill it as often as you like, and start it again: see docs/operations.md.
CREATE STREAM TRANSACTION (
  szcode VARCHAR, userID VARCHAR, eventTime TIMESTAMP(3), Turnover BIGINT, Price DOUBLE,
  WATERMARK FOR eventTime AS eventTime
) WITH (connector = 'generate', rows = 6000000, rate = 100000, codes = 400);

CREATE SINK windows WITH (connector = 'files', path = 'windows', format = 'parquet');

INSERT INTO windows
SELECT window_end AS closed, szcode, COUNT(*) AS trades, SUM(Price*Turnover) AS value
FROM TRANSACTION [Range 30 seconds, Slide 1 second]
GROUP BY window_end, szcode;
