-- Pumps that will fail: a model that train.py has trained rates each minute of a pump. It sees what the window has computed.

CREATE MODEL failure WITH (path = 'sql/iot/failure.onnx');

CREATE STREAM vibrations (
    pump        BIGINT,
    temperature DOUBLE,
    vibration   DOUBLE,
    at          TIMESTAMP,
    WATERMARK FOR at AS at - INTERVAL '5 seconds'
);

-- Above the window: the values of the model are aggregates. The classes are in order of their names: fails, holds.
CREATE MATERIALIZED VIEW forecasts AS
SELECT window_end, pump, forecast['label'] AS forecast, round(forecast['probabilities'][1], 2) AS risk
FROM (
    SELECT window_end, pump, predict(failure, avg(temperature), max(vibration), coalesce(stddev(vibration), 0)) AS forecast
    FROM TUMBLE(vibrations, at, INTERVAL '1 minute') GROUP BY window_start, window_end, pump
);

INSERT INTO vibrations VALUES
    (1, 61.0, 2.1, '2026-05-04 08:00:10'), (1, 61.5, 2.3, '2026-05-04 08:00:30'), (2, 70.5, 3.4, '2026-05-04 08:00:15'),
    (2, 71.0, 3.6, '2026-05-04 08:00:45'), (3, 60.0, 1.2, '2026-05-04 08:00:20'), (3, 60.2, 4.4, '2026-05-04 08:00:40'),
    (1, 61.2, 2.2, '2026-05-04 08:01:10'), (2, 66.0, 2.0, '2026-05-04 08:01:20'), (3, 60.1, 2.0, '2026-05-04 08:01:30'),
    (1, 61.0, 2.0, '2026-05-04 08:02:30');

WAIT FOR forecasts UNTIL TIMESTAMP '2026-05-04 08:02:00' TIMEOUT INTERVAL '10 seconds';

SELECT window_end, pump, forecast, risk FROM forecasts ORDER BY window_end, pump;
