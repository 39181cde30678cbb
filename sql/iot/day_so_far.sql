-- Sensors: the day so far. A cumulating window grows by six hours until it holds a day; each step gives a result, and
-- at midnight it starts again. The data is generated, and the same at each run; one value in twenty is missing, and
-- rows are up to a minute out of order.

CREATE STREAM readings (
    taken       TIMESTAMP,
    sensor      INT,
    temperature DOUBLE,
    WATERMARK FOR taken AS taken - INTERVAL '1 minute'
) WITH (
    connector = 'datagen',
    rows = '4320',            -- three days, one reading a minute
    seed = '7',
    start = '2026-01-01T00:00:00Z',
    'interval' = '1 minute',
    disorder = '60000',                            -- milliseconds
    fields.taken.kind = 'event_time',
    fields.sensor.min = '1', fields.sensor.max = '3',
    fields.temperature.min = '-5', fields.temperature.max = '25', fields.temperature.null_share = '0.05'
);

SELECT window_start, window_end, sensor,
       count(*) AS readings,
       count(*) FILTER (WHERE temperature IS NULL) AS missing,
       round(min(temperature), 1) AS coldest,
       round(avg(temperature), 1) AS average,
       round(max(temperature), 1) AS warmest
FROM CUMULATE(readings, taken, INTERVAL '6 hours', INTERVAL '1 day')
GROUP BY window_start, window_end, sensor
EMIT FINAL;
