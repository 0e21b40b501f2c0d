-- Turnover by code and minute, kept, and then the three codes with the most in their best minute.
CREATE MATERIALIZED VIEW turnover AS
  SELECT window_end AS closed, szcode, SUM(Price * Turnover) AS turnover
  FROM TRANSACTION [Range 1 minute, Slide 1 minute]
  GROUP BY window_end, szcode;

SELECT szcode, MAX(turnover) AS best, COUNT(*) AS minutes FROM turnover GROUP BY szcode ORDER BY best DESC LIMIT 3;
