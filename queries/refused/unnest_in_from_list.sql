SELECT * FROM STOCK [Range 30 s, Slide 10 s] s, UNNEST(string_to_array(s.szcode, ' ')) AS w(word)
