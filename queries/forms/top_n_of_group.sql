-- The largest row of each key in a window.
SELECT window_end, k, v FROM
  (SELECT window_end, k, v, ROW_NUMBER() OVER (PARTITION BY k ORDER BY v DESC) AS place FROM t [Range 10, Slide 10])
WHERE place = 1;
