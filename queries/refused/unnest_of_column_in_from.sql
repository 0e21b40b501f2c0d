SELECT word, COUNT(*) FROM STOCK [Range 30 s, Slide 10 s] CROSS JOIN UNNEST(string_to_array(szcode, ' ')) AS w(word) GROUP BY word
