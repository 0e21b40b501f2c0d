-- Every five seconds, the rows since the last full fifteen.
SELECT window_start, window_end, SUM(v) AS v
FROM CUMULATE(TABLE t, DESCRIPTOR(ts), INTERVAL '5' SECOND, INTERVAL '15' SECOND) GROUP BY window_start, window_end;
