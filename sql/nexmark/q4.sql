-- Nexmark q4, average price per category: the highest bid of each auction while it is open, averaged.
-- The original gives a new average with every bid; here there is one per minute, over the bids of that minute.

CREATE STREAM auction (WATERMARK FOR date_time AS date_time - INTERVAL '1 second')
WITH ('connector' = 'nexmark', 'table' = 'auction', 'events' = '20000', 'event_rate' = '100');

CREATE STREAM bid (WATERMARK FOR date_time AS date_time - INTERVAL '1 second')
WITH ('connector' = 'nexmark', 'table' = 'bid', 'events' = '20000', 'event_rate' = '100');

SELECT category, avg(final) AS average, window_start, window_end
FROM (
    SELECT id, category, max(price) AS final, window_start, window_end
    FROM TUMBLE((
        SELECT a.id, a.category, b.price, b.date_time
        FROM auction AS a
        JOIN bid AS b
        ON a.id = b.auction
        AND b.date_time BETWEEN a.date_time AND a.date_time + INTERVAL '2 minutes'
        AND b.date_time <= a.expires
    ), date_time, INTERVAL '1 minute')
    GROUP BY id, category, window_start, window_end
) AS highest
GROUP BY category, window_start, window_end
EMIT FINAL;
