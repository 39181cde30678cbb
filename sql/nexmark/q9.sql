-- Nexmark q9, winning bids: of each auction the highest bid while it is open, the first of those.
-- The original replaces the winner whenever it is outbid; here there is one per auction and minute.

CREATE STREAM auction (WATERMARK FOR date_time AS date_time - INTERVAL '1 second')
WITH ('connector' = 'nexmark', 'table' = 'auction', 'events' = '20000', 'event_rate' = '100');

CREATE STREAM bid (WATERMARK FOR date_time AS date_time - INTERVAL '1 second')
WITH ('connector' = 'nexmark', 'table' = 'bid', 'events' = '20000', 'event_rate' = '100');

SELECT id, item_name, auction, bidder, price, bid_time, window_end
FROM (
    SELECT *, row_number() OVER (PARTITION BY window_start, window_end, id ORDER BY price DESC, bid_time, bidder) AS place
    FROM TUMBLE((
        SELECT a.id, a.item_name, b.auction, b.bidder, b.price, b.date_time AS bid_time
        FROM auction AS a
        JOIN bid AS b
        ON a.id = b.auction
        AND b.date_time BETWEEN a.date_time AND a.date_time + INTERVAL '2 minutes'
        AND b.date_time <= a.expires
    ), bid_time, INTERVAL '1 minute')
) AS ranked
WHERE place = 1
EMIT FINAL;
