SELECT auction, bidder, price, date_time, extra,
  substr(CAST(date_time AS VARCHAR), 1, 10), substr(CAST(date_time AS VARCHAR), 12, 5)
FROM bid
