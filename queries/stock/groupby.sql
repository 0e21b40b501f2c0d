-- The benchmark's GroupBy query, as printed: the value traded of each stock.
-- n and s are bound on the command line: -p n='5 minutes' -p s='1 minute'
SELECT szcode,SUM(Price*Turnover)
FROM TRANSACTION [Range n,Slide s]
GROUP BY szcode;
