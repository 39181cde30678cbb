-- Card fraud as a pattern: three payments of one card within five minutes, from at least two countries.

CREATE STREAM payments (
    card    VARCHAR NOT NULL,
    country VARCHAR,
    amount  DECIMAL(10, 2),
    at      TIMESTAMP NOT NULL,
    WATERMARK FOR at AS at - INTERVAL '10 seconds'
);

-- Each alarm comes when the watermark has passed the third payment. The next search begins behind it.
CREATE MATERIALIZED VIEW alarms AS
SELECT card, at, countries, total, first_payment
FROM payments MATCH_RECOGNIZE (
    PARTITION BY card
    ORDER BY at
    MEASURES
        FIRST(at)               AS first_payment,
        MATCH_ROWTIME()         AS at,
        count(DISTINCT country) AS countries,
        sum(amount)             AS total
    ONE ROW PER MATCH
    AFTER MATCH SKIP PAST LAST ROW
    PATTERN (one two three) WITHIN INTERVAL '5' MINUTE
    DEFINE three AS three.country <> one.country OR three.country <> two.country OR two.country <> one.country
);

INSERT INTO payments VALUES
    ('4711', 'DE', 12.50, '2026-05-04 12:00:00'), ('4711', 'DE', 30.00, '2026-05-04 12:01:10'),
    ('0815', 'FR', 80.00, '2026-05-04 12:01:30'), ('4711', 'BR', 99.90, '2026-05-04 12:03:00'),
    ('0815', 'FR', 15.00, '2026-05-04 12:02:00'), ('0815', 'FR', 20.00, '2026-05-04 12:04:00'),
    ('4711', 'BR', 49.90, '2026-05-04 12:20:00'), ('0815', 'IT', 10.00, '2026-05-04 12:05:30'),
    ('0815', 'FR', 10.00, '2026-05-04 12:40:00');

-- Until the view has passed this time.
WAIT FOR alarms UNTIL TIMESTAMP '2026-05-04 12:30:00' TIMEOUT INTERVAL '10 seconds';

SELECT card, at, countries, total FROM alarms ORDER BY at;
