-- SPDX-License-Identifier: BSD-2-Clause
--
-- New tenants by the chunk: what is done once for a statement holds for each of
-- its rows, and for rows that psql writes.

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
CREATE FUNCTION pg_temp.revision() RETURNS bigint LANGUAGE sql AS $$ SELECT revision FROM tiergate.registry_state() $$;
CREATE FUNCTION pg_temp.body(n integer, more jsonb DEFAULT '{}') RETURNS jsonb LANGUAGE sql AS $$
    SELECT jsonb_build_object('name', 'n' || n, 'hosts', jsonb_build_array('n' || n || '.example.com'),
        'issuers', '[{"ref": "platform"}, {"name": "own", "issuer": "https://own", "jwks_uri": "https://own/keys"}]'::jsonb,
        'consumers', '[{"name": "mobile"}]'::jsonb, 'keys', '[{"consumer": "mobile"}, {"consumer": "web"}]'::jsonb,
        'upstreams', '[{"name": "a", "endpoints": [{"address": "10.0.0.1", "port": 80}, {"address": "10.0.0.2", "port": 80}]}, {"name": "b"}]'::jsonb,
        'routes', '[{"name": "all", "backends": [{"upstream": "a"}]},
                    {"name": "both", "match": {"path": {"value": "/both"}}, "backends": [{"upstream": "a", "weight": 95}, {"upstream": "b", "weight": 5}]}]'::jsonb,
        'quotas', '[{"name": "q", "limit": 5, "window": "1s"}, {"name": "r", "scope": "route", "route": "all", "limit": 5, "window": "1s"}]'::jsonb)
        || more
$$;
CREATE FUNCTION pg_temp.chunk(first integer, last integer) RETURNS jsonb LANGUAGE sql AS $$
    SELECT jsonb_agg(pg_temp.body(n)) FROM generate_series(first, last) n
$$;
CREATE FUNCTION pg_temp.imported(lines jsonb) RETURNS text LANGUAGE sql AS $$
    SELECT string_agg(concat_ws(' ', i.status, replace(i.body::jsonb->>'type', 'urn:tiergate:problem:', ''),
                                nullif(i.body::jsonb #>> '{errors,0,pointer}', '')), ', ' ORDER BY i.line)
      FROM tiergate.import_tenants(lines) i
$$;

INSERT INTO tiergate.issuers (name, issuer, jwks_uri) VALUES ('platform', 'https://p', 'https://p/keys');
SELECT pg_temp.revision() AS before \gset

-- a chunk is what its tenants would be one by one
SELECT is((SELECT count(*) FROM tiergate.import_tenants(pg_temp.chunk(1, 50)) WHERE status = 201), 50::bigint, 'a chunk is imported');
SELECT is(pg_temp.revision(), :before::bigint + 1, 'with one revision');
SELECT results_eq($$ SELECT kind COLLATE "default", count(*), count(DISTINCT revision) FROM tiergate.changes WHERE kind <> 'issuer' GROUP BY 1 ORDER BY 1 $$,
                  $$ VALUES ('tenant', 50::bigint, 1::bigint), ('tenant_issuer', 50, 1) $$, 'one change of each tenant, and of each issuer of its own');
SELECT is((SELECT count(*) FROM tiergate.changes WHERE leads AND kind = 'tenant'), 1::bigint, 'and one of the tenants has drawn it');
SELECT results_eq($$ SELECT object, count(*) FROM tiergate.audit WHERE tenant LIKE 'n%' AND action = 'insert' GROUP BY 1 ORDER BY 1 $$,
                  $$ VALUES ('api_keys', 100::bigint), ('consumers', 50), ('endpoints', 100), ('hosts', 50), ('issuers', 100), ('quotas', 100),
                            ('routes', 100), ('tenants', 50), ('upstreams', 100) $$, 'each row is in the audit');
SELECT tiergate.onboard(pg_temp.body(51));
SELECT is((SELECT jsonb_agg(to_jsonb(r) - '{id,tenant}'::text[] ORDER BY r.name) FROM tiergate.routes r WHERE r.tenant = 'n51'),
          (SELECT jsonb_agg(to_jsonb(r) - '{id,tenant}'::text[] ORDER BY r.name) FROM tiergate.routes r WHERE r.tenant = 'n7'),
          'one that comes alone gets the same routes');
SELECT is((SELECT backends FROM tiergate.routes WHERE tenant = 'n7' AND name = 'all'), '[{"upstream": "a", "weight": 1}]', 'a backend without weight has 1');
SELECT tiergate.put_object('route', 'n51', 'all', '{"backends": [{"upstream": "a"}]}');
SELECT is((SELECT backends FROM tiergate.routes WHERE tenant = 'n51' AND name = 'all'), '[{"upstream": "a", "weight": 1}]', 'also by PUT');

-- lines that are no good, each for its own reason, and the others go in
SELECT is(pg_temp.imported(jsonb_build_array(
    pg_temp.body(60), pg_temp.body(1), pg_temp.body(61, '{"hosts": ["n2.example.com"]}'), pg_temp.body(62, '{"hosts": [["n62.example.com"]]}'),
    pg_temp.body(63, '{"quotas": [{"name": "q", "scope": "tenant", "route": "all", "limit": 1, "window": "1s"}]}'),
    pg_temp.body(64, '{"routes": [{"name": "all", "backends": [{"upstream": "a"}, {"upstream": "c"}]}]}'),
    pg_temp.body(65, '{"routes": [{"name": "x", "backends": [{"upstream": "a"}]}, {"name": "y", "backends": [{"upstream": "b"}]}]}'),
    pg_temp.body(66, '{"routes": [{"name": "x", "backends": [{"upstream": "a"}, {"upstream": "a"}]}]}'),
    pg_temp.body(67, '{"issuers": [{"ref": "nobody"}]}'), '[]'::jsonb, 'null'::jsonb, pg_temp.body(60), pg_temp.body(68, '{"color": 1}'),
    pg_temp.body(69, '{"upstreams": [{"name": "a"}, {"name": "a"}]}'), pg_temp.body(70))),
    '201, 409 tenant-exists /name, 409 host-taken /hosts/0, 422 wrong-type /hosts/0, 422 invalid-scope /quotas/0/scope, '
    '422 unknown-upstream /routes/0/backends/1/upstream, 409 overlapping-route /routes/1/match, 422 duplicate-item /routes/0/backends/1, '
    '422 unknown-issuer /issuers/0/ref, 422 wrong-type, 422 wrong-type, 409 tenant-exists /name, 422 unknown-field /color, '
    '422 duplicate-item /upstreams/1, 201', 'a bad line is told why and stops no other');

-- wildcards, in one statement and across them
SELECT is(pg_temp.imported(jsonb_build_array(
    pg_temp.body(80, '{"hosts": ["*.wild.example.com", "x.wild.example.com"]}'), pg_temp.body(81, '{"hosts": ["a.wild.example.com"]}'),
    pg_temp.body(82, '{"hosts": ["wild.example.com"]}'), pg_temp.body(83, '{"hosts": ["*.example.com"]}'))),
    '201, 409 host-taken /hosts/0, 201, 409 host-taken /hosts/0', 'a wildcard keeps other tenants out, above and below');
SELECT is(pg_temp.outcome($$ INSERT INTO tiergate.hosts VALUES ('free.example.net', 'n1'), ('b.a.wild.example.com', 'n1') $$),
          'TG409 host-taken', 'also in psql');
SELECT is(pg_temp.outcome($$ UPDATE tiergate.hosts SET host = 'a.wild.example.com' WHERE tenant = 'n1' $$), 'TG409 host-taken', 'and by UPDATE');
SELECT is(pg_temp.outcome($$ UPDATE tiergate.hosts SET tenant = 'n1' WHERE host = 'x.wild.example.com' $$), 'TG409 host-taken', 'and when it changes hands');
SELECT is(pg_temp.outcome($$ INSERT INTO tiergate.hosts VALUES ('a.wild.example.com', 'n80') $$), 'ok', 'its own tenant may go below it');
UPDATE tiergate.settings SET value = 'true' WHERE name = 'hosts.allow_nested_claims';
SELECT is(pg_temp.outcome($$ INSERT INTO tiergate.hosts VALUES ('b.wild.example.com', 'n1') $$), 'ok', 'others with the setting');

-- routes and upstreams, row by row and by the statement
SELECT is(pg_temp.outcome($$ INSERT INTO tiergate.routes (tenant, name, path, backends) VALUES ('n1', 'p', '/p', '[{"upstream": "a"}]'), ('n2', 'p', '/p', '[{"upstream": "zz"}]') $$),
          'TG422 unknown-upstream /backends/0/upstream', 'one row of two names an upstream that is not there');
SELECT is(pg_temp.outcome($$ INSERT INTO tiergate.routes (tenant, name, path, methods, backends)
                             VALUES ('n1', 'g', '/m', '{GET}', '[{"upstream": "a"}]'), ('n1', 'h', '/m', '{HEAD,GET}', '[{"upstream": "a"}]') $$),
          'TG409 overlapping-route /match', 'two rows of one statement overlap');
SELECT is(pg_temp.outcome($$ INSERT INTO tiergate.routes (tenant, name, path, methods, backends)
                             VALUES ('n1', 'g', '/m', '{GET}', '[{"upstream": "a"}]'), ('n1', 'h', '/m', '{HEAD}', '[{"upstream": "a"}]'),
                                    ('n2', 'g', '/m', '{GET}', '[{"upstream": "a"}]') $$), 'ok', 'these do not');
SELECT is(pg_temp.outcome($$ UPDATE tiergate.routes SET methods = '{GET,POST}' WHERE tenant = 'n1' AND name = 'h' $$), 'TG409 overlapping-route /match', 'UPDATE makes them');
SELECT is(pg_temp.outcome($$ INSERT INTO tiergate.routes (tenant, name, path, methods, backends) VALUES ('n1', 'i', '/m', '{GET}', '[{"upstream": "a"}]') $$),
          'TG409 overlapping-route /match', 'the very same match is told like any other overlap');
SELECT is(pg_temp.outcome($$ UPDATE tiergate.routes SET backends = '[{"upstream": "a"}, {"upstream": "gone"}]' WHERE tenant = 'n1' AND name = 'h' $$),
          'TG422 unknown-upstream /backends/1/upstream', 'UPDATE to an upstream that is not there');
SELECT is(pg_temp.outcome($$ DELETE FROM tiergate.upstreams WHERE tenant = 'n1' AND name = 'a' $$), 'TG409 upstream-in-use', 'an upstream that a route names stays');

-- what setting tiergate.bulk by hand does: no rule is off
SET tiergate.bulk = 'on';
SELECT is(pg_temp.outcome($$ INSERT INTO tiergate.routes (tenant, name, path, methods, backends) VALUES ('n1', 'i', '/m', '{POST,GET}', '[{"upstream": "a"}]') $$),
          'TG409 overlapping-route /match', 'tiergate.bulk turns no rule off');
RESET tiergate.bulk;

-- revisions with savepoints: whoever follows is taken back with its leader, and no other is left without
CREATE FUNCTION pg_temp.pending() RETURNS bigint LANGUAGE sql AS $$ SELECT count(*) FROM tiergate.changes WHERE revision IS NULL $$;
BEGIN;
SAVEPOINT a;
INSERT INTO tiergate.tenants (name) SELECT 's' || n FROM generate_series(1, 3) n;
ROLLBACK TO a;
INSERT INTO tiergate.tenants (name) SELECT 's' || n FROM generate_series(2, 4) n;
SAVEPOINT b;
INSERT INTO tiergate.consumers (tenant, name) SELECT 's' || n, 'c' FROM generate_series(2, 4) n;
INSERT INTO tiergate.consumers (tenant, name) SELECT 'n' || n, 'c' FROM generate_series(1, 3) n;
ROLLBACK TO b;
INSERT INTO tiergate.hosts (tenant, host) SELECT 'n' || n, 'more.n' || n || '.example.com' FROM generate_series(2, 3) n;
COMMIT;
SELECT is(pg_temp.pending(), 0::bigint, 'no change stays without its revision');
SELECT is((SELECT string_agg(name, ' ' ORDER BY name) FROM tiergate.changes WHERE revision = pg_temp.revision()), 'n2 n3 s2 s3 s4', 'one revision of what was kept');
BEGIN;
INSERT INTO tiergate.tenants (name) VALUES ('t1'), ('t2');
SET CONSTRAINTS ALL IMMEDIATE;
SET CONSTRAINTS ALL DEFERRED;
INSERT INTO tiergate.consumers (tenant, name) VALUES ('t1', 'c'), ('t2', 'c'), ('n1', 'c');
COMMIT;
SELECT is(pg_temp.pending(), 0::bigint, 'also after the constraints were judged early');
SELECT is((SELECT string_agg(name, ' ' ORDER BY name) FROM tiergate.changes WHERE revision = pg_temp.revision()), 'n1 t1 t2', 'what came then has a revision of its own');
BEGIN;
DELETE FROM tiergate.tenants WHERE name = 't1';
INSERT INTO tiergate.tenants (name) VALUES ('t1');
INSERT INTO tiergate.hosts VALUES ('t1.example.com', 't1');
COMMIT;
SELECT is((SELECT count(*) FROM tiergate.changes WHERE revision = pg_temp.revision() AND name = 't1'), 2::bigint, 'a tenant and its successor of the same name are two changes');

-- limits count what a tenant had before
UPDATE tiergate.limits SET value = 3 WHERE name = 'consumers_per_tenant';
SELECT is(pg_temp.outcome($$ INSERT INTO tiergate.consumers (tenant, name) SELECT t, 'd' || n FROM generate_series(1, 2) n, unnest('{s2,n1}'::text[]) t $$),
          'TG422 limit-exceeded', 'one of two tenants would have too many');
SELECT is(pg_temp.outcome($$ INSERT INTO tiergate.consumers (tenant, name) SELECT t, 'd' || n FROM generate_series(1, 2) n, unnest('{s2,s3}'::text[]) t $$), 'ok', 'neither of these');
UPDATE tiergate.limits SET value = 1 WHERE name = 'routes_per_tenant';
SELECT is(pg_temp.imported(jsonb_build_array(pg_temp.body(90, '{"routes": [], "quotas": []}'), pg_temp.body(91))), '201, 422 limit-exceeded /routes/1', 'and by the line of an import');

SELECT * FROM finish();
