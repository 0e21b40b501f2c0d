SELECT COUNT(*) FROM STOCK s JOIN codes c ON s.szcode = c.szcode
GROUP BY TUMBLE(s.eventTime, INTERVAL '5' MINUTE)
