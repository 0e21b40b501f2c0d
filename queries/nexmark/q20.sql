-- Query 20, expand bid with auction: each bid in category 10 with its auction.
-- Published over all auctions for ever; here over those that opened in the minute before the bid. Bids come at most 17
-- seconds after their auction opens, so that none is missed but those that come before it.
SELECT b.auction, b.bidder, b.price, b.channel, b.url, b.date_time AS bid_date_time, b.extra AS bid_extra,
  a.item_name, a.description, a.initial_bid, a.reserve, a.date_time, a.expires, a.seller, a.category, a.extra
FROM bid AS b
JOIN auction AS a ON b.auction = a.id AND b.date_time BETWEEN a.date_time AND a.date_time + INTERVAL '1' MINUTE
WHERE a.category = 10;
