-- Rows with a price in their window.
SELECT ts, k, v FROM t [Range 5, Slide 5] WHERE EXISTS (SELECT 1 FROM q [Range 5, Slide 5] WHERE q.k = t.k);
