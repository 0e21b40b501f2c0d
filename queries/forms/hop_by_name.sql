-- The same by the names of its arguments.
SELECT window_end, SUM(v) AS v
FROM HOP(DATA => TABLE t, TIMECOL => DESCRIPTOR(ts), SLIDE => INTERVAL '5' SECOND, SIZE => INTERVAL '10' SECOND)
GROUP BY window_end;
