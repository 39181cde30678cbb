-- What sql/finance/cards.sql finds. Run it with: windrow test sql/tests

\i sql/finance/cards.sql

-- Three payments from two countries within five minutes. Two payments of 0815 come when the watermark has passed them already, so they are
-- late and no part of any pattern.
SELECT card, at, countries, total FROM alarms ORDER BY at;
-- expect
-- 4711 | 2026-05-04T12:03:00 | 2 | 142.40

SELECT count(*) FROM windrow.late_rows WHERE query = 'alarms';
-- expect
-- 2

-- One country is no pattern.
INSERT INTO payments VALUES
    ('0815', 'FR', 1, '2026-05-04 13:00:00'), ('0815', 'FR', 1, '2026-05-04 13:01:00'),
    ('0815', 'FR', 1, '2026-05-04 13:02:00'), ('4711', 'DE', 1, '2026-05-04 13:30:00');
SELECT count(*) FROM alarms;
-- expect
-- 1

INSERT INTO payments VALUES (NULL, 'DE', 1, '2026-05-04 13:31:00');
-- expect error: NOT NULL
