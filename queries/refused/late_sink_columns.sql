SELECT COUNT(*) FROM STOCK [Range 5 minutes, Slide 1 minute] s
JOIN POSITION [Range 5 minutes, Slide 1 minute] p ON s.szcode = p.szcode LATE DATA TO out
