SELECT auction, bidder, price, channel, channel_id
FROM (
  SELECT *,
    CASE
      WHEN channel = 'Apple' THEN '0' WHEN channel = 'Google' THEN '1'
      WHEN channel = 'Facebook' THEN '2' WHEN channel = 'Baidu' THEN '3'
      WHEN strpos(url, '&channel_id=') > 0 THEN substr(url, strpos(url, '&channel_id=') + 12)
    END AS channel_id
  FROM bid
)
WHERE channel_id IS NOT NULL
