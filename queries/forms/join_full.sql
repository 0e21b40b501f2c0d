-- Both.
SELECT t.ts, v, q.ts AS quoted, price FROM t [Range 5, Slide 5] FULL JOIN q [Range 5, Slide 5] ON t.k = q.k;
