CREATE SINK o AS SELECT * FROM STOCK WITH (connector = 'console')
