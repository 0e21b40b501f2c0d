-- As Flink writes it: the slide, then the size.
SELECT window_end, SUM(v) AS v FROM HOP(TABLE t, DESCRIPTOR(ts), INTERVAL '5' SECOND, INTERVAL '10' SECOND)
GROUP BY window_end;
