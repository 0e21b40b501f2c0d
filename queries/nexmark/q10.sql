-- Query 10, log to a file system: the bids with the day and the minute that their folder is named after.
-- Published with a destination in folders by day and minute; INSERT INTO a sink of connector files writes one folder.
SELECT auction, bidder, price, date_time, extra, to_char(date_time, '%Y-%m-%d') AS dt, to_char(date_time, '%H:%M') AS hm
FROM bid;
