SELECT auction, bidder, price, channel, parts[1], parts[2], parts[3]
FROM (SELECT *, string_to_array(substr(url, 25), '/') AS parts FROM bid)
