SELECT session_window.start, szcode, COUNT(*) FROM STOCK GROUP BY session_window(eventTime, '5 minutes'), 2
