CREATE MATERIALIZED VIEW v AS SELECT szcode, COUNT(*) AS n FROM STOCK [Range 5 minutes, Slide 1 minute] GROUP BY szcode;
SELECT s.szcode, v.n FROM STOCK [Now] AS s JOIN v ON s.szcode = v.szcode
