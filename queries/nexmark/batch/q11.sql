WITH starts AS (
  SELECT bidder, date_time,
    CASE WHEN date_time - LAG(date_time) OVER (PARTITION BY bidder ORDER BY date_time) < INTERVAL '10 seconds'
      THEN 0 ELSE 1 END AS is_start
  FROM bid
),
numbered AS (
  SELECT bidder, date_time, SUM(is_start) OVER (PARTITION BY bidder ORDER BY date_time) AS session FROM starts
)
SELECT bidder, COUNT(*), MIN(date_time), MAX(date_time) + INTERVAL '10 seconds'
FROM numbered GROUP BY bidder, session
