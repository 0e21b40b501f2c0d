-- Sums so far within each window.
SELECT ts, k, v, SUM(v) OVER (PARTITION BY k ORDER BY ts) AS so_far FROM t [Range 10, Slide 10];
