-- Query 13, bounded side input join: each bid with a value that stands in a file.
-- Published with FOR SYSTEM_TIME AS OF the processing time; a static table is the same at all times.
SELECT b.auction, b.bidder, b.price, b.date_time, s.value
FROM bid AS b JOIN side_input AS s ON b.auction % 100 = s.key;
