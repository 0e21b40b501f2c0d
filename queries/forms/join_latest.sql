-- The current amount at the current price.
SELECT a.window_end, a.k, v * price AS value
FROM t [Partition By k Rows 1, Slide 5 s] a JOIN q [Partition By k Rows 1, Slide 5 s] b ON a.k = b.k;
