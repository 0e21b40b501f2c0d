-- bind n = soon
SELECT COUNT(*) FROM STOCK [Range n, Slide 1]
