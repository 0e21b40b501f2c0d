-- As Flink writes it.
SELECT window_start, window_end, k, SUM(v) AS v
FROM SESSION(TABLE t PARTITION BY k, DESCRIPTOR(ts), INTERVAL '3' SECOND) GROUP BY window_start, window_end, k;
