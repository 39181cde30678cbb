-- Nexmark q6, average selling price of each seller over the last ten auctions.
-- The original corrects its averages when an auction gets a higher bid; here an auction counts with the highest bid of a minute, and
-- each minute in which it has bids.

CREATE STREAM auction (WATERMARK FOR date_time AS date_time - INTERVAL '1 second')
WITH ('connector' = 'nexmark', 'table' = 'auction', 'events' = '20000', 'event_rate' = '100');

CREATE STREAM bid (WATERMARK FOR date_time AS date_time - INTERVAL '1 second')
WITH ('connector' = 'nexmark', 'table' = 'bid', 'events' = '20000', 'event_rate' = '100');

SELECT seller, window_time, id,
       avg(final) OVER (PARTITION BY seller ORDER BY window_time, id ROWS BETWEEN 9 PRECEDING AND CURRENT ROW) AS average
FROM (
    SELECT seller, id, max(price) AS final, window_time
    FROM TUMBLE((
        SELECT a.seller, a.id, b.price, b.date_time
        FROM auction AS a
        JOIN bid AS b
        ON a.id = b.auction
        AND b.date_time BETWEEN a.date_time AND a.date_time + INTERVAL '2 minutes'
        AND b.date_time <= a.expires
    ), date_time, INTERVAL '1 minute')
    GROUP BY seller, id, window_start, window_end, window_time
) AS highest
EMIT FINAL;
