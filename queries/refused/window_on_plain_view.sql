CREATE VIEW v_counts AS SELECT szcode, COUNT(*) AS n FROM STOCK GROUP BY szcode;
SELECT COUNT(*) FROM v_counts [Range 5 minutes, Slide 1 minute]
