SELECT szcode FROM STOCK [Range 5 minutes, Slide 1 minute]
WHERE eventTime > NOW() - INTERVAL '1' HOUR
