SELECT * FROM STOCK s RIGHT JOIN codes c ON s.szcode = c.szcode
