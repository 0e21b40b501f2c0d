SELECT COUNT(*) FROM STOCK [Range 5 minutes, Slide 1 minute] GROUP BY TUMBLE(eventTime, INTERVAL '5' MINUTE)
