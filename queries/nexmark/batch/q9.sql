SELECT a.id, a.item_name, a.description, a.initial_bid, a.reserve, a.date_time, a.expires, a.seller, a.category,
  b.auction, b.bidder, b.price, b.date_time, b.extra
FROM auction AS a JOIN bid AS b ON a.id = b.auction
WHERE b.date_time >= a.date_time AND b.date_time <= a.expires
  AND NOT EXISTS (
    SELECT 1 FROM bid AS better
    WHERE better.auction = a.id AND better.date_time >= a.date_time AND better.date_time <= a.expires
      AND (better.price > b.price OR (better.price = b.price AND better.date_time < b.date_time))
  )
