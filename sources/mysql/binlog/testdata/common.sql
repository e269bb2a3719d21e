-- Statements of every kind that both servers log alike. $FILE is a path to write to.
CREATE DATABASE c; USE c;
CREATE TABLE every (id int PRIMARY KEY AUTO_INCREMENT, t1 tinyint, t2 smallint unsigned, t3 mediumint, t4 int unsigned NOT NULL DEFAULT 7, t5 bigint,
	f float, d double unsigned, n1 decimal(65,30), n2 decimal(9,0), n3 decimal(10,9) unsigned, b1 bit(1), b2 bit(13), b3 bit(64), y year,
	da date, ti time, ti6 time(6), dt datetime, dt3 datetime(3), ts timestamp NULL, ts5 timestamp(5) NULL,
	ch char(10), ch2 char(255) CHARACTER SET utf8mb4, bi binary(20), vc varchar(20), vc2 varchar(3000) CHARACTER SET latin1, vb varbinary(300),
	x1 tinytext, x2 text CHARACTER SET utf8mb4 COLLATE utf8mb4_bin, x3 mediumtext, x4 longtext, l1 tinyblob, l2 blob, l3 mediumblob, l4 longblob,
	e1 enum('a','b','it''s'), e2 enum('ä','ö') CHARACTER SET latin1, s1 set('x','y','z'), s2 set('1','2','3','4','5','6','7','8','9'), j json, z1 int unsigned, z2 decimal(5,2), z3 double unsigned, z4 varchar(9) CHARACTER SET latin1, z5 enum('q') CHARACTER SET utf8mb4 COLLATE utf8mb4_bin)
	ENGINE=InnoDB DEFAULT CHARSET=utf8mb4;
INSERT INTO every () VALUES ();
INSERT INTO every VALUES (NULL, -128, 65535, -8388608, 4294967295, -9223372036854775808, 1.5, 2.5, 12345678901234567890123456789012345.123456789012345678901234567890, 999999999, 9.999999999,
	b'1', b'1010101010101', b'1111111111111111111111111111111111111111111111111111111111111111', 2155, '9999-12-31', '-838:59:59', '838:59:58.999999', '1000-01-01 00:00:00', '9999-12-31 23:59:59.999', '2038-01-19 03:14:07', '1970-01-02 00:00:01.00001',
	'abc', REPEAT('ß', 255), 'bin', 'vc', REPEAT('v', 3000), REPEAT('b', 300), REPEAT('t', 255), REPEAT('t', 65535 DIV 4), REPEAT('m', 70000), REPEAT('l', 70000), 'x', REPEAT('x', 65535), REPEAT('x', 70000), REPEAT('x', 70000),
	'it''s', 'ö', 'x,z', '1,9', '{"a": [1, 2, {"b": null}]}', 1, 2, 3, 'z', 'q');
CREATE TABLE geo (a int, v varchar(9) CHARACTER SET utf8mb4, g geometry, w varchar(9) CHARACTER SET latin1, p point, x text CHARACTER SET ucs2, z int unsigned); INSERT INTO geo VALUES (1, 'v', ST_GeomFromText('LINESTRING(0 0,1 1,2 2)'), 'w', ST_GeomFromText('POINT(1 2)'), 'x', 7); UPDATE geo SET p = NULL; -- one row an event: mysqlbinlog stops at the first geometry
INSERT INTO every (t1, vc, j) VALUES (0, '', '[]'), (NULL, NULL, NULL), (1, 'x', '"y"');
UPDATE every SET t1 = 3, x4 = NULL WHERE id > 2; UPDATE every SET vc = CONCAT(id, 'v'); DELETE FROM every WHERE id = 3;
SET SESSION binlog_row_image = 'MINIMAL'; UPDATE every SET t1 = 9, l4 = 'short'; UPDATE every SET t4 = 9 WHERE id = 1; DELETE FROM every WHERE id = 4; INSERT INTO every (t2) VALUES (1);
SET SESSION binlog_row_image = 'NOBLOB'; UPDATE every SET t1 = 10; UPDATE every SET x1 = 'y'; SET SESSION binlog_row_image = 'FULL';

CREATE TABLE plain (a int, b varchar(30)); -- without a key
INSERT INTO plain VALUES (1, 'one'), (2, 'two'), (1, 'one'); UPDATE plain SET b = 'x'; DELETE FROM plain WHERE a = 1 LIMIT 1;
CREATE TABLE gen (a int PRIMARY KEY, v int AS (a + 1) VIRTUAL, s int AS (a * 2) STORED, h int INVISIBLE DEFAULT 5);
INSERT INTO gen (a) VALUES (1), (2); UPDATE gen SET a = 3 WHERE a = 2;
CREATE TABLE `we``ird.na me` (`co``l` int, `ü` int, PRIMARY KEY (`ü`, `co``l`)); INSERT INTO `we``ird.na me` VALUES (1, 2);
CREATE TABLE pre (t text, u varchar(200), PRIMARY KEY (t(10), u(5)));  INSERT INTO pre VALUES ('t', 'u');

-- Foreign keys, triggers, several tables in one statement and in one transaction.
CREATE TABLE parent (id int PRIMARY KEY); CREATE TABLE child (id int PRIMARY KEY, p int, FOREIGN KEY (p) REFERENCES parent (id) ON DELETE CASCADE ON UPDATE CASCADE);
CREATE TABLE logged (n int AUTO_INCREMENT PRIMARY KEY, what text);
CREATE TRIGGER tr AFTER INSERT ON parent FOR EACH ROW INSERT INTO logged (what) VALUES (NEW.id);
INSERT INTO parent VALUES (1), (2), (3); INSERT INTO child VALUES (10, 1), (11, 2);
UPDATE parent SET id = 20 WHERE id = 2; DELETE FROM parent WHERE id = 1;
UPDATE parent JOIN child ON child.p = parent.id SET child.id = 12, parent.id = 21;
BEGIN; INSERT INTO plain VALUES (3, 'three'); SAVEPOINT s1; INSERT INTO parent VALUES (5); ROLLBACK TO SAVEPOINT s1; SAVEPOINT `s 2`; DELETE FROM logged; RELEASE SAVEPOINT `s 2`; COMMIT;
BEGIN; INSERT INTO plain VALUES (4, 'four'); ROLLBACK;
SET foreign_key_checks = 0; INSERT INTO child VALUES (99, 99); SET foreign_key_checks = 1;

-- An engine without transactions.
CREATE TABLE my (a int) ENGINE=MyISAM; INSERT INTO my VALUES (1), (2);

-- Definitions.
ALTER TABLE plain ADD c int DEFAULT 3, ALGORITHM=COPY; INSERT INTO plain VALUES (8, 'eight', 8);
CREATE TABLE many LIKE plain; INSERT INTO many SELECT * FROM plain; RENAME TABLE many TO swap, plain TO many, swap TO plain;
CREATE TABLE ctas AS SELECT a, b FROM plain; CREATE TABLE cempty AS SELECT 1 AS one WHERE FALSE;
CREATE DATABASE d2; CREATE TABLE d2.t (a int); INSERT INTO d2.t VALUES (1);
TRUNCATE TABLE ctas; TRUNCATE d2.t; /* why */ truncate `many`; TRUNCATE my;
CREATE VIEW v AS SELECT * FROM plain; CREATE INDEX i ON plain (a); DROP INDEX i ON plain; ANALYZE TABLE plain; OPTIMIZE TABLE plain;
CREATE TABLE parts (id int PRIMARY KEY, v int) PARTITION BY RANGE (id) (PARTITION p0 VALUES LESS THAN (10), PARTITION p1 VALUES LESS THAN (20));
INSERT INTO parts VALUES (1, 1), (11, 1); UPDATE parts SET id = 12 WHERE id = 1; CREATE TABLE ex (id int PRIMARY KEY, v int); ALTER TABLE parts EXCHANGE PARTITION p0 WITH TABLE ex; ALTER TABLE parts TRUNCATE PARTITION p1;
CREATE FUNCTION twice(a int) RETURNS int DETERMINISTIC RETURN a * 2;
DELIMITER //
CREATE PROCEDURE proc(IN x int) BEGIN INSERT INTO plain VALUES (x, 'p', twice(x)); UPDATE plain SET c = c + 1 WHERE a = x; END //
DELIMITER ;
CALL proc(42); CREATE EVENT ev ON SCHEDULE EVERY 1 DAY DISABLE DO INSERT INTO c.plain VALUES (1, 'e', 1);
CREATE USER 'u'@'localhost' IDENTIFIED BY 'topsecret'; GRANT SELECT ON c.* TO 'u'@'localhost'; SET PASSWORD FOR 'u'@'localhost' = PASSWORD_OF('topsecret'); DROP USER 'u'@'localhost';
CREATE TEMPORARY TABLE temp (a int); INSERT INTO temp VALUES (1); INSERT INTO plain SELECT a, 'temp', 1 FROM temp; DROP TEMPORARY TABLE temp;
DROP TABLE ctas, cempty, d2.t; FLUSH TABLES; FLUSH PRIVILEGES;
ALTER TABLE plain DROP COLUMN c, ADD COLUMN z datetime(6) AFTER a; INSERT INTO plain VALUES (9, NOW(6), 'nine');

-- Changes that are logged as statements.
SET SESSION binlog_format = 'STATEMENT'; SET @a = 'user variable', @n = 12.5;
INSERT INTO parent VALUES (701); INSERT INTO logged (what) VALUES (@a), (@n); INSERT INTO plain (a, b) SELECT FLOOR(RAND() * 10), LAST_INSERT_ID() FROM logged LIMIT 2;
BEGIN; UPDATE logged SET what = 'x'; DELETE FROM logged WHERE n > 2; INSERT INTO logged (what) VALUES ('auto'); COMMIT; INSERT INTO my VALUES (6);
CREATE TEMPORARY TABLE temp (a int); INSERT INTO temp VALUES (1); INSERT INTO plain (a) SELECT a FROM temp; DROP TEMPORARY TABLE temp;
SELECT a, 'loaded' FROM plain INTO OUTFILE '$FILE'; LOAD DATA INFILE '$FILE' INTO TABLE plain (a, b); LOAD DATA INFILE '$FILE' INTO TABLE my (a, @x);
BEGIN; LOAD DATA INFILE '$FILE' INTO TABLE plain (a, b); UPDATE logged SET what = 'loaded'; COMMIT;
SET SESSION binlog_format = 'MIXED'; INSERT INTO plain (a, b) VALUES (1, LEFT(UUID(), 8)); INSERT INTO plain (a, b) VALUES (2, 'mixed'); SET SESSION binlog_format = 'ROW';
LOAD DATA INFILE '$FILE' INTO TABLE plain (a, b);
FLUSH BINARY LOGS;

-- XA in all its ways.
XA START 'x1'; INSERT INTO plain (a) VALUES (1); XA END 'x1'; XA PREPARE 'x1'; XA COMMIT 'x1';
XA START 'x2', 'branch', 77; UPDATE plain SET b = 'xa' WHERE a = 1; XA END 'x2', 'branch', 77; XA PREPARE 'x2', 'branch', 77; XA ROLLBACK 'x2', 'branch', 77;
XA START 'x3'; INSERT INTO plain (a) VALUES (3); XA END 'x3'; XA COMMIT 'x3' ONE PHASE;
XA START 'x4'; INSERT INTO plain (a) VALUES (4); XA END 'x4'; XA ROLLBACK 'x4';
XA START 'x5'; SELECT 1; XA END 'x5'; XA PREPARE 'x5'; XA COMMIT 'x5';
INSERT INTO every (id, l4) VALUES (1000, REPEAT('y', 300000)); INSERT INTO plain (a, b) SELECT a, b FROM plain;
DELETE FROM plain;
