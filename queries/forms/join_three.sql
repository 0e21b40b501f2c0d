-- Three windows.
SELECT t.k, SUM(t.v) AS v, MAX(price) AS price, COUNT(l.v) AS l
FROM t [Range 10, Slide 10] JOIN q [Range 10, Slide 10] ON t.k = q.k JOIN l [Range 10, Slide 10] ON l.v > t.v
GROUP BY t.k;
