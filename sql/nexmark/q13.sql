-- Nexmark q13, a join with a table: every bid with a value that is looked up.

CREATE TABLE side_input AS SELECT value AS key, 'value ' || value AS value FROM generate_series(0, 9999);

CREATE STREAM bid (WATERMARK FOR date_time AS date_time - INTERVAL '1 second')
WITH ('connector' = 'nexmark', 'table' = 'bid', 'events' = '500', 'event_rate' = '100');

SELECT b.auction, b.bidder, b.price, b.date_time, s.value
FROM bid AS b
JOIN side_input AS s
ON b.auction % 10000 = s.key
EMIT CHANGES;
