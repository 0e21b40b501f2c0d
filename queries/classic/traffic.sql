-- Traffic estimation, after Mobile Millennium on Spark Streaming: the speed on each road in every five seconds from
-- the vehicles that were seen, and as many as were seen in the same five seconds of earlier days.
SELECT live.window_end, live.road, live.vehicles, COALESCE(past.vehicles, 0) AS past_vehicles,
  (live.total + COALESCE(past.total, 0)) * 10 / (live.vehicles + COALESCE(past.vehicles, 0)) AS tenths
FROM (
  SELECT window_end, to_char(window_start, '%H:%M:%S') AS slot, road, COUNT(*) AS vehicles, SUM(speed) AS total
  FROM positions [Range 5 seconds, Slide 5 seconds]
  GROUP BY window_start, window_end, road
) AS live
LEFT JOIN (
  SELECT slot, road, SUM(vehicles) AS vehicles, SUM(vehicles * speed) AS total
  FROM past_speeds
  GROUP BY slot, road
) AS past
ON live.slot = past.slot AND live.road = past.road;
