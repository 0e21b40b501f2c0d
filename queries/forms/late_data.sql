-- Rows that are late for all windows go to a sink of their own.
CREATE SINK r WITH (connector = 'blackhole');
CREATE SINK late WITH (connector = 'console', format = 'csv');
INSERT INTO r SELECT window_end, SUM(v) AS v FROM l [Range 5, Slide 5] GROUP BY window_end LATE DATA TO late;
