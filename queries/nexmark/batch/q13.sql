SELECT auction, bidder, price, date_time, 'value ' || CAST(auction % 100 AS VARCHAR) FROM bid WHERE auction % 100 < 80
