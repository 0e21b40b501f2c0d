-- Groups without a window, once an hour of the clock and at the end.
SET batch_rows = 1;
SELECT COUNT(*) AS n, SUM(v) AS v FROM l EMIT EVERY 1 hour;
