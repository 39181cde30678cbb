-- Nexmark q7, highest bid: the bids with the highest price of each ten seconds, as a join of two windowed
-- relations: the bids of a window with that window's highest price.

CREATE STREAM bid (WATERMARK FOR date_time AS date_time - INTERVAL '1 second')
WITH ('connector' = 'nexmark', 'table' = 'bid', 'events' = '20000', 'event_rate' = '100');

SELECT b.auction, b.price, b.bidder, b.date_time, b.extra, b.window_end
FROM TUMBLE(bid, date_time, INTERVAL '10 seconds') AS b
JOIN (
    SELECT max(price) AS maxprice, window_start, window_end
    FROM TUMBLE(bid, date_time, INTERVAL '10 seconds')
    GROUP BY window_start, window_end
) AS m
ON b.window_start = m.window_start
AND b.window_end = m.window_end
AND b.price = m.maxprice
EMIT FINAL;
