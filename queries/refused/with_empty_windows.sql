SELECT COUNT(*) FROM STOCK [Range 5 minutes, Slide 1 minute] WITH EMPTY WINDOWS
