-- bind n = 2 months
SELECT COUNT(*) FROM STOCK [Range n, Slide 1 day]
