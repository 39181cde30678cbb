-- The queries of Nexmark whose results change with each further row, as they are in the original, and six of RisingWave's (q101 to q106).
-- Each returns a changelog; as a view, each holds the current rows.

CREATE STREAM person (WATERMARK FOR date_time AS date_time - INTERVAL '1 second')
WITH ('connector' = 'nexmark', 'table' = 'person', 'events' = '5000', 'event_rate' = '100');

CREATE STREAM auction (WATERMARK FOR date_time AS date_time - INTERVAL '1 second')
WITH ('connector' = 'nexmark', 'table' = 'auction', 'events' = '5000', 'event_rate' = '100');

CREATE STREAM bid (WATERMARK FOR date_time AS date_time - INTERVAL '1 second')
WITH ('connector' = 'nexmark', 'table' = 'bid', 'events' = '5000', 'event_rate' = '100');

-- q3, auctions of one category with their sellers
SELECT p.name, p.city, p.state, a.id
FROM auction AS a
JOIN person AS p ON a.seller = p.id
WHERE a.category = 10 AND p.state IN ('or', 'id', 'ca', 'OR', 'ID', 'CA')
EMIT CHANGES;

-- q4, average price per category
SELECT category, avg(final) AS average
FROM (
    SELECT a.id, a.category, max(b.price) AS final
    FROM auction AS a
    JOIN bid AS b ON a.id = b.auction AND b.date_time BETWEEN a.date_time AND a.expires
    GROUP BY a.id, a.category
)
GROUP BY category
EMIT CHANGES;

-- q9, winning bids
SELECT id, item_name, bidder, price, bid_time
FROM (
    SELECT a.id, a.item_name, b.bidder, b.price, b.date_time AS bid_time,
           row_number() OVER (PARTITION BY a.id ORDER BY b.price DESC, b.date_time, b.bidder) AS place
    FROM auction AS a
    JOIN bid AS b ON a.id = b.auction AND b.date_time BETWEEN a.date_time AND a.expires
)
WHERE place = 1
EMIT CHANGES;

-- q15, statistics of bids per day
SELECT to_char(date_time, '%Y-%m-%d') AS day,
       count(*) AS total_bids,
       count(*) FILTER (WHERE price < 10000) AS rank1_bids,
       count(DISTINCT bidder) AS total_bidders,
       count(DISTINCT auction) FILTER (WHERE price >= 1000000) AS rank3_auctions
FROM bid
GROUP BY to_char(date_time, '%Y-%m-%d')
EMIT CHANGES;

-- q16, statistics of channels per day
SELECT channel, to_char(date_time, '%Y-%m-%d') AS day, count(*) AS total_bids, count(DISTINCT bidder) AS total_bidders
FROM bid
GROUP BY channel, to_char(date_time, '%Y-%m-%d')
EMIT CHANGES;

-- q17, statistics of auctions per day
SELECT auction, to_char(date_time, '%Y-%m-%d') AS day, count(*) AS bids, min(price) AS lowest, max(price) AS highest, avg(price) AS average
FROM bid
GROUP BY auction, to_char(date_time, '%Y-%m-%d')
EMIT CHANGES;

-- q18, the last bid of each bidder on each auction
SELECT auction, bidder, price, date_time
FROM (
    SELECT *, row_number() OVER (PARTITION BY bidder, auction ORDER BY date_time DESC, price DESC) AS place FROM bid
)
WHERE place = 1
EMIT CHANGES;

-- q19, the ten highest bids of each auction
SELECT auction, bidder, price, date_time, place
FROM (
    SELECT *, row_number() OVER (PARTITION BY auction ORDER BY price DESC, date_time, bidder) AS place FROM bid
)
WHERE place <= 10
EMIT CHANGES;

-- q20, bids with their auctions, of one category
SELECT b.auction, b.bidder, b.price, a.item_name, a.seller
FROM bid AS b
JOIN auction AS a ON b.auction = a.id
WHERE a.category = 10
EMIT CHANGES;

-- q101, the highest bid of each auction, if there is one
SELECT a.id, a.item_name, b.max_price
FROM auction AS a
LEFT JOIN (SELECT auction, max(price) AS max_price FROM bid GROUP BY auction) AS b ON a.id = b.auction
EMIT CHANGES;

-- q102, auctions with more bids than the average
SELECT a.id, a.item_name, count(b.auction) AS bids
FROM auction AS a
JOIN bid AS b ON a.id = b.auction
GROUP BY a.id, a.item_name
HAVING count(b.auction) >= (SELECT count(*) / nullif(count(DISTINCT auction), 0) FROM bid)
EMIT CHANGES;

-- q103, auctions with 20 bids or more
SELECT id, item_name
FROM auction
WHERE id IN (SELECT auction FROM bid GROUP BY auction HAVING count(*) >= 20)
EMIT CHANGES;

-- q104, auctions that are not among those with few bids
SELECT id, item_name
FROM auction
WHERE id NOT IN (SELECT auction FROM bid GROUP BY auction HAVING count(*) < 20)
EMIT CHANGES;

-- q105, the auctions with the most bids
SELECT a.id, a.item_name, count(b.auction) AS bids
FROM auction AS a
JOIN bid AS b ON a.id = b.auction
GROUP BY a.id, a.item_name
ORDER BY bids DESC, id
LIMIT 20
EMIT CHANGES;

-- q106, the lowest of the winning bids
SELECT min(final) AS lowest
FROM (
    SELECT a.id, max(b.price) AS final
    FROM auction AS a
    JOIN bid AS b ON a.id = b.auction AND b.date_time BETWEEN a.date_time AND a.expires
    GROUP BY a.id
)
EMIT CHANGES;
