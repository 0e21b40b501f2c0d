WITH instants AS (
  SELECT unnest(generate_series(
    TIMESTAMP '2024-01-01T23:59:00', TIMESTAMP '2024-01-02T00:02:00', INTERVAL '1 minute'
  )) AS window_end
)
SELECT auction, bidder, price, channel, url, date_time, extra, window_end
FROM (
  SELECT *, ROW_NUMBER() OVER (PARTITION BY window_end, bidder, auction ORDER BY date_time DESC) AS age
  FROM bid JOIN instants ON date_time < window_end
)
WHERE age = 1
