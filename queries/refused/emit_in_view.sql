CREATE VIEW v AS SELECT szcode, COUNT(*) AS n FROM STOCK [Range 5 minutes, Slide 1 minute] GROUP BY szcode EMIT CHANGES
