CREATE VIEW v AS SELECT a.szcode, b.szcode FROM STOCK [Range 5, Slide 1] a, STOCK [Range 6, Slide 1] b
