-- The three streams from a few rows that can be checked by hand; run from the root of the repository.
CREATE STREAM STOCK (
  szcode VARCHAR, eventTime TIMESTAMP(3), lastPrice DOUBLE,
  WATERMARK FOR eventTime AS eventTime - INTERVAL '30 seconds'
) WITH (connector = 'files', path = 'queries/stock/small/stock.csv');

CREATE STREAM TRANSACTION (
  szcode VARCHAR, userID VARCHAR, eventTime TIMESTAMP(3), Turnover BIGINT, Price DOUBLE,
  WATERMARK FOR eventTime AS eventTime - INTERVAL '30 seconds'
) WITH (connector = 'files', path = 'queries/stock/small/transaction.csv');

CREATE STREAM POSITION (
  userID VARCHAR, szcode VARCHAR, eventTime TIMESTAMP(3), lastPrice DOUBLE, openInterest BIGINT,
  WATERMARK FOR eventTime AS eventTime - INTERVAL '30 seconds'
) WITH (connector = 'files', path = 'queries/stock/small/position.csv');
