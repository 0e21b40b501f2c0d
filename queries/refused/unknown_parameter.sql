SELECT szcode, SUM(Price*Turnover)
FROM TRANSACTION [Range n,Slide s]
GROUP BY szcode
