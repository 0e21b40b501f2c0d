SELECT COUNT(*) FROM clicks [Range 5 minutes, Slide 1 minute] LATE DATA TO out
