SELECT * FROM STOCK [Range 5, Slide 1] s JOIN codez c ON s.szcode = c.szcode
