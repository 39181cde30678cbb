-- Nexmark q18, the last bid of each bidder on each auction.
-- The original replaces it with every bid; here there is one per ten seconds.

CREATE STREAM bid (WATERMARK FOR date_time AS date_time - INTERVAL '1 second')
WITH ('connector' = 'nexmark', 'table' = 'bid', 'events' = '20000', 'event_rate' = '100');

SELECT auction, bidder, price, channel, url, date_time, extra, window_end
FROM (
    SELECT *, row_number() OVER (PARTITION BY window_start, window_end, bidder, auction ORDER BY date_time DESC, price DESC) AS place
    FROM TUMBLE(bid, date_time, INTERVAL '10 seconds')
) AS ranked
WHERE place = 1
EMIT FINAL;
