-- Query 5, hot items: the auctions with the most bids in ten seconds, every two seconds.
SELECT counted.window_end, counted.auction, counted.bids
FROM (
  SELECT window_start, window_end, auction, COUNT(*) AS bids
  FROM TABLE(HOP(TABLE bid, DESCRIPTOR(date_time), INTERVAL '2' SECOND, INTERVAL '10' SECOND))
  GROUP BY window_start, window_end, auction
) AS counted
JOIN (
  SELECT window_start, window_end, MAX(bids) AS most
  FROM (
    SELECT window_start, window_end, COUNT(*) AS bids
    FROM TABLE(HOP(TABLE bid, DESCRIPTOR(date_time), INTERVAL '2' SECOND, INTERVAL '10' SECOND))
    GROUP BY window_start, window_end, auction
  )
  GROUP BY window_start, window_end
) AS highest
ON counted.window_start = highest.window_start AND counted.window_end = highest.window_end
  AND counted.bids >= highest.most;
