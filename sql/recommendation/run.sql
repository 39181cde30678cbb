-- Recommendation by clicks and place: what is looked at together, what is looked at nearby, and whether offers are taken.
-- Run it from the root of the repository:   windrow run sql/recommendation/run.sql

-- 1. Clicks on items, and positions of the phones. The generators stand in for the app; keep ts, visitor and item, and ts, visitor, lat and lon. Visitors
--    come one after the other; each has a taste (one of six categories), which three of four clicks follow, and moves about one of 25 districts. A phone
--    says where it is every two minutes or so; one in ten never does. One click in two hundred comes five minutes late.
CREATE STREAM clicks (
    n       BIGINT,
    sent    TIMESTAMP,
    a       DOUBLE,
    b       DOUBLE,
    c       DOUBLE,
    ts      TIMESTAMP GENERATED ALWAYS AS (CASE WHEN c < 0.005 THEN sent - INTERVAL '5 minutes' ELSE sent END),
    visitor BIGINT GENERATED ALWAYS AS (n / 15 + CAST(floor(30 * a * a) AS BIGINT)),
    item    BIGINT GENERATED ALWAYS AS (CASE WHEN c < 0.75 THEN CAST(hash(n / 15 + CAST(floor(30 * a * a) AS BIGINT), 'taste') % 6 AS BIGINT) * 10 + CAST(floor(10 * b * b) AS BIGINT)
            ELSE CAST(floor(60 * b) AS BIGINT) END),
    WATERMARK FOR ts AS ts - INTERVAL '10 seconds'
) WITH (
    connector = 'datagen', rows = 10790, seed = 41, start = '2026-08-08T10:00:05Z', 'interval' = '1 second', disorder = '5 seconds',
    fields.n.kind = 'sequence', fields.sent.kind = 'event_time'
);

CREATE STREAM positions (
    n       BIGINT,
    ts      TIMESTAMP,
    a       DOUBLE,
    b       DOUBLE,
    c       DOUBLE,
    visitor BIGINT GENERATED ALWAYS AS (n / 5 + CAST(floor(30 * a) AS BIGINT)),
    lat     DOUBLE GENERATED ALWAYS AS (52.45 + 0.02 * CAST(hash(n / 5 + CAST(floor(30 * a) AS BIGINT), 'north') % 5 AS DOUBLE) + 0.02 * b),
    lon     DOUBLE GENERATED ALWAYS AS (13.30 + 0.03 * CAST(hash(n / 5 + CAST(floor(30 * a) AS BIGINT), 'east') % 5 AS DOUBLE) + 0.03 * c),
    WATERMARK FOR ts AS ts - INTERVAL '10 seconds'
) WITH (
    connector = 'datagen', rows = 3596, seed = 42, start = '2026-08-08T10:00:05Z', 'interval' = '3 seconds', disorder = '5 seconds',
    fields.n.kind = 'sequence', fields.ts.kind = 'event_time'
);

-- 2. The items, and the shops in which they can be seen.
CREATE EXTERNAL TABLE items (item BIGINT, title VARCHAR, category VARCHAR, price DECIMAL(10, 2))
STORED AS CSV LOCATION 'sql/recommendation/items.csv' OPTIONS ('format.has_header' 'true');

CREATE EXTERNAL TABLE shops (shop VARCHAR, category VARCHAR, north BIGINT, east BIGINT)
STORED AS CSV LOCATION 'sql/recommendation/shops.csv' OPTIONS ('format.has_header' 'true');

-- 3. Looked at together: two items that a visitor clicks on within five minutes, the second after the first.
CREATE MATERIALIZED VIEW pairs AS
SELECT b.ts, a.visitor, a.item, b.item AS next_item
FROM clicks AS a JOIN clicks AS b
ON a.visitor = b.visitor AND a.item <> b.item AND b.ts > a.ts AND b.ts <= a.ts + INTERVAL '5 minutes';

-- 4. By how many visitors, in the last hour, every fifteen minutes; and the one that follows an item most often.
CREATE MATERIALIZED VIEW followers AS
SELECT window_start, window_end, window_time, item, next_item, count(*) AS times, count(DISTINCT visitor) AS visitors
FROM HOP(pairs, ts, INTERVAL '15 minutes', INTERVAL '1 hour')
GROUP BY window_start, window_end, window_time, item, next_item
HAVING count(DISTINCT visitor) >= 3;

CREATE MATERIALIZED VIEW best AS
SELECT window_start, window_end, window_time, item, next_item, visitors
FROM followers
QUALIFY row_number() OVER (PARTITION BY window_end, item ORDER BY visitors DESC, times DESC, next_item) = 1;

-- 5. An offer with each click: what follows this item most often, by the last hour that was complete at the time of the click.
CREATE MATERIALIZED VIEW offers AS
SELECT c.n, c.ts, c.visitor, c.item, r.next_item AS offer, r.visitors
FROM clicks AS c ASOF JOIN best AS r ON c.item = r.item AND c.ts >= r.window_time;

-- 6. Is it taken? A click on what was offered, within ten minutes.
CREATE MATERIALIZED VIEW taken AS
SELECT o.ts, o.visitor, o.item, o.offer
FROM offers AS o
WHERE EXISTS (SELECT 1 FROM clicks AS c
              WHERE c.visitor = o.visitor AND c.item = o.offer AND c.ts > o.ts AND c.ts <= o.ts + INTERVAL '10 minutes');

-- The shop is open from 10:00 to 13:00: windows of three hours begin one hour later than at 9:00.
CREATE MATERIALIZED VIEW offers_so_far AS
SELECT window_start, window_end, count(*) AS offers, count(DISTINCT visitor) AS visitors
FROM CUMULATE(offers, ts, INTERVAL '30 minutes', INTERVAL '3 hours', INTERVAL '1 hour') GROUP BY window_start, window_end;

CREATE MATERIALIZED VIEW taken_so_far AS
SELECT window_start, window_end, count(*) AS taken
FROM CUMULATE(taken, ts, INTERVAL '30 minutes', INTERVAL '3 hours', INTERVAL '1 hour') GROUP BY window_start, window_end;

CREATE MATERIALIZED VIEW success AS
SELECT o.window_start, o.window_end, o.offers, o.visitors, coalesce(t.taken, 0) AS taken, 100.0 * coalesce(t.taken, 0) / o.offers AS percent
FROM offers_so_far AS o LEFT JOIN taken_so_far AS t ON t.window_start = o.window_start AND t.window_end = o.window_end;

-- 7. The place of a click: the last position of the phone, if it is not older than ten minutes. A district is 0.02° by 0.03°, some two kilometres.
CREATE MATERIALIZED VIEW placed AS
SELECT c.n, c.ts, c.visitor, c.item,
       CAST((p.lat - 52.45) / 0.02 AS BIGINT) AS north, CAST((p.lon - 13.30) / 0.03 AS BIGINT) AS east
FROM clicks AS c ASOF LEFT JOIN positions AS p
ON c.visitor = p.visitor AND c.ts >= p.ts AND c.ts <= p.ts + INTERVAL '10 minutes';

-- 8. What is looked at in a district: half an hour, every ten minutes; the best category, and the shop there that has it.
CREATE MATERIALIZED VIEW nearby AS
SELECT window_start, window_end, window_time, p.north, p.east, i.category, count(*) AS clicks, count(DISTINCT p.visitor) AS visitors
FROM HOP((SELECT ts, visitor, item, north, east FROM placed WHERE north IS NOT NULL), ts, INTERVAL '10 minutes', INTERVAL '30 minutes') AS p
JOIN items AS i ON i.item = p.item
GROUP BY window_start, window_end, window_time, p.north, p.east, i.category;

CREATE MATERIALIZED VIEW showcases AS
SELECT t.window_start, t.window_end, t.north, t.east, t.category, t.clicks, t.visitors, s.shop
FROM (SELECT * FROM nearby QUALIFY row_number() OVER (PARTITION BY window_end, north, east ORDER BY clicks DESC, visitors DESC, category) = 1) AS t
LEFT JOIN shops AS s ON s.north = t.north AND s.east = t.east AND s.category = t.category;

WAIT FOR success;
WAIT FOR showcases;

-- What follows what, by the last full hour
SELECT i.title AS looked_at, f.title AS followed_by, b.visitors
FROM best AS b JOIN items AS i ON i.item = b.item JOIN items AS f ON f.item = b.next_item
WHERE b.window_end = TIMESTAMP '2026-08-08 13:00:00' ORDER BY b.visitors DESC, b.item LIMIT 8;

-- Offers, and how many were taken
SELECT window_end, offers, visitors, taken, round(percent, 1) AS percent FROM success ORDER BY window_end;

-- What to put into the window, now and here
SELECT north, east, category, clicks, visitors, shop FROM showcases
WHERE window_end = TIMESTAMP '2026-08-08 12:00:00' ORDER BY clicks DESC, north, east LIMIT 8;

-- Clicks without a place: the phone says nothing, or has not said anything yet.
SELECT count(*) AS clicks, count(north) AS with_a_place FROM placed;

SELECT * FROM windrow.ledger WHERE query IN ('pairs', 'offers', 'placed');
