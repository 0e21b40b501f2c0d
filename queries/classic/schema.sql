-- The inputs of the classic queries, from a few rows; run from the root of the repository:
--   millstream run queries/classic/schema.sql queries/classic/wordcount.sql
CREATE STREAM lines (ts TIMESTAMP(3), line VARCHAR, WATERMARK FOR ts AS ts - INTERVAL '5' SECOND)
WITH (connector = 'files', path = 'queries/classic/data/lines.csv');

CREATE STREAM sales (
  ts TIMESTAMP(3), product VARCHAR, category VARCHAR, quantity BIGINT,
  WATERMARK FOR ts AS ts - INTERVAL '5' SECOND
) WITH (connector = 'files', path = 'queries/classic/data/sales.csv');

CREATE STREAM visits (ts TIMESTAMP(3), name VARCHAR, page VARCHAR, WATERMARK FOR ts AS ts - INTERVAL '5' SECOND)
WITH (connector = 'files', path = 'queries/classic/data/visits.csv');

CREATE TABLE blacklist (name VARCHAR, reason VARCHAR)
WITH (connector = 'files', path = 'queries/classic/data/blacklist.csv');

-- What players of videos report: that they joined after so many milliseconds, played or waited for so many.
CREATE STREAM playback (
  ts TIMESTAMP(3), session VARCHAR, region VARCHAR, cdn VARCHAR, device VARCHAR, event VARCHAR, millis BIGINT,
  WATERMARK FOR ts AS ts - INTERVAL '5' SECOND
) WITH (connector = 'files', path = 'queries/classic/data/playback.csv');

-- How fast vehicles go, in km/h.
CREATE STREAM positions (ts TIMESTAMP(3), road VARCHAR, speed BIGINT, WATERMARK FOR ts AS ts - INTERVAL '2' SECOND)
WITH (connector = 'files', path = 'queries/classic/data/positions.csv');

-- How fast they went in the five seconds from a time of day on: how many there were, and their mean speed.
CREATE TABLE past_speeds (day DATE, slot VARCHAR, road VARCHAR, vehicles BIGINT, speed BIGINT)
WITH (connector = 'files', path = 'queries/classic/data/past_speeds.csv');
