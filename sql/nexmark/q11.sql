-- Nexmark q11, user sessions: how many bids a bidder made in each session, which ends ten seconds after the last of them.

CREATE STREAM bid (WATERMARK FOR date_time AS date_time - INTERVAL '1 second')
WITH ('connector' = 'nexmark', 'table' = 'bid', 'events' = '20000', 'event_rate' = '100');

SELECT bidder, count(*) AS bid_count, window_start AS starttime, window_end AS endtime
FROM TABLE(SESSION(TABLE bid PARTITION BY bidder, DESCRIPTOR(date_time), INTERVAL '10' SECOND))
GROUP BY bidder, window_start, window_end
EMIT FINAL;
