-- Nexmark q10, log to files: every bid with the day and the minute that its partition of files is named by.
-- COPY (SELECT …) TO, or the archive of a view, writes the files.

CREATE STREAM bid (WATERMARK FOR date_time AS date_time - INTERVAL '1 second')
WITH ('connector' = 'nexmark', 'table' = 'bid', 'events' = '500', 'event_rate' = '100');

SELECT auction, bidder, price, date_time, extra,
       to_char(date_time, '%Y-%m-%d') AS dt, to_char(date_time, '%H:%M') AS hm
FROM bid
EMIT CHANGES;
