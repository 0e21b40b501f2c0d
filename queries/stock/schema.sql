-- The three streams of the stock benchmark, from generators on loopback sockets:
--   millstream generate transaction --rate 1000 --listen 127.0.0.1:9999
--   millstream generate stock       --rate 1000 --listen 127.0.0.1:9998
--   millstream generate position    --rate 1000 --listen 127.0.0.1:9997
CREATE STREAM STOCK (
  szcode VARCHAR, eventTime TIMESTAMP(3), lastPrice DOUBLE,
  WATERMARK FOR eventTime AS eventTime - INTERVAL '1 second'
) WITH (connector = 'socket', address = '127.0.0.1:9998', format = 'csv');

CREATE STREAM TRANSACTION (
  szcode VARCHAR, userID VARCHAR, eventTime TIMESTAMP(3), Turnover BIGINT, Price DOUBLE,
  WATERMARK FOR eventTime AS eventTime - INTERVAL '1 second'
) WITH (connector = 'socket', address = '127.0.0.1:9999', format = 'csv');

CREATE STREAM POSITION (
  userID VARCHAR, szcode VARCHAR, eventTime TIMESTAMP(3), lastPrice DOUBLE, openInterest BIGINT,
  WATERMARK FOR eventTime AS eventTime - INTERVAL '1 second'
) WITH (connector = 'socket', address = '127.0.0.1:9997', format = 'csv');
