-- Rows above the mean of their window.
SELECT ts, v FROM t [Range 10, Slide 10] WHERE v > (SELECT AVG(v) FROM t [Range 10, Slide 10]);
