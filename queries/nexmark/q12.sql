-- Query 12, processing-time windows: how many bids of each user arrive in every ten seconds by the clock.
-- Where a window ends depends on when the bids arrive, so that only the sum over all windows is the same in every run.
SELECT bidder, COUNT(*) AS bids, window_start, window_end
FROM bid_on_arrival [Range 10 seconds, Slide 10 seconds]
GROUP BY bidder, window_start, window_end;
