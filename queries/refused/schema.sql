-- Declared before each statement of this folder is tried.
CREATE STREAM STOCK (
  szcode VARCHAR, eventTime TIMESTAMP(3), lastPrice DOUBLE,
  WATERMARK FOR eventTime AS eventTime - INTERVAL '2' SECOND
) WITH (connector = 'socket', format = 'csv');
CREATE STREAM TRANSACTION (
  szcode VARCHAR, userID VARCHAR, eventTime TIMESTAMP(3), Turnover BIGINT, Price DOUBLE,
  WATERMARK FOR eventTime AS eventTime - INTERVAL '2' SECOND
) WITH (connector = 'socket', format = 'csv');
CREATE STREAM POSITION (
  userID VARCHAR, szcode VARCHAR, eventTime TIMESTAMP(3), lastPrice DOUBLE, openInterest BIGINT,
  WATERMARK FOR eventTime AS eventTime - INTERVAL '2' SECOND
) WITH (connector = 'socket', format = 'csv');
CREATE STREAM clicks (page VARCHAR, ts TIMESTAMP(3)) WITH (connector = 'socket');
CREATE STREAM odd (
  timestamp TIMESTAMP(3), start BIGINT, end BIGINT, window BIGINT, range BIGINT, rows BIGINT,
  WATERMARK FOR timestamp AS timestamp - INTERVAL '2' SECOND
) WITH (connector = 'socket');
CREATE STREAM market."Odd name" (x INT, ts TIMESTAMP(3), WATERMARK FOR ts) WITH (connector = 'socket');
CREATE TABLE codes (szcode VARCHAR, name VARCHAR) WITH (connector = 'files', path = 'codes.csv');
CREATE VIEW v_minutes AS
  SELECT window_end, szcode, COUNT(*) AS n FROM STOCK [Range 1 minute, Slide 1 minute] GROUP BY window_end, szcode;
CREATE VIEW v_dear AS SELECT * FROM STOCK WHERE lastPrice > 100;
CREATE SINK out WITH (connector = 'blackhole');
