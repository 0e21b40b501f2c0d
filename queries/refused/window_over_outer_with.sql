WITH v AS (SELECT codes.szcode, STOCK.lastPrice FROM codes LEFT JOIN STOCK ON codes.szcode = STOCK.szcode)
SELECT COUNT(*) FROM v [Range 10, Slide 10]
