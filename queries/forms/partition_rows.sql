-- At the time of every row, the last one of each key.
SELECT window_end, k, v FROM t [Partition By k Rows 1];
