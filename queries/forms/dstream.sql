-- What only the result before has.
SELECT DSTREAM k, SUM(v) AS v FROM t [Range 10, Slide 5] GROUP BY k;
