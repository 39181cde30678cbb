-- Nexmark q19, the ten highest bids of each auction.
-- The original changes the ten with every bid; here they come per ten seconds.

CREATE STREAM bid (WATERMARK FOR date_time AS date_time - INTERVAL '1 second')
WITH ('connector' = 'nexmark', 'table' = 'bid', 'events' = '20000', 'event_rate' = '100');

SELECT auction, bidder, price, channel, url, date_time, place, window_end
FROM (
    SELECT *, row_number() OVER (PARTITION BY window_start, window_end, auction ORDER BY price DESC, date_time, bidder) AS place
    FROM TUMBLE(bid, date_time, INTERVAL '10 seconds')
) AS ranked
WHERE place <= 10
EMIT FINAL;
