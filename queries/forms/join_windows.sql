-- Windows of different range and slide.
SELECT t.window_end AS t_end, q.window_end AS q_end, t.ts, v, price
FROM t [Range 10, Slide 10] JOIN q [Range 5, Slide 5] ON t.k = q.k;
