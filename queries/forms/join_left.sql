-- Rows without a price in their window beside NULL.
SELECT t.ts, t.k, v, price FROM t [Range 5, Slide 5] LEFT JOIN q [Range 5, Slide 5] ON t.k = q.k;
