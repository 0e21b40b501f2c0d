-- Each result whole, as without.
SELECT RSTREAM k, SUM(v) AS v FROM t [Range 10, Slide 5] GROUP BY k;
