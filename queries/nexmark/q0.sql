-- Query 0, pass through: what reading and writing cost by themselves.
SELECT auction, bidder, price, date_time, extra FROM bid;
