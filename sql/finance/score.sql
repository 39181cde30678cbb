-- Card fraud as a score: a model that train.py has trained rates each payment by what is known of it and of the card's payment before.

CREATE MODEL fraud WITH (path = 'sql/finance/fraud.onnx');

DESCRIBE fraud;

CREATE STREAM payments (
    card    VARCHAR NOT NULL,
    country VARCHAR,
    amount  DECIMAL(10, 2),
    at      TIMESTAMP NOT NULL,
    WATERMARK FOR at AS at - INTERVAL '10 seconds'
);

-- The inputs in the order of the model: amount, at night, minutes since the payment before (at most a day), in another country than it.
CREATE MATERIALIZED VIEW scored AS
SELECT card, at, amount, country,
       round(predict(fraud, amount, extract(HOUR FROM at) < 6, minutes, abroad)['probabilities'][2], 3) AS risk
FROM (
    SELECT card, at, amount, country,
           least(coalesce(date_part('epoch', at - lag(at) OVER by_card) / 60, 1440), 1440) AS minutes,
           coalesce(country <> lag(country) OVER by_card, false) AS abroad
    FROM payments WINDOW by_card AS (PARTITION BY card ORDER BY at)
);

INSERT INTO payments VALUES
    ('4711', 'DE', 12.50, '2026-05-04 12:00:00'), ('0815', 'FR', 80.00, '2026-05-04 12:01:30'),
    ('4711', 'DE', 30.00, '2026-05-04 17:01:10'), ('4711', 'BR', 199.90, '2026-05-04 17:03:00'),
    ('0815', 'FR', 25.00, '2026-05-05 02:02:00'), ('0815', 'IT', 640.00, '2026-05-05 02:31:00'),
    ('4711', 'DE', 49.90, '2026-05-05 12:20:00'), ('0815', 'FR', 10.00, '2026-05-05 20:40:00');

WAIT FOR scored UNTIL TIMESTAMP '2026-05-05 12:30:00' TIMEOUT INTERVAL '10 seconds';

-- The alarms. After CREATE OR REPLACE MODEL, this view goes on with its version until it is created again.
SELECT card, at, amount, country, risk FROM scored WHERE risk > 0.5 ORDER BY at;

SHOW MODELS;
