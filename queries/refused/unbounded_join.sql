SELECT * FROM POSITION p JOIN STOCK s ON p.szcode = s.szcode
