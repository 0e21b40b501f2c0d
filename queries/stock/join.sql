-- The benchmark's Join query, with its comma before ON as printed. Printed too are an alias "c" that the query does
-- not have and a lastPrice that both sides have; here they are p and s, as the text around the query means.
-- Every quote in the window counts: a holding is multiplied with each price its stock had.
SELECT p.userID,SUM(s.lastPrice* openInterest)
FROM POSITION[Range n,Slide s] as p,STOCK[Range n,Slide s] as s,
ON p.szcode = s.szcode
GROUP BY p.userID;
