-- As Spark writes it.
SELECT k, SUM(v) AS v FROM t GROUP BY session_window(ts, '3 seconds'), k;
