-- Nexmark q5, hot items: every two seconds, the auctions with the most bids in the last ten.
-- Both sides of the join are the same window aggregate: Windrow computes it once.

CREATE STREAM bid (WATERMARK FOR date_time AS date_time - INTERVAL '1 second')
WITH ('connector' = 'nexmark', 'table' = 'bid', 'events' = '20000', 'event_rate' = '100');

SELECT auction_bids.auction, auction_bids.num, auction_bids.starttime, auction_bids.endtime
FROM (
    SELECT auction, count(*) AS num, window_start AS starttime, window_end AS endtime
    FROM TABLE(HOP(TABLE bid, DESCRIPTOR(date_time), INTERVAL '2' SECOND, INTERVAL '10' SECOND))
    GROUP BY auction, window_start, window_end
) AS auction_bids
JOIN (
    SELECT max(count_bids.num) AS maxn, count_bids.starttime, count_bids.endtime
    FROM (
        SELECT count(*) AS num, window_start AS starttime, window_end AS endtime
        FROM TABLE(HOP(TABLE bid, DESCRIPTOR(date_time), INTERVAL '2' SECOND, INTERVAL '10' SECOND))
        GROUP BY auction, window_start, window_end
    ) AS count_bids
    GROUP BY count_bids.starttime, count_bids.endtime
) AS max_bids
ON auction_bids.starttime = max_bids.starttime
AND auction_bids.endtime = max_bids.endtime
AND auction_bids.num >= max_bids.maxn
EMIT FINAL;
