-- Nexmark q21, the number of the channel of each bid: known ones by name, others from the page.

CREATE STREAM bid (WATERMARK FOR date_time AS date_time - INTERVAL '1 second')
WITH ('connector' = 'nexmark', 'table' = 'bid', 'events' = '500', 'event_rate' = '100');

SELECT auction, bidder, price, channel,
       CASE lower(channel)
           WHEN 'apple' THEN '0'
           WHEN 'google' THEN '1'
           WHEN 'facebook' THEN '2'
           WHEN 'baidu' THEN '3'
           ELSE regexp_match(url, '(?:&|^)channel_id=([^&]*)')[1]
       END AS channel_id
FROM bid
WHERE regexp_match(url, '(?:&|^)channel_id=([^&]*)') IS NOT NULL
   OR lower(channel) IN ('apple', 'google', 'facebook', 'baidu')
EMIT CHANGES;
