SELECT COUNT(*) FROM STOCK [Range 1 day, Slide 1 day, Time Zone 'America/New_York']
