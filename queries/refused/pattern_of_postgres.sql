SELECT to_char(window_end, 'YYYY-MM-DD HH24:MI') AS minute, COUNT(*) FROM STOCK [Range 1 minute, Slide 1 minute] GROUP BY window_end
