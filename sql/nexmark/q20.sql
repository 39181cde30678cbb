-- Nexmark q20, bids with their auctions, of one category.
-- The original joins without a bound of time; here bids come within two minutes of the auction, and while it is open.

CREATE STREAM auction (WATERMARK FOR date_time AS date_time - INTERVAL '1 second')
WITH ('connector' = 'nexmark', 'table' = 'auction', 'events' = '20000', 'event_rate' = '100');

CREATE STREAM bid (WATERMARK FOR date_time AS date_time - INTERVAL '1 second')
WITH ('connector' = 'nexmark', 'table' = 'bid', 'events' = '20000', 'event_rate' = '100');

SELECT b.auction, b.bidder, b.price, b.channel, b.url, b.date_time AS bid_time,
       a.item_name, a.description, a.initial_bid, a.reserve, a.date_time AS auction_time, a.expires, a.seller, a.category
FROM bid AS b
JOIN auction AS a
ON b.auction = a.id
AND b.date_time BETWEEN a.date_time AND a.date_time + INTERVAL '2 minutes'
AND b.date_time <= a.expires
WHERE a.category = 10
EMIT FINAL;
