-- What the result before does not have.
SELECT ISTREAM k, SUM(v) AS v FROM t [Range 10, Slide 5] GROUP BY k;
