SELECT p.userID FROM POSITION p JOIN STOCK [Range 5 minutes, Slide 1 minute] s ON p.szcode = s.szcode
