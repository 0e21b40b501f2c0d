-- Query 18, find last bid: the last bid of each user on each auction so far, once a minute.
-- Published as a ROW_NUMBER over all bids whose first row changes for ever.
SELECT auction, bidder, price, channel, url, date_time, extra, window_end
FROM bid [Partition By bidder, auction Rows 1, Slide 1 minute];
