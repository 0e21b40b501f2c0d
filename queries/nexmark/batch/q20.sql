SELECT bid.auction, bid.bidder, bid.price, bid.channel, bid.url, bid.date_time, bid.extra, house.item_name,
  house.description, house.initial_bid, house.reserve, house.date_time, house.expires, house.seller, house.category,
  house.extra
FROM bid, auction AS house
WHERE house.category = 10 AND bid.auction = house.id AND house.date_time <= bid.date_time
