-- As ksqlDB writes it.
SELECT k, SUM(v) AS v FROM t WINDOW SESSION (3 SECONDS) GROUP BY k;
