-- SPDX-License-Identifier: BSD-2-Clause
--
-- The catalogue of plugins, the sets of tiers and tenants, and parameters that try
-- to get out of their place.

\set QUIET 1
SELECT * FROM no_plan();

CREATE FUNCTION pg_temp.outcome(statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    v tiergate.violation;
BEGIN
    EXECUTE statement;
    RETURN 'ok';
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS v.state = RETURNED_SQLSTATE, v.detail = PG_EXCEPTION_DETAIL, v.pointer = COLUMN_NAME;
    RETURN rtrim(concat_ws(' ', v.state, CASE WHEN v.state LIKE 'TG%' THEN v.detail || ' ' || v.pointer END));
END
$$;
CREATE FUNCTION pg_temp.set(plugin text, parameters jsonb) RETURNS text LANGUAGE sql AS $$
    SELECT pg_temp.outcome(format('SELECT tiergate.set_plugin(%L, %L, %L)', 'acme', plugin, parameters))
$$;
CREATE FUNCTION pg_temp.plugin(schema jsonb, location text DEFAULT NULL) RETURNS text LANGUAGE sql AS $$
    SELECT pg_temp.outcome(format('SELECT tiergate.allow_plugin(%L, schema => %L, location => %L)', 'test', schema, location))
$$;
CREATE FUNCTION pg_temp.properties(properties jsonb) RETURNS jsonb LANGUAGE sql AS $$
    SELECT jsonb_build_object('type', 'object', 'properties', properties)
$$;

SELECT tiergate.create_tenant('acme', tier => 'dedicated');
SELECT tiergate.create_tenant('beta');

-- the catalogue that is there
SELECT is((SELECT array_agg(name ORDER BY name) FROM tiergate.plugins)::text,
          '{access-log-json,brotli,buffering,client-limits,gzip,headers-more,modsecurity,njs,request-header,response-header,security-headers}',
          'plugins to begin with');
SELECT is(array_agg(p.name), NULL, 'each place of a template is a parameter')
  FROM tiergate.plugins p, regexp_matches(concat(p.main, p.http, p.server, p.location), '\{\{(\w+)\}\}', 'g') m
 WHERE NOT p.schema->'properties' ? m[1];
SELECT is(array_agg(p.name || '.' || k.key), NULL, 'each parameter has a place, and says what it is')
  FROM tiergate.plugins p, jsonb_each(p.schema->'properties') k
 WHERE strpos(concat(p.main, p.http, p.server, p.location), '{{' || k.key || '}}') = 0 OR NOT k.value ? 'description';
SELECT is(array_agg(p.name || '.' || k.key), NULL, 'each string has a pattern or a list of values')
  FROM tiergate.plugins p, jsonb_each(p.schema->'properties') k,
       LATERAL (SELECT CASE k.value->>'type' WHEN 'array' THEN k.value->'items' ELSE k.value END) s (value)
 WHERE s.value->>'type' = 'string' AND NOT s.value ?| '{pattern,enum}';
SELECT is(array_agg(p.name || '.' || k.key), NULL, 'each pattern binds both ends')
  FROM tiergate.plugins p, jsonb_each(p.schema->'properties') k,
       LATERAL (SELECT CASE k.value->>'type' WHEN 'array' THEN k.value->'items' ELSE k.value END) s (value)
 WHERE s.value ? 'pattern' AND s.value->>'pattern' !~ '^\^.*\$$';

-- parameters, one by one
SELECT is(pg_temp.set(p.plugin, p.parameters::jsonb), p.outcome, p.plugin || ' ' || p.parameters) FROM (VALUES
    ('gzip', '{}', 'ok'),
    ('gzip', '{"level": 9, "types": ["text/css", "image/svg+xml"]}', 'ok'),
    ('gzip', '{"level": 0}', 'TG422 out-of-range /parameters/level'),
    ('gzip', '{"level": 10}', 'TG422 out-of-range /parameters/level'),
    ('gzip', '{"level": "5"}', 'TG422 wrong-type /parameters/level'),
    ('gzip', '{"level": "5; root /"}', 'TG422 wrong-type /parameters/level'),
    ('gzip', '{"level": 1.5}', 'TG422 wrong-type /parameters/level'),
    ('gzip', '{"level": 1e300}', 'TG422 out-of-range /parameters/level'),
    ('gzip', '{"level": null}', 'TG422 wrong-type /parameters/level'),
    ('gzip', '{"level": [5]}', 'TG422 wrong-type /parameters/level'),
    ('gzip', '{"levels": 5}', 'TG422 unknown-field /parameters/levels'),
    ('gzip', '{"a/b~c": 5}', 'TG422 unknown-field /parameters/a~1b~0c'),
    ('gzip', '{"types": []}', 'TG422 wrong-length /parameters/types'),
    ('gzip', '{"types": "text/css"}', 'TG422 wrong-type /parameters/types'),
    ('gzip', '{"types": ["text/css", 5]}', 'TG422 wrong-type /parameters/types/1'),
    ('gzip', '{"types": ["text/css; }"]}', 'TG422 pattern-mismatch /parameters/types/0'),
    ('gzip', '{"types": ["text/css\n"]}', 'TG422 invalid-text /parameters/types/0'),
    ('gzip', '{"types": ["text/$host"]}', 'TG422 variable-refused /parameters/types/0'),
    ('gzip', '[]', 'TG422 wrong-type /parameters'),
    ('gzip', '"x"', 'TG422 wrong-type /parameters'),
    ('buffering', '{"responses": false}', 'ok'),
    ('buffering', '{"responses": "off"}', 'TG422 wrong-type /parameters/responses'),
    ('buffering', '{"responses": 0}', 'TG422 wrong-type /parameters/responses'),
    ('njs', '{}', 'TG422 missing-field /parameters/script'),
    ('njs', '{"script": "headers.js"}', 'ok'),
    ('njs', '{"script": "../../secret.js"}', 'TG422 pattern-mismatch /parameters/script'),
    ('njs', '{"script": "/etc/passwd"}', 'TG422 pattern-mismatch /parameters/script'),
    ('njs', '{"script": "a\\u0000.js"}', 'TG422 pattern-mismatch /parameters/script'),
    ('modsecurity', '{"engine": "SecRuleEngine DetectionOnly"}', 'ok'),
    ('modsecurity', '{"engine": "SecRuleEngine Off"}', 'TG422 unknown-value /parameters/engine'),
    ('request-header', '{"name": "X-Trace", "value": "$request_id"}', 'ok'),
    ('request-header', '{"name": "X-Trace", "value": "a ${host} b"}', 'ok'),
    ('request-header', '{"name": "X-Trace", "value": "$tenant_certificate_key"}', 'TG422 variable-refused /parameters/value'),
    ('request-header', '{"name": "X-Trace", "value": "${http_authorization}"}', 'TG422 variable-refused /parameters/value'),
    ('request-header', '{"name": "X-Trace", "value": "$"}', 'TG422 variable-refused /parameters/value'),
    ('request-header', '{"name": "X-Trace", "value": "${host"}', 'TG422 variable-refused /parameters/value'),
    ('request-header', '{"name": "X-Trace", "value": "$$host"}', 'TG422 variable-refused /parameters/value'),
    ('request-header', '{"name": "X-$host", "value": "a"}', 'TG422 variable-refused /parameters/name'),
    ('request-header', '{"name": "Host", "value": "a"}', 'TG422 pattern-mismatch /parameters/name'),
    ('request-header', '{"name": "Connection", "value": "a"}', 'TG422 pattern-mismatch /parameters/name'),
    ('request-header', '{"name": "X-A: b", "value": "a"}', 'TG422 pattern-mismatch /parameters/name'),
    ('request-header', '{"name": "X-A", "value": "a\r\nX-B: c"}', 'TG422 invalid-text /parameters/value'),
    ('security-headers', '{"content_security_policy": "default-src ''self'' \"x\"; script-src {}"}', 'ok'),
    ('headers-more', '{"set": ["Server: me"]}', 'ok'),
    ('headers-more', '{"set": ["-t text/html"]}', 'TG422 pattern-mismatch /parameters/set/0'),
    ('nothing', '{}', 'TG422 unknown-plugin')) p (plugin, parameters, outcome);

-- whatever is in a string, what is accepted has no control character, and no $ unless it may
SELECT is(pg_temp.plugin(pg_temp.properties('{"free": {"type": "string", "default": ""}}'), 'set {{free}};'), 'ok', 'a plugin with a free string');
SELECT is(pg_temp.set('test', jsonb_build_object('free', v.value)), v.outcome, format('free %s', to_jsonb(left(v.value, 40)))) FROM (VALUES
    (E'";} http { evil', 'ok'), (E'\\', 'ok'), (E'\\"', 'ok'), ('''', 'ok'), ('# comment', 'ok'), ('{{free}}', 'ok'), ('ü€𝄞', 'ok'), ('', 'ok'),
    (E'a\nb', 'TG422 invalid-text /parameters/free'), (E'a\rb', 'TG422 invalid-text /parameters/free'),
    (E'a\tb', 'TG422 invalid-text /parameters/free'), (E'\x7f', 'TG422 invalid-text /parameters/free'),
    (U&'\0085', 'TG422 invalid-text /parameters/free'), (U&'\2028', 'TG422 invalid-text /parameters/free'),
    ('$host', 'TG422 variable-refused /parameters/free'), ('\$host', 'TG422 variable-refused /parameters/free'),
    ('${host}', 'TG422 variable-refused /parameters/free'), ('a$', 'TG422 variable-refused /parameters/free'),
    (repeat('x', 2000), 'ok'), (repeat('x', 2001), 'TG422 wrong-length /parameters/free'),
    (repeat('€', 700), 'TG422 wrong-length /parameters/free')) v (value, outcome);
SELECT is(pg_temp.set('test', jsonb_build_object('other', repeat('x', 40000))), 'TG422 wrong-length /parameters', 'parameters have a limit in all');
SELECT tiergate.drop_plugin('acme', 'test');

-- schemas
SELECT is(pg_temp.plugin(p.schema::jsonb), p.outcome, p.schema) FROM (VALUES
    ('{"type": "object"}', 'ok'),
    ('{"type": "object", "properties": {}, "additionalProperties": false, "$schema": "x", "title": "y"}', 'ok'),
    ('[]', 'TG422 invalid-schema /schema'),
    ('{}', 'TG422 invalid-schema /schema'),
    ('{"type": "string"}', 'TG422 invalid-schema /schema'),
    ('{"type": "object", "additionalProperties": true}', 'TG422 invalid-schema /schema'),
    ('{"type": "object", "patternProperties": {}}', 'TG422 invalid-schema /schema'),
    ('{"type": "object", "$ref": "http://x"}', 'TG422 invalid-schema /schema'),
    ('{"type": "object", "required": ["a"]}', 'TG422 invalid-schema /schema/required'),
    ('{"type": "object", "properties": {"A": {"type": "string"}}}', 'TG422 invalid-schema /schema/properties/A'),
    ('{"type": "object", "properties": {"a-b": {"type": "string"}}}', 'TG422 invalid-schema /schema/properties/a-b'),
    ('{"type": "object", "properties": {"a": {"type": "object"}}}', 'TG422 invalid-schema /schema/properties/a'),
    ('{"type": "object", "properties": {"a": {"type": ["string", "null"]}}}', 'TG422 invalid-schema /schema/properties/a'),
    ('{"type": "object", "properties": {"a": {}}}', 'TG422 invalid-schema /schema/properties/a'),
    ('{"type": "object", "properties": {"a": 5}}', 'TG422 invalid-schema /schema/properties/a'),
    ('{"type": "object", "properties": {"a": {"type": "string", "oneOf": []}}}', 'TG422 invalid-schema /schema/properties/a'),
    ('{"type": "object", "properties": {"a": {"type": "string", "minimum": 5}}}', 'TG422 invalid-schema /schema/properties/a'),
    ('{"type": "object", "properties": {"a": {"type": "string", "maxLength": "5"}}}', 'TG422 invalid-schema /schema/properties/a'),
    ('{"type": "object", "properties": {"a": {"type": "string", "pattern": "("}}}', 'TG422 invalid-schema /schema/properties/a'),
    ('{"type": "object", "properties": {"a": {"type": "integer", "default": "x"}}}', 'TG422 invalid-schema /schema/properties/a'),
    ('{"type": "object", "properties": {"a": {"type": "integer", "default": 5, "maximum": 4}}}', 'TG422 invalid-schema /schema/properties/a'),
    ('{"type": "object", "properties": {"a": {"type": "array"}}}', 'TG422 invalid-schema /schema/properties/a'),
    ('{"type": "object", "properties": {"a": {"type": "array", "items": {"type": "array", "items": {"type": "string"}}}}}', 'TG422 invalid-schema /schema/properties/a'),
    ('{"type": "object", "properties": {"a": {"type": "array", "items": {"type": "integer"}, "default": [1, 2]}}}', 'ok')) p (schema, outcome);
SELECT is(pg_temp.outcome(format('SELECT tiergate.allow_plugin(%L, modules => %L)', n.name, n.modules)), n.outcome, 'plugin ' || n.name || ' with ' || n.modules)
  FROM (VALUES ('Bad', '{}', 'TG422 invalid-name /name'), ('a b', '{}', 'TG422 invalid-name /name'),
               ('ok', '{ngx_http_x_module.so}', 'ok'), ('ok', '{../x.so}', 'TG422 invalid-module /modules'),
               ('ok', '{/x.so}', 'TG422 invalid-module /modules'), ('ok', '{"x.so; user root"}', 'TG422 invalid-module /modules'),
               ('ok', '{x}', 'TG422 invalid-module /modules'), ('ok', '{NULL}', 'TG422 invalid-module /modules')) n (name, modules, outcome);

-- templates
SELECT is(pg_temp.plugin(pg_temp.properties('{"a": {"type": "integer", "default": 1}, "b": {"type": "integer"}}'), t.template), t.outcome, t.template)
  FROM (VALUES ('x {{a}};', 'ok'), ('x;', 'ok'), ('x {{b}};', 'TG422 invalid-template /snippets/location'),
               ('x {{c}};', 'TG422 invalid-template /snippets/location'), ('x {{ a }};', 'TG422 invalid-template /snippets/location'),
               ('x {{a;', 'TG422 invalid-template /snippets/location'), ('x {{}};', 'TG422 invalid-template /snippets/location'),
               (E'x \x01;', 'TG422 invalid-template /snippets/location')) t (template, outcome);

-- the set of a gateway
DELETE FROM tiergate.tenant_plugins;
SELECT results_eq($$ SELECT plugin, source, parameters FROM tiergate.plugin_set('acme', 'dedicated') $$,
                  $$ VALUES ('gzip', 'tier', '{}'::jsonb) $$, 'the tier''s');
SELECT tiergate.set_plugin('acme', 'gzip', '{"level": 1}');
SELECT tiergate.set_plugin('acme', 'brotli');
SELECT results_eq($$ SELECT plugin, source, parameters FROM tiergate.plugin_set('acme', 'dedicated') $$,
                  $$ VALUES ('brotli', 'tenant', '{}'::jsonb), ('gzip', 'tenant', '{"level": 1}') $$, 'with the tenant''s own');
SELECT results_eq($$ SELECT plugin FROM tiergate.plugin_set('beta', 'dedicated') $$, $$ VALUES ('gzip') $$, 'nobody else''s');
SELECT tiergate.set_plugin('acme', 'gzip', enabled => false);
SELECT results_eq($$ SELECT plugin FROM tiergate.plugin_set('acme', 'dedicated') $$, $$ VALUES ('brotli') $$, 'one of the tier is turned off');
SELECT tiergate.set_tier_plugin('dedicated', 'gzip', '{"level": 2}', mandatory => true);
SELECT results_eq($$ SELECT plugin, source, parameters FROM tiergate.plugin_set('acme', 'dedicated') $$,
                  $$ VALUES ('brotli', 'tenant', '{}'::jsonb), ('gzip', 'tier', '{"level": 2}') $$, 'but not a mandatory one');
SELECT is(pg_temp.set('gzip', '{"level": 1}'), 'TG409 plugin-mandatory', 'which cannot be set either');
SELECT is(pg_temp.outcome($$ SELECT tiergate.drop_plugin('acme', 'gzip') $$), 'ok', 'what was set before may go');
SELECT is(pg_temp.outcome($$ SELECT tiergate.drop_plugin('acme', 'gzip') $$), 'TG404 unknown-plugin', 'once');
SELECT is(pg_temp.outcome($$ SELECT tiergate.set_plugin('nobody', 'gzip') $$), 'TG404 unknown-tenant', 'of an unknown tenant');
SELECT is(pg_temp.outcome($$ SELECT tiergate.set_tier_plugin('gold', 'gzip') $$), 'TG404 unknown-tier', 'of an unknown tier');
SELECT is(pg_temp.outcome($$ SELECT tiergate.set_tier_plugin('dedicated', 'gzip', '{"level": 77}') $$), 'TG422 out-of-range /parameters/level', 'a tier''s parameters are judged too');
SELECT is(pg_temp.outcome($$ INSERT INTO tiergate.tenant_plugins VALUES ('acme', 'gzip', '{"level": 77}') $$), 'TG422 out-of-range /parameters/level', 'and those of plain DML');
SELECT is(pg_temp.outcome($$ UPDATE tiergate.tenant_plugins SET parameters = '{"level": 77}' $$), 'TG422 out-of-range /parameters/level', 'in an UPDATE as well');

-- a plugin in use
SELECT is(pg_temp.outcome($$ DELETE FROM tiergate.plugins WHERE name = 'brotli' $$), '23503', 'is not removed');
SELECT is(pg_temp.outcome($$ UPDATE tiergate.plugins SET schema = '{"type": "object"}', http = NULL WHERE name = 'gzip' $$), 'TG409 plugin-in-use /schema',
          'nor gets a schema that its parameters do not pass');
SELECT tiergate.drop_tier_plugin('dedicated', 'gzip');
SELECT is(pg_temp.outcome($$ SELECT tiergate.drop_tier_plugin('dedicated', 'gzip') $$), 'TG404 unknown-plugin', 'a tier that lacks it');
SELECT is(pg_temp.outcome($$ UPDATE tiergate.plugins SET schema = '{"type": "object"}', http = NULL WHERE name = 'gzip' $$), 'ok', 'unless nobody has it');

-- a new generation for whom it concerns, a revision for the tenant, an audit of all
CREATE FUNCTION pg_temp.effect(statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    g bigint := (SELECT sum(generation) FROM tiergate.instances);
    c bigint := (SELECT count(*) FROM tiergate.changes);
    a bigint := (SELECT count(*) FROM tiergate.audit);
BEGIN
    EXECUTE statement;
    RETURN format('%s %s %s', (SELECT sum(generation) FROM tiergate.instances) - g,
                  (SELECT count(*) FROM tiergate.changes) - c, (SELECT count(*) FROM tiergate.audit) - a);
END
$$;
SELECT tiergate.create_tenant('gamma', tier => 'dedicated');
SELECT format('SELECT is(pg_temp.effect(%L), %L, %L)', d.statement, d.effect, 'generations, changes, audit of ' || d.statement) FROM (VALUES
    (1, 'SELECT tiergate.set_plugin(''acme'', ''njs'', ''{"script": "a.js"}'')', '1 1 1'),
    (2, 'SELECT tiergate.set_plugin(''acme'', ''njs'', ''{"script": "b.js"}'')', '1 1 1'),
    (3, 'UPDATE tiergate.plugins SET http = http || ''# x'' WHERE name = ''njs''', '1 0 1'),
    (4, 'UPDATE tiergate.plugins SET http = http || ''# x'' WHERE name = ''modsecurity''', '0 0 0'),
    (5, 'SELECT tiergate.set_tier_plugin(''dedicated'', ''client-limits'')', '2 0 1'),
    (6, 'UPDATE tiergate.tiers SET gateway = ''{"workers": 2}'' WHERE name = ''dedicated''', '2 0 1'),
    (7, 'SELECT tiergate.drop_tier_plugin(''dedicated'', ''client-limits'')', '2 0 1'),
    (8, 'SELECT tiergate.set_plugin(''beta'', ''njs'', ''{"script": "a.js"}'')', '0 1 1'),
    (9, 'SELECT tiergate.drop_plugin(''acme'', ''njs'')', '1 1 1'),
    (10, 'SELECT tiergate.restart_gateway(''acme'')', '1 0 1'),
    (11, 'DELETE FROM tiergate.plugins WHERE name = ''access-log-json''', '0 0 1')) d (nth, statement, effect) ORDER BY d.nth \gexec
SELECT throws_ok('TRUNCATE tiergate.' || t, 'TG403', NULL, 'TRUNCATE of ' || t) FROM unnest('{tenant_plugins,tier_plugins}'::text[]) t;

-- a size within reason
SELECT is(pg_temp.outcome(format('UPDATE tiergate.tiers SET gateway = %L WHERE name = ''dedicated''', s.size)), s.outcome, s.size) FROM (VALUES
    ('{}', 'ok'), ('{"workers": 4, "connections": 4096, "zone": "32m", "limits": {"memory": 268435456, "pids": 32, "nofile": 9000, "cpu": 500}}', 'ok'),
    ('{"limits": {"memory": null}}', 'ok'), ('{"workers": 0}', '23514'), ('{"workers": "4"}', '23514'), ('{"zone": "8m; user root"}', '23514'),
    ('{"zone": 8}', '23514'), ('{"limits": {"memory": -1}}', '23514'), ('{"limits": []}', '23514'), ('{"more": 1}', '23514'), ('[]', '23514')) s (size, outcome);
SELECT is(pg_temp.outcome($$ UPDATE tiergate.tiers SET gateway_kind = 'dedicated' WHERE name = 'vcluster' $$), '23514', 'vcluster stays shared');
SELECT is(pg_temp.outcome($$ UPDATE tiergate.tiers SET gateway_kind = 'shared' WHERE name = 'dedicated' $$), 'TG409 tier-in-use /name', 'a tier in use keeps its kind');

SELECT * FROM finish();
