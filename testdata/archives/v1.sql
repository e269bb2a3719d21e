-- What the archive v1 records, in three parts: before the capture, while its first
-- base is the last one, and behind a changed definition. See README.md.

-- part: before
CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy');
CREATE TABLE person (id int PRIMARY KEY, name text NOT NULL, mood mood, born date, balance numeric(12,2), note jsonb, photo bytea);
CREATE TABLE log (at timestamptz, line text);
ALTER TABLE log REPLICA IDENTITY FULL;
CREATE TABLE "Odd ""Names""" ("a b" int PRIMARY KEY, "ü" text[], r int4range) PARTITION BY RANGE ("a b");
CREATE TABLE odd_low PARTITION OF "Odd ""Names""" FOR VALUES FROM (0) TO (100);
CREATE TABLE odd_high PARTITION OF "Odd ""Names""" FOR VALUES FROM (100) TO (200);
INSERT INTO person VALUES (1, 'Ada', 'happy', '1815-12-10', 100.50, '{"k": [1, null, "x"]}', '\x00ff10'), (2, 'Blaise', NULL, '0044-03-15 BC', -1, NULL, '');
ALTER TABLE person ALTER note SET STORAGE EXTERNAL;
INSERT INTO log VALUES ('2026-01-31 23:59:59.999999+00', 'same'), ('2026-01-31 23:59:59.999999+00', 'same'), (NULL, NULL), (NULL, '');

-- part: first
BEGIN; INSERT INTO person VALUES (3, 'Carl', 'ok', 'infinity', 'NaN', to_jsonb(repeat('toast', 1000)), NULL); UPDATE person SET mood = 'sad' WHERE id = 1; COMMIT;
UPDATE person SET balance = balance + 1 WHERE id = 3;
UPDATE person SET id = 4 WHERE id = 2;
DELETE FROM log WHERE line = 'same' AND ctid = (SELECT min(ctid) FROM log WHERE line = 'same');
INSERT INTO "Odd ""Names""" VALUES (1, '{a,NULL,"b c"}', '[1,5)'), (150, '{}', 'empty');
UPDATE "Odd ""Names""" SET "a b" = 101 WHERE "a b" = 1;
TRUNCATE log;
INSERT INTO log SELECT '2026-02-01 00:00:00+00', 'line ' || i FROM generate_series(1, 20) i;

-- part: second
ALTER TABLE person ADD COLUMN email text;
UPDATE person SET email = name || '@example.com';
DELETE FROM person WHERE id = 4;
