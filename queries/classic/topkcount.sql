-- TopKCount of the D-Streams paper: the three most frequent words of 30 seconds, every ten.
SELECT window_end, word, COUNT(*) AS n
FROM (
  SELECT window_end, unnest(string_to_array(line, ' ')) AS word
  FROM lines [Range 30 seconds, Slide 10 seconds]
) AS words
GROUP BY window_end, word
ORDER BY n DESC, word
LIMIT 3;
