-- Queries of other shapes over the streams of the benchmark: rows that pass, groups without end, views and tables.
INCLUDE 'schema.sql';

CREATE TABLE listed (szcode VARCHAR NOT NULL, name VARCHAR);
CREATE VIEW minutes AS
  SELECT window_end, szcode, SUM(Turnover) AS shares FROM TRANSACTION [Range 1 minute, Slide 1 minute]
  GROUP BY window_end, szcode;

TEST rows_pass_at_once BEGIN
  INSERT INTO transaction (szcode, Turnover, eventTime) VALUES ('A', 5, 1000), ('B', 500, 2000), ('C', 50, 1500);
  ASSERT SELECT szcode, Turnover * 2 AS twice FROM TRANSACTION WHERE Turnover >= 50 RETURNS ('B', 1000), ('C', 100);
END;

TEST rows_are_joined_with_a_table BEGIN
  INSERT INTO listed VALUES ('A', 'Alpha'), ('B', NULL);
  INSERT INTO transaction (szcode, Turnover, eventTime) VALUES ('A', 5, 1000), ('B', 6, 1000), ('X', 7, 1000);
  ASSERT SELECT t.szcode, l.name, t.Turnover FROM TRANSACTION t JOIN listed l ON t.szcode = l.szcode
  RETURNS ('A', 'Alpha', 5), ('B', NULL, 6);
END;

TEST groups_without_end_have_their_last_state BEGIN
  INSERT INTO transaction (szcode, Turnover, eventTime) VALUES ('A', 5, 1000), ('B', 6, 1000);
  INSERT INTO transaction (szcode, Turnover, eventTime) VALUES ('A', 7, 500);
  ASSERT SELECT szcode, COUNT(*), SUM(Turnover) FROM TRANSACTION GROUP BY szcode RETURNS ('A', 2, 12), ('B', 1, 6);
END;

TEST streams_pass_without_waiting_for_each_other BEGIN
  INSERT INTO stock VALUES ('A', 1000, 1.0), ('A', 100000, 2.0), ('A', 200000, 3.0);
  ASSERT SELECT szcode, lastPrice AS price FROM STOCK UNION ALL SELECT szcode, Price FROM TRANSACTION
  RETURNS ('A', 1.0), ('A', 2.0), ('A', 3.0);
END;

TEST windows_over_windows BEGIN
  INSERT INTO transaction (szcode, Turnover, eventTime) VALUES ('A', 1, 1000), ('A', 2, 61000), ('A', 4, 121000);
  ADVANCE WATERMARK TO 120000;
  ASSERT SELECT * FROM minutes ORDER BY window_end RETURNS (60000, 'A', 1), (120000, 'A', 2);
  ASSERT SELECT window_end, MAX(shares) FROM minutes [Range 2 minutes, Slide 2 minutes] GROUP BY window_end
  RETURNS (120000, 2);
END;

TEST a_query_without_streams_is_answered_at_once BEGIN
  ASSERT SELECT 6 * 7 RETURNS (42);
  ASSERT ERROR SELECT lastPrise FROM STOCK LIKE '%unknown column%';
  ASSERT ERROR SELEC 1 LIKE '%starts no statement%';
END;
