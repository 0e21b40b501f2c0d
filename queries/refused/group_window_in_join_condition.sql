SELECT COUNT(*) FROM STOCK [Range 1, Slide 1] s JOIN codes c ON s.szcode = c.szcode AND tumble(interval '5 s') IS NOT NULL
