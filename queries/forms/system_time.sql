-- As Flink writes it.
SELECT a.ts, a.k, v, price FROM t AS a JOIN q FOR SYSTEM_TIME AS OF a.ts AS b ON a.k = b.k;
