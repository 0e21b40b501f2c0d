CREATE STREAM t (ts TIMESTAMP(3), WATERMARK FOR ts AS date_trunc('second', ts))
