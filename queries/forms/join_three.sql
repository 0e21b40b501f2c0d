-- Three windows.
SELECT t.k, SUM(v) AS v, MAX(price) AS price, MAX(l.v) AS l
FROM t [Range 10, Slide 10] JOIN q [Range 10, Slide 10] ON t.k = q.k CROSS JOIN l [Range 10, Slide 10] GROUP BY t.k;
