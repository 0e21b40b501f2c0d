-- The first row of each key in a window.
SELECT DISTINCT ON (k) k, ts, v FROM t [Range 10, Slide 10] ORDER BY k, ts;
