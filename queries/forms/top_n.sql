-- The two largest rows of each window.
SELECT window_end, k, v FROM t [Range 10, Slide 10] ORDER BY v DESC LIMIT 2;
