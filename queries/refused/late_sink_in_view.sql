CREATE VIEW v AS SELECT COUNT(*) FROM STOCK [Range 5 minutes, Slide 1 minute] LATE DATA TO out
