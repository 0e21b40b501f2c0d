-- Days from midnight to midnight in Shanghai.
SELECT window_start, window_end, SUM(v) AS v FROM t [Range 1 day, Slide 1 day, Time Zone 'Asia/Shanghai']
GROUP BY window_start, window_end;
