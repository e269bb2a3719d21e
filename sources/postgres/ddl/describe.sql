-- What the catalog says of an object, in names only, so that two databases can be compared. The functions stand in
-- schema {schema}. Their settings pin how the server writes expressions and make it qualify every name.
CREATE OR REPLACE FUNCTION {schema}.describe_acl(acl aclitem[]) RETURNS jsonb LANGUAGE sql IMMUTABLE SET search_path = '' AS $describe$
	SELECT pg_catalog.jsonb_agg(item::text ORDER BY item::text COLLATE "C") FROM pg_catalog.unnest(acl) item
$describe$;
CREATE OR REPLACE FUNCTION {schema}.describe_columns(relation oid) RETURNS jsonb LANGUAGE sql STABLE SET search_path = '' AS $describe$
	SELECT pg_catalog.jsonb_agg(pg_catalog.jsonb_strip_nulls(pg_catalog.jsonb_build_object('name', a.attname,
		'type', pg_catalog.format_type(a.atttypid, a.atttypmod), 'not_null', a.attnotnull,
		'collation', CASE WHEN a.attcollation <> t.typcollation THEN (SELECT pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.collname)
			FROM pg_catalog.pg_collation c JOIN pg_catalog.pg_namespace n ON n.oid = c.collnamespace WHERE c.oid = a.attcollation) END,
		'default', (SELECT pg_catalog.pg_get_expr(d.adbin, d.adrelid) FROM pg_catalog.pg_attrdef d WHERE d.adrelid = a.attrelid AND d.adnum = a.attnum),
		'identity', NULLIF(a.attidentity, ''), 'generated', NULLIF(a.attgenerated, ''), 'storage', a.attstorage, 'compression', NULLIF(a.attcompression, ''),
		'target', NULLIF(a.attstattarget, -1), 'options', pg_catalog.to_jsonb(a.attoptions), 'acl', {schema}.describe_acl(a.attacl),
		'local', a.attislocal, 'parents', a.attinhcount, 'comment', pg_catalog.col_description(a.attrelid, a.attnum))) ORDER BY a.attnum)
	FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
	WHERE a.attrelid = relation AND a.attnum > 0 AND NOT a.attisdropped
$describe$;
CREATE OR REPLACE FUNCTION {schema}.describe_relation(relation oid) RETURNS jsonb LANGUAGE sql STABLE SET search_path = '' AS $describe$
	SELECT pg_catalog.jsonb_strip_nulls(pg_catalog.jsonb_build_object('kind', c.relkind, 'persistence', c.relpersistence,
		'owner', pg_catalog.pg_get_userbyid(c.relowner), 'acl', {schema}.describe_acl(c.relacl),
		'options', (SELECT pg_catalog.jsonb_agg(o ORDER BY o COLLATE "C") FROM pg_catalog.unnest(c.reloptions) o),
		'identity', CASE WHEN c.relkind IN ('r', 'p') THEN c.relreplident END,
		'row_security', NULLIF(c.relrowsecurity, false), 'force_row_security', NULLIF(c.relforcerowsecurity, false),
		'method', CASE WHEN c.relkind IN ('r', 'm') THEN (SELECT m.amname FROM pg_catalog.pg_am m WHERE m.oid = c.relam) END,
		'of', CASE WHEN c.reloftype <> 0 THEN pg_catalog.format_type(c.reloftype, NULL) END,
		'view', CASE WHEN c.relkind IN ('v', 'm') THEN pg_catalog.pg_get_viewdef(c.oid) END,
		'index', CASE WHEN c.relkind IN ('i', 'I') THEN pg_catalog.pg_get_indexdef(c.oid) END,
		'partition_key', CASE WHEN c.relkind = 'p' THEN pg_catalog.pg_get_partkeydef(c.oid) END,
		'partition_bound', pg_catalog.pg_get_expr(c.relpartbound, c.oid),
		'parents', (SELECT pg_catalog.jsonb_agg(i.inhparent::pg_catalog.regclass::text ORDER BY i.inhseqno) FROM pg_catalog.pg_inherits i WHERE i.inhrelid = c.oid),
		'sequence', (SELECT pg_catalog.jsonb_build_array(pg_catalog.format_type(s.seqtypid, NULL), s.seqstart, s.seqincrement, s.seqmin, s.seqmax, s.seqcache, s.seqcycle)
			FROM pg_catalog.pg_sequence s WHERE s.seqrelid = c.oid),
		'owned_by', CASE WHEN c.relkind = 'S' THEN (SELECT d.refobjid::pg_catalog.regclass::text || '.' || pg_catalog.quote_ident(a.attname) FROM pg_catalog.pg_depend d
			JOIN pg_catalog.pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
			WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = c.oid AND d.objsubid = 0
				AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.deptype IN ('a', 'i')) END,
		'columns', CASE WHEN c.relkind NOT IN ('i', 'I', 'S') THEN {schema}.describe_columns(c.oid) END,
		'constraints', (SELECT pg_catalog.jsonb_agg(pg_catalog.jsonb_build_array(k.conname, pg_catalog.pg_get_constraintdef(k.oid), k.convalidated) ORDER BY k.conname)
			FROM pg_catalog.pg_constraint k WHERE k.conrelid = c.oid AND k.contype NOT IN ('n', 't')),
		'indexes', (SELECT pg_catalog.jsonb_agg(pg_catalog.jsonb_build_array(x.relname, pg_catalog.pg_get_indexdef(i.indexrelid), i.indisvalid, i.indisreplident) ORDER BY x.relname)
			FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class x ON x.oid = i.indexrelid
			WHERE i.indrelid = c.oid AND NOT pg_catalog.starts_with(x.relname::text, 'txreel_restore_')),
		'triggers', (SELECT pg_catalog.jsonb_agg(pg_catalog.jsonb_build_array(pg_catalog.pg_get_triggerdef(t.oid), t.tgenabled) ORDER BY t.tgname)
			FROM pg_catalog.pg_trigger t WHERE t.tgrelid = c.oid AND NOT t.tgisinternal),
		'rules', (SELECT pg_catalog.jsonb_agg(pg_catalog.jsonb_build_array(pg_catalog.pg_get_ruledef(r.oid), r.ev_enabled) ORDER BY r.rulename)
			FROM pg_catalog.pg_rewrite r WHERE r.ev_class = c.oid AND r.rulename <> '_RETURN'),
		'policies', (SELECT pg_catalog.jsonb_agg(pg_catalog.jsonb_build_array(p.polname, p.polcmd, p.polpermissive,
				(SELECT pg_catalog.jsonb_agg(CASE WHEN r = 0 THEN 'public' ELSE pg_catalog.pg_get_userbyid(r)::text END ORDER BY r = 0, pg_catalog.pg_get_userbyid(r)) FROM pg_catalog.unnest(p.polroles) r),
				pg_catalog.pg_get_expr(p.polqual, p.polrelid), pg_catalog.pg_get_expr(p.polwithcheck, p.polrelid)) ORDER BY p.polname)
			FROM pg_catalog.pg_policy p WHERE p.polrelid = c.oid)))
	FROM pg_catalog.pg_class c WHERE c.oid = relation
$describe$;
CREATE OR REPLACE FUNCTION {schema}.describe(class oid, object oid) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path = '' SET "DateStyle" = 'ISO, YMD' SET "IntervalStyle" = 'postgres' SET "TimeZone" = 'UTC'
SET extra_float_digits = 1 SET bytea_output = 'hex' SET quote_all_identifiers = off SET standard_conforming_strings = on AS $describe$
DECLARE
	catalog text := (SELECT c.relname FROM pg_catalog.pg_class c WHERE c.oid = class);
	state jsonb;
BEGIN
	CASE catalog
	WHEN 'pg_class' THEN state := {schema}.describe_relation(object);
	WHEN 'pg_proc' THEN
		SELECT pg_catalog.jsonb_build_object('definition', CASE WHEN p.prokind <> 'a' THEN pg_catalog.pg_get_functiondef(p.oid) END, 'kind', p.prokind,
			'result', pg_catalog.pg_get_function_result(p.oid), 'owner', pg_catalog.pg_get_userbyid(p.proowner), 'acl', {schema}.describe_acl(p.proacl))
			INTO state FROM pg_catalog.pg_proc p WHERE p.oid = object;
	WHEN 'pg_type' THEN
		SELECT pg_catalog.jsonb_build_object('kind', t.typtype, 'base', CASE WHEN t.typbasetype <> 0 THEN pg_catalog.format_type(t.typbasetype, t.typtypmod) END,
			'not_null', t.typnotnull, 'default', t.typdefault, 'owner', pg_catalog.pg_get_userbyid(t.typowner), 'acl', {schema}.describe_acl(t.typacl),
			'labels', (SELECT pg_catalog.jsonb_agg(e.enumlabel ORDER BY e.enumsortorder) FROM pg_catalog.pg_enum e WHERE e.enumtypid = t.oid),
			'range', (SELECT pg_catalog.format_type(r.rngsubtype, NULL) FROM pg_catalog.pg_range r WHERE r.rngtypid = t.oid),
			'constraints', (SELECT pg_catalog.jsonb_agg(pg_catalog.jsonb_build_array(c.conname, pg_catalog.pg_get_constraintdef(c.oid), c.convalidated) ORDER BY c.conname)
				FROM pg_catalog.pg_constraint c WHERE c.contypid = t.oid AND c.contype <> 'n'),
			'columns', CASE WHEN t.typtype = 'c' THEN {schema}.describe_columns(t.typrelid) END)
			INTO state FROM pg_catalog.pg_type t WHERE t.oid = object;
	WHEN 'pg_trigger' THEN
		SELECT pg_catalog.jsonb_build_array(pg_catalog.pg_get_triggerdef(t.oid), t.tgenabled) INTO state FROM pg_catalog.pg_trigger t WHERE t.oid = object;
	WHEN 'pg_rewrite' THEN
		SELECT pg_catalog.jsonb_build_array(pg_catalog.pg_get_ruledef(r.oid), r.ev_enabled) INTO state FROM pg_catalog.pg_rewrite r WHERE r.oid = object;
	WHEN 'pg_constraint' THEN
		SELECT pg_catalog.jsonb_build_array(pg_catalog.pg_get_constraintdef(c.oid), c.convalidated) INTO state FROM pg_catalog.pg_constraint c WHERE c.oid = object;
	WHEN 'pg_policy' THEN
		SELECT {schema}.describe_relation(p.polrelid) -> 'policies' INTO state FROM pg_catalog.pg_policy p WHERE p.oid = object;
	WHEN 'pg_namespace' THEN
		SELECT pg_catalog.jsonb_build_object('owner', pg_catalog.pg_get_userbyid(n.nspowner), 'acl', {schema}.describe_acl(n.nspacl))
			INTO state FROM pg_catalog.pg_namespace n WHERE n.oid = object;
	WHEN 'pg_statistic_ext' THEN
		SELECT pg_catalog.jsonb_build_object('definition', pg_catalog.pg_get_statisticsobjdef(s.oid), 'owner', pg_catalog.pg_get_userbyid(s.stxowner))
			INTO state FROM pg_catalog.pg_statistic_ext s WHERE s.oid = object;
	WHEN 'pg_extension' THEN
		SELECT pg_catalog.jsonb_build_object('version', x.extversion, 'schema', x.extnamespace::pg_catalog.regnamespace::text)
			INTO state FROM pg_catalog.pg_extension x WHERE x.oid = object;
	ELSE state := '{}';
	END CASE;
	RETURN pg_catalog.jsonb_strip_nulls(pg_catalog.jsonb_build_object('is', state, 'comment', pg_catalog.obj_description(object, catalog)));
END $describe$;
