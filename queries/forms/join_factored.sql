-- Grouped before they are joined, as each factor is of one stream.
SELECT t.k, SUM(v * price) AS value, COUNT(*) AS n
FROM t [Range 10, Slide 10] JOIN q [Range 10, Slide 10] ON t.k = q.k GROUP BY t.k;
