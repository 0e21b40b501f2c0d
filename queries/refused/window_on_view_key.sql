CREATE VIEW v_lower AS SELECT lower(szcode) AS code, eventTime FROM STOCK;
SELECT * FROM v_lower [Partition By code Rows 1]
