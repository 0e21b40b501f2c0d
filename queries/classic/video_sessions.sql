-- Video sessions, as Conviva had them on Spark Streaming: what each session was like, then how sessions were by region
-- and network. A session ends when its player has been silent for ten seconds; it counts in the two windows of a
-- minute, one every 30 seconds, in which it ends.
CREATE VIEW sessions AS
SELECT window_start, window_end, session,
  first_value(region ORDER BY ts) AS region, first_value(cdn ORDER BY ts) AS cdn,
  first_value(device ORDER BY ts) AS device,
  SUM(millis) FILTER (WHERE event = 'join') AS joining,
  SUM(millis) FILTER (WHERE event = 'play') AS playing,
  SUM(millis) FILTER (WHERE event = 'buffer') AS buffering
FROM playback [Session Gap 10 seconds Partition By session]
GROUP BY window_start, window_end, session;

SELECT window_end, region, cdn, device, COUNT(*) AS sessions, MAX(joining) AS slowest_join,
  COUNT(*) FILTER (WHERE playing IS NULL) AS never_played,
  SUM(COALESCE(playing, 0)) AS playing, SUM(COALESCE(buffering, 0)) AS buffering
FROM sessions [Range 60 seconds, Slide 30 seconds]
GROUP BY GROUPING SETS ((window_end), (window_end, region), (window_end, cdn), (window_end, device));
