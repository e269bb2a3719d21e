-- What v2-mysql and v2-mariadb record. Before the base:
CREATE DATABASE shop DEFAULT CHARACTER SET utf8mb4;
USE shop;
CREATE TABLE customer (id int PRIMARY KEY, name varchar(40) NOT NULL, note text, since datetime(6));
CREATE TABLE orders (id bigint unsigned AUTO_INCREMENT PRIMARY KEY, customer int NOT NULL, amount decimal(12,2), state enum('new','paid','gone') NOT NULL DEFAULT 'new',
	flags set('gift','express'), at timestamp(3) NULL, FOREIGN KEY (customer) REFERENCES customer (id) ON DELETE CASCADE);
CREATE TABLE noted (what varchar(100) CHARACTER SET latin1, b varbinary(20), d double);
INSERT INTO customer VALUES (1, 'Ada', NULL, '2001-02-03 04:05:06.789'), (2, 'Grün', 'two\nlines', NULL);
INSERT INTO orders (customer, amount, flags, at) VALUES (1, 12.50, 'gift,express', '2020-01-01 00:00:00.5'), (2, -0.01, '', NULL);
CREATE TRIGGER orders_ad AFTER DELETE ON orders FOR EACH ROW INSERT INTO noted VALUES (concat('order ', OLD.id), x'00ff', 0.1);
-- base
UPDATE orders SET state = 'paid', amount = 13 WHERE id = 1;
BEGIN; INSERT INTO customer VALUES (3, '寿司', repeat('long ', 50), NOW(6)); SAVEPOINT a; INSERT INTO customer VALUES (4, 'never', '', NULL); ROLLBACK TO a; INSERT INTO orders (customer, amount) VALUES (3, 1); COMMIT;
DELETE FROM orders WHERE id = 2;
-- mark before-migration
ALTER TABLE customer ADD COLUMN email varchar(60) DEFAULT 'none';
INSERT INTO customer VALUES (5, 'Eve', 'after the migration', NULL, 'eve@example.com');
DELETE FROM customer WHERE id = 1;
TRUNCATE TABLE noted;
XA START 'x'; INSERT INTO noted VALUES ('é', x'', -0e0); XA END 'x'; XA PREPARE 'x';
XA COMMIT 'x';
DROP TABLE orders;
