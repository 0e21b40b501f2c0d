SELECT COUNT(*) FROM codes [Range 5 minutes, Slide 1 minute]
