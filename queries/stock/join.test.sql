-- The Join query: a holding is multiplied with each price that its stock had in the window.
INCLUDE 'schema.sql';

TEST every_price_counts BEGIN
  INSERT INTO stock VALUES ('A', 1000, 2.0), ('A', 2000, 3.0), ('B', 2500, 100.0);
  INSERT INTO position VALUES ('u1', 'A', 1500, 0.0, 10), ('u2', 'C', 1500, 0.0, 10);
  ADVANCE WATERMARK TO 60000;
  ASSERT FILE 'join.sql' WITH (n = '1 minute', s = '1 minute') RETURNS ('u1', 50.0);
END;

TEST the_slower_stream_decides BEGIN
  INSERT INTO stock VALUES ('A', 1000, 2.0);
  INSERT INTO position VALUES ('u1', 'A', 1500, 0.0, 10);
  ADVANCE WATERMARK FOR stock TO 60000;
  ASSERT NO ROWS FILE 'join.sql' WITH (n = '1 minute', s = '1 minute');
  ADVANCE WATERMARK FOR position TO 60000;
  ASSERT FILE 'join.sql' WITH (n = '1 minute', s = '1 minute') RETURNS ('u1', 20.0);
END;
