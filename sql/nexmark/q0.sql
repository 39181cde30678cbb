-- Nexmark q0, pass through: every bid, as it is. Measures what the engine costs by itself.

CREATE STREAM bid (WATERMARK FOR date_time AS date_time - INTERVAL '1 second')
WITH ('connector' = 'nexmark', 'table' = 'bid', 'events' = '500', 'event_rate' = '100');

SELECT auction, bidder, price, date_time, extra
FROM bid
EMIT CHANGES;
