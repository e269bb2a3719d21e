-- The log of the database's definitions: every statement that changes one writes a row, in its own transaction. Only
-- the owner of the functions can write it, so that what it says happened has happened.
CREATE SCHEMA IF NOT EXISTS txreel;
CREATE TABLE IF NOT EXISTS txreel.ddl_log (
	id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	event text NOT NULL,      -- end, drop, rewrite; failed when a row could not be written as it should
	tag text NOT NULL,        -- the command's
	xid xid8 NOT NULL,        -- of the whole transaction
	at timestamptz NOT NULL,  -- when the client's statement began
	login text NOT NULL,      -- session_user
	role text NOT NULL,       -- what SET ROLE has made of it, or none
	settings jsonb NOT NULL,  -- what decides how the statement is understood
	query text NOT NULL,      -- what the client sent: all of it
	context text NOT NULL,    -- the functions that the command came through, and its own text if it came through any
	objects jsonb             -- what it touched, and what that is now
);
-- Tables whose identity was made FULL since they had no other: they get it back when they have a key.
CREATE TABLE IF NOT EXISTS txreel.identities (relid oid PRIMARY KEY);
ALTER TABLE txreel.identities ADD COLUMN IF NOT EXISTS index oid; -- which was the identity, where one was
-- Default privileges may have given something to somebody: only we write here.
DO $revoke$
DECLARE
	grantee text;
BEGIN
	FOR grantee IN
		SELECT DISTINCT CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(a.grantee)) END
		FROM pg_catalog.pg_class c CROSS JOIN LATERAL pg_catalog.aclexplode(c.relacl) a
		WHERE c.relnamespace = 'txreel'::pg_catalog.regnamespace AND c.relkind IN ('r', 'S') AND a.grantee <> c.relowner
	LOOP
		EXECUTE 'REVOKE ALL ON ALL TABLES IN SCHEMA txreel FROM ' || grantee;
		EXECUTE 'REVOKE ALL ON ALL SEQUENCES IN SCHEMA txreel FROM ' || grantee;
	END LOOP;
END $revoke$;
REVOKE ALL ON SCHEMA txreel FROM PUBLIC;
{describe}
CREATE OR REPLACE FUNCTION txreel.address(class oid, object oid, sub integer) RETURNS jsonb LANGUAGE sql STABLE SET search_path = '' AS $address$
	SELECT pg_catalog.jsonb_build_object('type', a.type, 'names', pg_catalog.to_jsonb(a.object_names), 'args', pg_catalog.to_jsonb(a.object_args))
	FROM pg_catalog.pg_identify_object_as_address(class, object, sub) a
$address$;
-- What a command has given or taken away: the server does not say of which objects, nor whether it did anything to them, which for
-- one who may not is a warning. They are those that the transaction has written since the last row of the log; null when they are many, or of other kinds.
CREATE OR REPLACE FUNCTION txreel.granted(tag text, kind text) RETURNS jsonb LANGUAGE sql STABLE SET search_path = '' AS $granted$
	WITH since AS (SELECT COALESCE(pg_catalog.max(l.cmin::text::bigint), -1) AS command FROM (SELECT x.xid, x.cmin FROM txreel.ddl_log x ORDER BY x.id DESC LIMIT 100) l
		WHERE l.xid = pg_catalog.pg_current_xact_id()),
	written AS MATERIALIZED (
		SELECT 'pg_catalog.pg_class'::pg_catalog.regclass AS class, c.oid, c.xmin, c.cmin FROM pg_catalog.pg_class c WHERE kind IN ('TABLE', 'SEQUENCE') AND c.relpersistence <> 't'
		UNION ALL SELECT 'pg_catalog.pg_class'::pg_catalog.regclass, a.attrelid, a.xmin, a.cmin FROM pg_catalog.pg_attribute a WHERE kind = 'TABLE' AND a.attacl IS NOT NULL
		UNION ALL SELECT 'pg_catalog.pg_proc'::pg_catalog.regclass, p.oid, p.xmin, p.cmin FROM pg_catalog.pg_proc p WHERE kind IN ('FUNCTION', 'PROCEDURE', 'ROUTINE')
		UNION ALL SELECT 'pg_catalog.pg_type'::pg_catalog.regclass, t.oid, t.xmin, t.cmin FROM pg_catalog.pg_type t WHERE kind IN ('TYPE', 'DOMAIN')
		UNION ALL SELECT 'pg_catalog.pg_namespace'::pg_catalog.regclass, n.oid, n.xmin, n.cmin FROM pg_catalog.pg_namespace n WHERE kind = 'SCHEMA'),
	objects AS (SELECT DISTINCT w.class, w.oid FROM written w, since WHERE pg_catalog.age(w.xmin) <= 0 AND w.cmin::text::bigint > since.command LIMIT 21)
	SELECT COALESCE(pg_catalog.jsonb_agg(txreel.address(o.class, o.oid, 0) || pg_catalog.jsonb_build_object('state', txreel.describe(o.class, o.oid), 'tag', tag, 'kind', pg_catalog.lower(kind),
		'identity', (SELECT i.identity FROM pg_catalog.pg_identify_object(o.class, o.oid, 0) i))), '[]')
	FROM objects o HAVING pg_catalog.count(*) <= 20 AND kind IN ('TABLE', 'SEQUENCE', 'FUNCTION', 'PROCEDURE', 'ROUTINE', 'TYPE', 'DOMAIN', 'SCHEMA')
$granted$;
-- What the event triggers write. An operator is found by search_path, and this runs with our rights: the path is ours, too,
-- and the caller's comes as an argument.
CREATE OR REPLACE FUNCTION txreel.write_ddl(event text, tag text, context text, path text) RETURNS void LANGUAGE plpgsql SET search_path = '' AS $write$
DECLARE
	touched jsonb;
	settings jsonb;
	seen boolean;
BEGIN
	CASE event
	WHEN 'ddl_command_end' THEN
		WITH commands AS MATERIALIZED (
			SELECT c.classid, c.objid, c.objsubid, c.command_tag, c.object_type, c.object_identity,
				c.in_extension OR c.schema_name IN ('pg_temp', 'txreel') OR c.object_identity LIKE 'pg_temp.%' OR c.object_identity LIKE '% on pg_temp.%' AS skip
			FROM pg_catalog.pg_event_trigger_ddl_commands() c),
		objects AS (
			SELECT c.classid, c.objid, c.objsubid, c.command_tag, c.object_type, c.object_identity FROM commands c WHERE c.skip IS NOT TRUE
			UNION ALL
			-- What inherits is changed along with its parent.
			SELECT DISTINCT c.classid, h.relid, 0, c.command_tag, 'table', h.relid::pg_catalog.regclass::text
			FROM commands c CROSS JOIN LATERAL (
				WITH RECURSIVE heirs(relid) AS (
					SELECT i.inhrelid FROM pg_catalog.pg_inherits i WHERE i.inhparent = c.objid
					UNION SELECT i.inhrelid FROM pg_catalog.pg_inherits i JOIN heirs ON i.inhparent = heirs.relid)
				SELECT heirs.relid FROM heirs JOIN pg_catalog.pg_class r ON r.oid = heirs.relid WHERE r.relkind IN ('r', 'p', 'f') AND r.relpersistence <> 't') h
			WHERE c.skip IS NOT TRUE AND c.command_tag = 'ALTER TABLE' AND c.classid = 'pg_catalog.pg_class'::pg_catalog.regclass)
		SELECT EXISTS (SELECT FROM commands WHERE skip IS NOT TRUE) OR NOT EXISTS (SELECT FROM commands),
			(SELECT pg_catalog.jsonb_agg(CASE WHEN o.objid IS NULL OR o.objid = 0 THEN '{}' ELSE txreel.address(o.classid, o.objid, o.objsubid)
				|| pg_catalog.jsonb_build_object('state', txreel.describe(o.classid, o.objid), 'missing', (
					SELECT pg_catalog.jsonb_object_agg(m.attname, m.attmissingval::text) FROM pg_catalog.pg_attribute m
					WHERE o.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND m.attrelid = o.objid AND m.atthasmissing AND NOT m.attisdropped)) END
				|| pg_catalog.jsonb_build_object('tag', o.command_tag, 'kind', o.object_type, 'identity', o.object_identity)) FROM objects o)
		INTO seen, touched;
	WHEN 'sql_drop' THEN
		SELECT pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object('type', d.object_type, 'kind', d.object_type, 'identity', d.object_identity,
			'names', pg_catalog.to_jsonb(d.address_names), 'args', pg_catalog.to_jsonb(d.address_args), 'original', d.original))
		INTO touched FROM pg_catalog.pg_event_trigger_dropped_objects() d WHERE NOT d.is_temporary AND d.schema_name IS DISTINCT FROM 'txreel';
		seen := touched IS NOT NULL;
	WHEN 'table_rewrite' THEN
		SELECT pg_catalog.jsonb_build_array(txreel.address('pg_catalog.pg_class'::pg_catalog.regclass, c.oid, 0)
			|| pg_catalog.jsonb_build_object('identity', c.oid::pg_catalog.regclass::text, 'oid', c.oid::bigint, 'reason', pg_catalog.pg_event_trigger_table_rewrite_reason()))
		INTO touched FROM pg_catalog.pg_class c WHERE c.oid = pg_catalog.pg_event_trigger_table_rewrite_oid() AND c.relpersistence <> 't';
		seen := touched IS NOT NULL;
	END CASE;
	IF NOT seen THEN
		RETURN;
	END IF;
	IF event = 'ddl_command_end' AND tag IN ('GRANT', 'REVOKE') THEN
		touched := COALESCE(txreel.granted(tag, (SELECT pg_catalog.min(c.object_type) FROM pg_catalog.pg_event_trigger_ddl_commands() c)), touched);
		IF touched = '[]' THEN
			RETURN;
		END IF;
	END IF;
	SELECT pg_catalog.jsonb_object_agg(s.name, s.setting) || pg_catalog.jsonb_build_object('search_path', path) INTO settings
	FROM pg_catalog.pg_settings s WHERE s.name IN ('DateStyle', 'IntervalStyle', 'TimeZone', 'standard_conforming_strings', 'array_nulls', 'xmloption', 'xmlbinary',
		'transform_null_equals', 'default_table_access_method', 'default_toast_compression', 'check_function_bodies', 'lc_monetary', 'lc_numeric', 'lc_time');
	INSERT INTO txreel.ddl_log (event, tag, xid, at, login, role, settings, query, context, objects)
	VALUES (CASE event WHEN 'ddl_command_end' THEN 'end' WHEN 'sql_drop' THEN 'drop' ELSE 'rewrite' END, tag, pg_catalog.pg_current_xact_id(),
		pg_catalog.statement_timestamp(), session_user, pg_catalog.current_setting('role'), settings, pg_catalog.current_query(), context, touched);
END $write$;
CREATE OR REPLACE FUNCTION txreel.write_failure(tag text, why text) RETURNS void LANGUAGE sql SET search_path = '' AS $failure$
	INSERT INTO txreel.ddl_log (event, tag, xid, at, login, role, settings, query, context)
	VALUES ('failed', tag, pg_catalog.pg_current_xact_id(), pg_catalog.statement_timestamp(), session_user, pg_catalog.current_setting('role'), '{}', pg_catalog.current_query(), why)
$failure$;
CREATE OR REPLACE FUNCTION txreel.changes_keys(event text, tag text) RETURNS boolean LANGUAGE sql IMMUTABLE SET search_path = '' AS $changes$
	SELECT event = 'ddl_command_end' AND (tag IN ('CREATE TABLE', 'CREATE TABLE AS', 'SELECT INTO', 'CREATE SCHEMA', 'ALTER TABLE', 'ALTER INDEX') OR tag LIKE 'DROP %')
$changes$;
-- Before version 18 no publication has generated columns: what an index with one identifies, the stream does not tell apart.
CREATE OR REPLACE FUNCTION txreel.unpublished(index oid) RETURNS boolean LANGUAGE sql STABLE SET search_path = '' AS $unpublished$
	SELECT pg_catalog.current_setting('server_version_num')::int < 180000 AND EXISTS (SELECT FROM pg_catalog.pg_index i JOIN pg_catalog.pg_attribute a
		ON a.attrelid = i.indrelid AND a.attgenerated <> '' AND a.attnum = ANY ((i.indkey::int2[])[0:i.indnkeyatts-1]) WHERE i.indexrelid = index)
$unpublished$;
-- A table that is published and has no identity can be neither updated nor deleted from: one that has just come to be so gets
-- FULL, and one that has got a key since its own again. Only tables are touched that the transaction has locked for itself,
-- so that nobody waits.
CREATE OR REPLACE FUNCTION txreel.keep_identities() RETURNS void LANGUAGE plpgsql SET search_path = '' AS $identities$
DECLARE
	t record;
BEGIN
	FOR t IN
		SELECT c.oid, c.oid::pg_catalog.regclass::text AS name, k.keyed AND c.relreplident <> 'i' AS keyed, k.index
		FROM pg_catalog.pg_class c
		CROSS JOIN LATERAL (SELECT EXISTS (SELECT FROM pg_catalog.pg_index i WHERE i.indrelid = c.oid AND i.indisprimary AND i.indisvalid AND i.indimmediate
				AND NOT txreel.unpublished(i.indexrelid)) AS keyed,
			(SELECT i.indexrelid FROM pg_catalog.pg_index i WHERE i.indrelid = c.oid AND i.indisreplident) AS index) k
		WHERE c.relkind = 'r' AND c.relpersistence = 'p' AND c.oid >= 16384
			AND c.oid IN (SELECT l.relation FROM pg_catalog.pg_locks l WHERE l.pid = pg_catalog.pg_backend_pid() AND l.locktype = 'relation' AND l.granted AND l.mode = 'AccessExclusiveLock'
				AND l.database = (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()))
			AND (c.relreplident = 'n' OR c.relreplident = 'd' AND NOT k.keyed
				OR c.relreplident = 'i' AND (k.index IS NULL OR txreel.unpublished(k.index))
				OR c.relreplident = 'f' AND k.keyed AND EXISTS (SELECT FROM txreel.identities x WHERE x.relid = c.oid AND (x.index IS NULL OR NOT txreel.unpublished(x.index))))
			AND EXISTS (SELECT FROM pg_catalog.pg_publication p WHERE (p.pubupdate OR p.pubdelete) AND (p.puballtables OR EXISTS (
				SELECT FROM pg_catalog.pg_publication_rel r WHERE r.prpubid = p.oid AND (r.prrelid = c.oid OR r.prrelid IN (SELECT pg_catalog.pg_partition_ancestors(c.oid))))))
	LOOP
		IF t.keyed THEN
			EXECUTE 'ALTER TABLE ONLY ' || t.name || ' REPLICA IDENTITY DEFAULT';
			DELETE FROM txreel.identities x WHERE x.relid = t.oid;
		ELSE
			EXECUTE 'ALTER TABLE ONLY ' || t.name || ' REPLICA IDENTITY FULL';
			INSERT INTO txreel.identities VALUES (t.oid, t.index) ON CONFLICT (relid) DO UPDATE SET index = EXCLUDED.index;
		END IF;
	END LOOP;
END $identities$;
-- Without a search_path of its own, so as to see the caller's; for that reason it holds nothing that is looked for along one.
CREATE OR REPLACE FUNCTION txreel.on_ddl() RETURNS event_trigger LANGUAGE plpgsql SECURITY DEFINER {messages} AS $on_ddl$
DECLARE
	called text;
BEGIN
	-- A failure in here must not become one of the statement: it is written down instead, and capture raises the alarm.
	BEGIN
		GET DIAGNOSTICS called = PG_CONTEXT;
		PERFORM txreel.write_ddl(TG_EVENT, TG_TAG, called, pg_catalog.current_setting('search_path'));
		IF txreel.changes_keys(TG_EVENT, TG_TAG) THEN
			PERFORM txreel.keep_identities();
		END IF;
	EXCEPTION WHEN OTHERS THEN
		BEGIN
			PERFORM txreel.write_failure(TG_TAG, SQLERRM);
		EXCEPTION WHEN OTHERS THEN
			RETURN; -- capture looks every minute whether the log is as it should be
		END;
	END;
END $on_ddl$;
COMMENT ON FUNCTION txreel.on_ddl() IS '{version}'
