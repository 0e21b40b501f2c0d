SELECT COUNT(*) FROM v_dear [Range 5 minutes, Slide 1 minute]
