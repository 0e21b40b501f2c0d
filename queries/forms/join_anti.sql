-- Rows without.
SELECT ts, k, v FROM t [Range 5, Slide 5] LEFT ANTI JOIN q [Range 5, Slide 5] ON t.k = q.k;
