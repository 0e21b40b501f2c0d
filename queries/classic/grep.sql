-- Grep of the D-Streams paper: how many lines of every ten seconds match a pattern.
SELECT window_end, COUNT(*) AS matches
FROM lines [Range 10 seconds, Slide 10 seconds]
WHERE line LIKE '%error%'
GROUP BY window_end;
