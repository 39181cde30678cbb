-- Windrow in five minutes: flights out of New York, 7 to 11 February 2013, around a blizzard.
-- Run it from the root of the repository:   windrow run sql/quickstart.sql

-- 1. A STREAM is a table whose rows have an event time. Each line of the file is one flight, written when it landed.
--    Flights take up to eleven hours, so departures come out of order; the WATERMARK line declares how long to wait for
--    stragglers: 6 hours. A window is finished once no departure within it is expected any more.
CREATE STREAM flights (
    departed TIMESTAMP,          -- New York time
    landed   TIMESTAMP,
    carrier  VARCHAR,
    flight   INT,
    tail     VARCHAR,
    origin   VARCHAR,
    dest     VARCHAR,
    delay    INT,                -- minutes
    miles    INT,
    WATERMARK FOR departed AS departed - INTERVAL '6 hours'
) WITH (connector = 'file', path = 'sql/data/flights.json', format = 'json');

-- 2. A reference table: names for the airline codes.
CREATE EXTERNAL TABLE airlines (carrier VARCHAR, name VARCHAR)
STORED AS CSV LOCATION 'sql/data/airlines.csv' OPTIONS ('format.has_header' 'true');

-- 3. A tumbling window: departures per six hours. EMIT makes it continuous: a window is returned as soon as it is finished.
--    See the storm arrive on the 8th, and the airports open again on the 9th.
SELECT window_start, count(*) AS departures, round(avg(delay), 1) AS avg_delay, max(delay) AS max_delay
FROM TUMBLE(flights, departed, INTERVAL '6 hours')
GROUP BY window_start, window_end
EMIT FINAL;

-- 4. A window per hour, joined with the reference table: who had a bad hour?
SELECT w.window_start, a.name AS airline, w.departures, w.avg_delay
FROM (
    SELECT window_start, window_end, carrier, count(*) AS departures, round(avg(delay), 1) AS avg_delay
    FROM TUMBLE(flights, departed, INTERVAL '1 hour')
    GROUP BY window_start, window_end, carrier
) AS w
JOIN airlines AS a ON a.carrier = w.carrier
WHERE w.departures >= 5 AND w.avg_delay >= 90
EMIT FINAL;

-- 5. A hopping window: every hour, the three hours up to then. The busiest ones only.
SELECT window_start, window_end, count(*) AS departures
FROM HOP(flights, departed, INTERVAL '1 hour', INTERVAL '3 hours')
GROUP BY window_start, window_end
HAVING count(*) >= 195
EMIT FINAL;

-- 6. Ranking within a window: the three favourite destinations of each day.
SELECT day, place, dest, flights
FROM (
    SELECT window_start AS day, dest, count(*) AS flights,
           ROW_NUMBER() OVER (PARTITION BY window_start, window_end ORDER BY count(*) DESC, dest) AS place
    FROM TUMBLE(flights, departed, INTERVAL '1 day')
    GROUP BY window_start, window_end, dest
) AS ranked
WHERE place <= 3
EMIT FINAL;

-- 7. A MATERIALIZED VIEW is a continuous query that stores its finished windows: query it as you like.
CREATE MATERIALIZED VIEW hourly AS
SELECT window_start, window_end, origin, count(*) AS departures, avg(delay) AS avg_delay
FROM TUMBLE(flights, departed, INTERVAL '1 hour')
GROUP BY window_start, window_end, origin;

WAIT FOR hourly;                 -- until it has read the whole file

SELECT origin, sum(departures) AS departures, max(departures) AS busiest_hour, round(max(avg_delay)) AS worst_hour
FROM hourly
GROUP BY origin
ORDER BY origin;

-- 8. No row vanishes silently. The flights to Honolulu landed, and so arrived, too late for their windows: they were set
--    aside, and the ledger of each query balances: rows_in = aggregated + filtered + late + bad.
SELECT * FROM windrow.ledger;

SELECT event_time, watermark, row FROM windrow.late_rows WHERE query = 'hourly';

-- 9. Without EMIT a query is an ordinary, bounded one: it reads the whole file, the late flights too, and ends.
SELECT dest, count(*) AS flights, round(avg(delay), 1) AS avg_delay
FROM flights
WHERE miles > 2550
GROUP BY dest
ORDER BY flights DESC, dest;
