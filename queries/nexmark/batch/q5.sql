WITH instants AS (
  SELECT unnest(generate_series(
    TIMESTAMP '2024-01-01T23:57:00', TIMESTAMP '2024-01-02T00:03:00', INTERVAL '2 seconds'
  )) AS window_end
),
ranked AS (
  SELECT window_end, auction, COUNT(*) AS bids,
    RANK() OVER (PARTITION BY window_end ORDER BY COUNT(*) DESC) AS place
  FROM bid JOIN instants ON date_time >= window_end - INTERVAL '10 seconds' AND date_time < window_end
  GROUP BY window_end, auction
)
SELECT window_end, auction, bids FROM ranked WHERE place = 1
