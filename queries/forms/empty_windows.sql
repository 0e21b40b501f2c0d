-- Windows without rows too.
SELECT COUNT(*) AS n FROM t [Range 5, Slide 5] WITH EMPTY WINDOWS;
