-- Streaks for those who look after fair play: a file per batch, one object a line. Run it after run.sql, in the same program:
--   windrow run sql/games/run.sql sql/games/alerts.sql
CREATE SINK fair_play FROM streaks
WITH (connector = 'file', path = 'games-alerts', format = 'ndjson');

WAIT FOR fair_play;

-- The same as messages:
-- CREATE SINK fair_play_messages FROM streaks
-- WITH (connector = 'webhook', url = 'https://chat.example.com/hooks/fair-play',
--       body = '{"text": "player ${player} has won eight times in a row since ${began}"}');
