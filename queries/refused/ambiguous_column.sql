SELECT p.userID, SUM(lastPrice * openInterest)
FROM POSITION [Range 5 minutes, Slide 1 minute] AS p, STOCK [Range 5 minutes, Slide 1 minute] AS s,
ON p.szcode = s.szcode
GROUP BY p.userID
