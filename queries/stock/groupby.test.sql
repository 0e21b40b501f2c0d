-- The GroupBy query and what its text leaves open: which window a row is in, and what becomes of late rows.
INCLUDE 'schema.sql';

TEST a_row_counts_in_every_window_over_it BEGIN
  INSERT INTO transaction VALUES
    ('600519', 'u1', TIMESTAMP '2024-01-02 09:30:10', 100, 10.5),
    ('000001', 'u2', TIMESTAMP '2024-01-02 09:30:20', 200, 2.0),
    ('600519', 'u2', TIMESTAMP '2024-01-02 09:30:59', 10, 11.0);
  -- The watermark is a second behind the last row: nothing is complete yet.
  ASSERT NO ROWS FILE 'groupby.sql' WITH (n = '2 minutes', s = '1 minute');
  ADVANCE WATERMARK TO TIMESTAMP '2024-01-02 09:31:00';
  ASSERT FILE 'groupby.sql' WITH (n = '2 minutes', s = '1 minute') RETURNS
    ('600519', 1160.0),
    ('000001', 400.0);
  -- The same rows once more, in the window that ends a minute later.
  ADVANCE WATERMARK TO END;
  ASSERT FILE 'groupby.sql' WITH (n = '2 minutes', s = '1 minute') RETURNS
    ('600519', 1160.0), ('000001', 400.0),
    ('600519', 1160.0), ('000001', 400.0);
END;

TEST a_late_row_counts_in_the_windows_to_come BEGIN
  INSERT INTO transaction (szcode, eventTime, Turnover, Price) VALUES ('A', 5000, 1, 1.0);
  ADVANCE WATERMARK FOR transaction TO 60000;
  INSERT INTO transaction (szcode, eventTime, Turnover, Price) VALUES ('A', 30000, 10, 1.0);
  ADVANCE WATERMARK TO END;
  ASSERT SELECT window_end, SUM(Turnover) FROM TRANSACTION [Range 2 minutes, Slide 1 minute]
         GROUP BY window_end ORDER BY window_end
  RETURNS (60000, 1), (120000, 11);
END;

TEST a_row_too_late_for_all_windows_is_kept BEGIN
  INSERT INTO transaction (szcode, eventTime, Turnover, Price) VALUES ('A', 70000, 1, 1.0);
  ADVANCE WATERMARK TO 120000;
  INSERT INTO transaction (szcode, eventTime, Turnover, Price) VALUES ('B', 59999, 10, 1.0);
  ASSERT FILE 'groupby.sql' WITH (n = '1 minute', s = '1 minute') RETURNS ('A', 1.0);
  ASSERT SELECT szcode, turnover FROM transaction$late RETURNS ('B', 10);
END;

TEST 'whole turnovers do not wrap' BEGIN
  INSERT INTO transaction (szcode, eventTime, Turnover) VALUES ('A', 1, 9223372036854775807), ('A', 2, 1);
  ADVANCE WATERMARK TO END;
  ASSERT ERROR SELECT SUM(Turnover) FROM TRANSACTION [Range 1 minute, Slide 1 minute] LIKE '%out of range%';
END;
