-- The auction house of Nexmark: 20,000 events, 100 a second, from two minutes before midnight on, some seconds out of
-- order. To measure, declare the same with more events and the event_rate that you want.
CREATE STREAM person (
  id BIGINT, name VARCHAR, email_address VARCHAR, credit_card VARCHAR, city VARCHAR, state VARCHAR,
  date_time TIMESTAMP(3), extra VARCHAR,
  WATERMARK FOR date_time AS date_time - INTERVAL '4' SECOND
) WITH (
  connector = 'nexmark', table = 'person', events = '20000', event_rate = '100',
  start = '2024-01-01T23:58:00', out_of_order_group_size = '6'
);

CREATE STREAM auction (
  id BIGINT, item_name VARCHAR, description VARCHAR, initial_bid BIGINT, reserve BIGINT,
  date_time TIMESTAMP(3), expires TIMESTAMP(3), seller BIGINT, category BIGINT, extra VARCHAR,
  WATERMARK FOR date_time AS date_time - INTERVAL '4' SECOND
) WITH (
  connector = 'nexmark', table = 'auction', events = '20000', event_rate = '100',
  start = '2024-01-01T23:58:00', out_of_order_group_size = '20'
);

CREATE STREAM bid (
  auction BIGINT, bidder BIGINT, price BIGINT, channel VARCHAR, url VARCHAR,
  date_time TIMESTAMP(3), extra VARCHAR,
  WATERMARK FOR date_time AS date_time - INTERVAL '4' SECOND
) WITH (
  connector = 'nexmark', table = 'bid', events = '20000', event_rate = '100',
  start = '2024-01-01T23:58:00', out_of_order_group_size = '100'
);

-- The same bids by the time of their arrival, for query 12.
CREATE STREAM bid_on_arrival (auction BIGINT, bidder BIGINT)
WITH (connector = 'nexmark', table = 'bid', events = '20000', event_rate = '100', start = '2024-01-01T23:58:00');

-- The bounded input that query 13 joins: a value for some of the keys from 0 to 99.
CREATE TABLE side_input (key BIGINT, value VARCHAR)
WITH (connector = 'files', path = 'queries/nexmark/side_input.csv');
