-- Relations with a comma before ON.
SELECT a.k, SUM(b.price * a.v) AS value
FROM t [Range 10, Slide 10] AS a, q [Range 10, Slide 10] AS b, ON a.k = b.k GROUP BY a.k;
