-- Query 20, expand bid with auction: each bid in category 10 with its auction.
-- Published over all auctions for ever; here a bid meets the auctions of the last minute, once: at the end of the ten
-- seconds it is in. Bids come at most 17 seconds after their auction, so that none is missed but those that come
-- before it.
SELECT b.auction, b.bidder, b.price, b.channel, b.url, b.date_time AS bid_date_time, b.extra AS bid_extra,
  a.item_name, a.description, a.initial_bid, a.reserve, a.date_time, a.expires, a.seller, a.category, a.extra
FROM bid [Range 10 seconds, Slide 10 seconds] AS b
JOIN auction [Range 1 minute, Slide 10 seconds] AS a ON b.auction = a.id
WHERE a.category = 10;
