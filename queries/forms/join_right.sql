-- Prices without a row in their window too.
SELECT t.ts, v, q.ts AS quoted, price FROM t [Range 5, Slide 5] RIGHT JOIN q [Range 5, Slide 5] ON t.k = q.k;
