SELECT * FROM STOCK s FULL JOIN codes c ON s.szcode = c.szcode
