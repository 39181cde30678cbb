-- Nexmark q1, currency conversion: the price of each bid in euros.

CREATE STREAM bid (WATERMARK FOR date_time AS date_time - INTERVAL '1 second')
WITH ('connector' = 'nexmark', 'table' = 'bid', 'events' = '500', 'event_rate' = '100');

SELECT auction, bidder, 0.908 * price AS price, date_time, extra
FROM bid
EMIT CHANGES;
