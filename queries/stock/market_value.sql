-- What the Join query is about: the market value of what each user holds, current price times current holding.
-- The latest quote of each stock meets the latest position of each user in it, once every slide.
SELECT p.window_end, p.userID, SUM(s.lastPrice * p.openInterest) AS value
FROM POSITION [Partition By userID, szcode Rows 1, Slide s] AS p
JOIN STOCK [Partition By szcode Rows 1, Slide s] AS s ON p.szcode = s.szcode
GROUP BY p.window_end, p.userID;
