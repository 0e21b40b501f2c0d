-- The last window of two rows with the price at the time.
SELECT t.window_end AS t_end, q.window_end AS q_end, v, price
FROM t [Rows 2, Slide 2] JOIN q [Partition By k Rows 1] ON t.k = q.k;
