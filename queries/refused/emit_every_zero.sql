SELECT COUNT(*) FROM STOCK [Range 5 minutes, Slide 1 minute] EMIT EVERY 0 seconds
