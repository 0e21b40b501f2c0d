-- A named part of a query.
WITH large AS (SELECT k, v FROM t [Range 10, Slide 10] WHERE v > 6) SELECT k, COUNT(*) AS n FROM large GROUP BY k;
