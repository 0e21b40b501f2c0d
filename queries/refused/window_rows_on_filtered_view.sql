SELECT * FROM v_dear [Rows 2, Slide 10 s]
