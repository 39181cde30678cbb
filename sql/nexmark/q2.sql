-- Nexmark q2, selection: the bids on some auctions.

CREATE STREAM bid (WATERMARK FOR date_time AS date_time - INTERVAL '1 second')
WITH ('connector' = 'nexmark', 'table' = 'bid', 'events' = '20000', 'event_rate' = '100');

SELECT auction, price
FROM bid
WHERE auction % 123 = 0
EMIT CHANGES;
