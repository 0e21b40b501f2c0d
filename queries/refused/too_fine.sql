SELECT COUNT(*) FROM STOCK [Range 0.5 ns, Slide 1]
