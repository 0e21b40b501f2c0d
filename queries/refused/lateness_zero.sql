SELECT COUNT(*) FROM STOCK [Range 5 minutes, Slide 1 minute] ALLOW LATENESS 0
