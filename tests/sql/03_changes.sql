-- SPDX-License-Identifier: BSD-2-Clause
--
-- One revision per transaction, and an audit of who, when, from what to what,
-- also for plain DML.  What takes several sessions is in test_concurrency.py.

\set QUIET 1
SELECT * FROM no_plan();

CREATE FUNCTION pg_temp.revisions() RETURNS bigint LANGUAGE sql AS $$ SELECT revision FROM tiergate.registry_state() $$;

SELECT is(pg_temp.revisions(), 0::bigint, 'an empty registry is at revision 0');

BEGIN;
SELECT tiergate.onboard($${"name": "acme", "hosts": ["acme.example.com"],
    "issuers": [{"name": "own", "issuer": "https://x", "jwks": {"keys": [{"kty": "oct", "kid": "h", "k_sealed": "v1.sealed-0123456789"}]}}],
    "consumers": [{"name": "mobile"}], "keys": [{"consumer": "mobile"}],
    "upstreams": [{"name": "v1", "endpoints": [{"address": "10.0.0.1", "port": 80}]}],
    "routes": [{"name": "all", "backends": [{"upstream": "v1"}]}], "quotas": [{"name": "q", "limit": 5, "window": "1s"}]}$$);
UPDATE tiergate.quotas SET requests = 6 WHERE tenant = 'acme';
UPDATE tiergate.hosts SET host = 'www.acme.example.com' WHERE tenant = 'acme';
SELECT tiergate.onboard('{"name": "other"}');
COMMIT;
SELECT is(pg_temp.revisions(), 1::bigint, 'a transaction that touches ten rows is one revision');
SELECT results_eq($$ SELECT revision, kind COLLATE "default", name COLLATE "default" FROM tiergate.changes ORDER BY kind, name $$,
                  $$ VALUES (1::bigint, 'tenant', 'acme'), (1, 'tenant', 'other'), (1, 'tenant_issuer', 'own') $$, 'with one row for each object');

-- each table, each kind of DML
CREATE TEMP TABLE dml (nth serial, statement text, changes integer);
INSERT INTO dml (statement, changes) VALUES
    ('INSERT INTO tiergate.hosts VALUES (''b.example.com'', ''acme'')', 1),
    ('UPDATE tiergate.hosts SET tenant = ''other'' WHERE host = ''b.example.com''', 2),
    ('DELETE FROM tiergate.hosts WHERE host = ''b.example.com''', 1),
    ('INSERT INTO tiergate.consumers (tenant, name) VALUES (''acme'', ''x'')', 1),
    ('UPDATE tiergate.consumers SET labels = ''{"a": "b"}'' WHERE name = ''x''', 1),
    ('DELETE FROM tiergate.consumers WHERE name = ''x''', 1),
    ('INSERT INTO tiergate.api_keys (tenant, consumer, sha256) VALUES (''acme'', ''x'', sha256(''x''))', 1),
    ('UPDATE tiergate.api_keys SET scopes = ''{a}'' WHERE consumer = ''x''', 1),
    ('DELETE FROM tiergate.api_keys WHERE consumer = ''x''', 1),
    ('INSERT INTO tiergate.upstreams (tenant, name) VALUES (''acme'', ''v2'')', 1),
    ('UPDATE tiergate.upstreams SET max_fails = 4 WHERE name = ''v2''', 1),
    ('INSERT INTO tiergate.endpoints (tenant, upstream, address, port) VALUES (''acme'', ''v2'', ''10.0.0.2'', 80)', 1),
    ('UPDATE tiergate.endpoints SET weight = 0 WHERE upstream = ''v2''', 1),
    ('DELETE FROM tiergate.endpoints WHERE upstream = ''v2''', 1),
    ('INSERT INTO tiergate.routes (tenant, name, path, backends) VALUES (''acme'', ''r'', ''/r'', ''[{"upstream": "v2"}]'')', 1),
    ('UPDATE tiergate.routes SET retries = 0 WHERE name = ''r''', 1),
    ('INSERT INTO tiergate.quotas (tenant, route, requests, per) VALUES (''acme'', ''r'', 5, ''1 hour'')', 1),
    ('UPDATE tiergate.quotas SET requests = 7 WHERE route = ''r''', 1),
    ('DELETE FROM tiergate.routes WHERE name = ''r''', 1),
    ('DELETE FROM tiergate.upstreams WHERE name = ''v2''', 1),
    ('INSERT INTO tiergate.issuers (name, issuer, jwks_uri) VALUES (''platform'', ''https://p'', ''https://p/k'')', 1),
    ('UPDATE tiergate.issuers SET leeway = 5 WHERE name = ''platform''', 1),
    ('INSERT INTO tiergate.issuers (tenant, name, ref) SELECT ''acme'', ''ref'', id FROM tiergate.issuers WHERE name = ''platform''', 1),
    ('UPDATE tiergate.issuers SET audiences = ''{a}'' WHERE name = ''ref''', 2),
    ('DELETE FROM tiergate.issuers WHERE name = ''ref''', 2),
    ('UPDATE tiergate.issuers SET leeway = 5 WHERE name = ''own''', 2),
    ('DELETE FROM tiergate.issuers WHERE name = ''platform''', 1),
    ('UPDATE tiergate.tenants SET display_name = ''A'' WHERE name = ''acme''', 1),
    ('UPDATE tiergate.tenants SET display_name = ''A'' WHERE name = ''acme''', 0),
    ('UPDATE tiergate.quotas SET requests = 6 WHERE tenant = ''acme''', 0),
    ('DELETE FROM tiergate.quotas WHERE tenant = ''acme''', 1),
    ('UPDATE tiergate.settings SET value = value', 0),
    ('UPDATE tiergate.gateways SET last_seen = now()', 0);

CREATE FUNCTION pg_temp.observe(statement text, OUT changes bigint, OUT audited bigint) LANGUAGE plpgsql AS $$
DECLARE
    c bigint := (SELECT count(*) FROM tiergate.changes);
    a bigint := (SELECT count(*) FROM tiergate.audit);
BEGIN
    EXECUTE statement;
    SELECT count(*) - c INTO changes FROM tiergate.changes;
    SELECT count(*) - a INTO audited FROM tiergate.audit;
END
$$;

-- each in a transaction of its own, by \gexec
SELECT format('SELECT is(o.changes, %s::bigint, %L) FROM pg_temp.observe(%L) o', changes, left(statement, 90), statement)
  FROM dml ORDER BY nth \gexec
SELECT is((SELECT count(*) FROM tiergate.changes WHERE revision IS NULL), 0::bigint, 'no change is left without revision');

-- savepoints
SELECT pg_temp.revisions() AS before \gset
BEGIN;
SAVEPOINT a;
UPDATE tiergate.tenants SET display_name = 'B' WHERE name = 'acme';
ROLLBACK TO a;
COMMIT;
SELECT is(pg_temp.revisions(), :before::bigint, 'what is rolled back to a savepoint is no change');
BEGIN;
SET CONSTRAINTS ALL IMMEDIATE;
UPDATE tiergate.tenants SET display_name = 'B' WHERE name = 'acme';
UPDATE tiergate.tenants SET display_name = 'C' WHERE name = 'acme';
COMMIT;
SELECT is(tiergate.revision_of('tenant', id), pg_temp.revisions(), 'SET CONSTRAINTS IMMEDIATE hides no change')
  FROM tiergate.tenants WHERE name = 'acme';
SELECT is((SELECT count(*) FROM tiergate.changes WHERE revision IS NULL), 0::bigint, 'nor leaves one without revision');

-- audit
TRUNCATE dml;
SELECT throws_ok('TRUNCATE tiergate.hosts', 'TG403', NULL, 'TRUNCATE is refused');
SELECT throws_ok('UPDATE tiergate.audit SET actor = NULL', 'TG403', NULL, 'an audit row is not changed');
SELECT throws_ok('DELETE FROM tiergate.audit', 'TG403', NULL, 'nor deleted');
SELECT throws_ok('TRUNCATE tiergate.audit', 'TG403', NULL, 'not all of them either, whoever it is');

CREATE FUNCTION pg_temp.last_audit() RETURNS tiergate.audit LANGUAGE sql AS $$ SELECT * FROM tiergate.audit ORDER BY id DESC LIMIT 1 $$;

UPDATE tiergate.tenants SET display_name = 'D', labels = '{"k": "v"}' WHERE name = 'acme';
SELECT is(a.old, '{"display_name": "C", "labels": {}}', 'old values of the columns that changed') FROM pg_temp.last_audit() a;
SELECT is(a.new, '{"display_name": "D", "labels": {"k": "v"}}', 'and the new ones') FROM pg_temp.last_audit() a;
SELECT is(row(a.action, a.object, a.tenant COLLATE "default", a.name, a.db_role, a.actor)::text,
          row('update', 'tenants', 'acme', 'acme', session_user, NULL)::text, 'who and what') FROM pg_temp.last_audit() a;
SELECT is((SELECT count(*) FROM tiergate.changes c JOIN pg_temp.last_audit() a USING (xid) WHERE c.name = 'acme'), 1::bigint,
          'the transaction tells the revision');
SET ROLE tiergate_admin;
UPDATE tiergate.tenants SET display_name = 'E' WHERE name = 'acme';
RESET ROLE;
SELECT is(a.db_role, session_user || ' as tiergate_admin', 'the role that was set') FROM pg_temp.last_audit() a;
BEGIN;
SELECT set_config('tiergate.actor', 'token:portal', true);
UPDATE tiergate.tenants SET display_name = 'F' WHERE name = 'acme';
COMMIT;
SELECT is(a.actor, 'token:portal', 'the credential that tenantd vouches for') FROM pg_temp.last_audit() a;
UPDATE tiergate.settings SET value = '"1 hour"' WHERE name = 'changes.retention';
SELECT is(row(a.object, a.name, a.old, a.new)::text, row('settings', 'changes.retention', '{"value": "24 hours"}'::jsonb, '{"value": "1 hour"}'::jsonb)::text,
          'settings too') FROM pg_temp.last_audit() a;
DELETE FROM tiergate.tenants WHERE name = 'acme';
SELECT is((SELECT count(DISTINCT object) FROM tiergate.audit WHERE xid = (pg_temp.last_audit()).xid AND action = 'delete'), 8::bigint,
          'a tenant that goes leaves an entry for each thing it owned');

-- secrets
SELECT tiergate.create_token('t1') AS token \gset
SELECT tiergate.create_api_key('other', 'web') AS key \gset
SELECT is((SELECT count(*) FROM tiergate.audit a
            WHERE strpos(concat(a.old, a.new), 'sealed') > 0 OR strpos(concat(a.old, a.new), 'sha256') > 0
               OR concat(a.old, a.new) ~ 'tg[kt]_[A-Za-z0-9_-]{20}'
               OR strpos(concat(a.old, a.new), encode(sha256(:'key'::bytea), 'hex')) > 0
               OR strpos(concat(a.old, a.new), encode(sha256(:'token'::bytea), 'hex')) > 0), 0::bigint,
          'no secret, sealed secret or digest is in it');

SELECT * FROM finish();
