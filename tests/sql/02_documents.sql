-- SPDX-License-Identifier: BSD-2-Clause
--
-- The document that gateways get, member by member, and the watch queries.

\set QUIET 1
SELECT * FROM no_plan();

SELECT tiergate.put_object('issuer', NULL, 'platform', '{"issuer": "https://platform", "jwks_uri": "https://platform/keys"}');
SELECT tiergate.onboard($${
    "name": "acme", "hosts": ["acme.example.com", "*.acme.example.com"],
    "issuers": [{"name": "main", "issuer": "https://id.acme.example", "audiences": ["api"], "algorithms": ["RS256", "ES256"],
                 "leeway": 30, "consumer_claim": "client_id",
                 "jwks": {"keys": [{"kty": "oct", "kid": "h1", "alg": "HS256", "k_sealed": "v1.0123456789abcdef.xyz"}]}},
                {"ref": "platform", "audiences": ["acme-api"]}],
    "consumers": [{"name": "mobile"}],
    "keys": [{"consumer": "mobile", "scopes": ["orders:read"], "expires_at": "2030-01-01T00:00:00Z",
              "sha256": "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"}],
    "upstreams": [{"name": "orders-v1", "host": "orders.internal", "max_outstanding": 512,
                   "health": {"max_fails": 5, "fail_timeout_ms": 2000, "slow_start_ms": 0},
                   "endpoints": [{"address": "10.0.0.1", "port": 8080}, {"address": "fd00::1", "port": 8080, "weight": 3}]},
                  {"name": "orders-v2"}],
    "routes": [{"name": "orders",
                "match": {"path": {"type": "prefix", "value": "/orders"}, "methods": ["POST", "GET"],
                          "headers": [{"name": "x-version", "value": "2"}], "hosts": ["acme.example.com"]},
                "auth": {"mode": "required", "methods": ["jwt", "api_key"], "scopes": ["orders:read"],
                         "claims": [{"name": "role", "values": ["admin", "ops"]}], "hide_credentials": false},
                "rewrite": {"type": "replace_prefix", "value": "/v2"},
                "backends": [{"upstream": "orders-v1", "weight": 95}, {"upstream": "orders-v2", "weight": 5}],
                "sticky": "consumer", "timeouts": {"connect_ms": 500}, "retries": 2, "websocket": true}],
    "quotas": [{"name": "requests", "limit": 5000, "window": "60s", "burst": 100},
               {"name": "one", "consumer": "mobile", "limit": 5, "window": "day"},
               {"name": "each", "scope": "consumer", "route": "orders", "limit": 7, "window": "month", "dry_run": true},
               {"name": "inflight", "metric": "concurrency", "limit": 10},
               {"name": "body", "metric": "body_size", "limit": 1048576, "route": "orders"}]}$$);

SELECT is(tiergate.tenant_document('acme')::jsonb, format($${
    "name": "acme", "id": %s, "revision": %s, "tier": "vcluster", "state": "active",
    "hosts": ["*.acme.example.com", "acme.example.com"],
    "issuers": [
        {"id": %s, "name": "main", "revision": %2$s, "issuer": "https://id.acme.example", "audiences": ["api"],
         "algorithms": ["RS256", "ES256"], "leeway": 30, "consumer_claim": "client_id",
         "keys": [{"kty": "oct", "kid": "h1", "alg": "HS256", "k_sealed": "v1.0123456789abcdef.xyz"}]},
        {"ref": %4$s, "audiences": ["acme-api"]}],
    "consumers": [{"id": 1, "name": "mobile"}],
    "api_keys": [{"id": 1, "sha256": "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881",
                  "consumer": "mobile", "expires": 1893456000, "scopes": ["orders:read"]}],
    "upstreams": [
        {"id": 1, "name": "orders-v1", "host": "orders.internal", "max_outstanding": 512,
         "health": {"max_fails": 5, "fail_timeout_ms": 2000, "slow_start_ms": 0},
         "endpoints": [{"id": 1, "address": "10.0.0.1", "port": 8080, "weight": 1},
                       {"id": 2, "address": "fd00::1", "port": 8080, "weight": 3}]},
        {"id": 2, "name": "orders-v2", "max_outstanding": 0,
         "health": {"max_fails": 3, "fail_timeout_ms": 10000, "slow_start_ms": 10000}, "endpoints": []}],
    "routes": [
        {"id": 1, "name": "orders",
         "match": {"path": {"type": "prefix", "value": "/orders"}, "methods": ["GET", "POST"],
                   "headers": [{"name": "x-version", "type": "exact", "value": "2"}], "hosts": ["acme.example.com"]},
         "auth": {"mode": "required", "methods": ["jwt", "api_key"], "scopes": ["orders:read"],
                  "claims": [{"name": "role", "values": ["admin", "ops"]}], "hide_credentials": false},
         "rewrite": {"type": "replace_prefix", "value": "/v2"},
         "backends": [{"upstream": "orders-v1", "weight": 95}, {"upstream": "orders-v2", "weight": 5}],
         "sticky": "consumer", "timeouts": {"connect_ms": 500, "send_ms": 30000, "read_ms": 30000},
         "retries": 2, "websocket": true}],
    "quotas": [
        {"id": 5, "name": "body", "scope": "route", "route": "orders", "metric": "body_size", "limit": 1048576, "dry_run": false},
        {"id": 3, "name": "each", "scope": "consumer", "route": "orders", "metric": "requests", "limit": 7, "window": "month", "dry_run": true},
        {"id": 4, "name": "inflight", "scope": "tenant", "metric": "concurrency", "limit": 10, "dry_run": false},
        {"id": 2, "name": "one", "scope": "consumer", "consumer": "mobile", "metric": "requests", "limit": 5, "window": "day", "dry_run": false},
        {"id": 1, "name": "requests", "scope": "tenant", "metric": "requests", "limit": 5000, "window": "60s", "burst": 100, "dry_run": false}]
    }$$,
    (SELECT id FROM tiergate.tenants WHERE name = 'acme'),
    (SELECT revision FROM tiergate.registry_state()),
    (SELECT id FROM tiergate.issuers WHERE name = 'main'),
    (SELECT id FROM tiergate.issuers WHERE name = 'platform' AND tenant IS NULL))::jsonb, 'the whole document');

SELECT unalike(tiergate.tenant_document('acme'), E'%\n%', 'is one line');

SELECT tiergate.suspend('acme', reason => 'unpaid');
SELECT is(d->>'state', 'suspended', 'suspended') FROM (SELECT tiergate.tenant_document('acme')::jsonb) x (d);
SELECT is(d->>'reason', 'unpaid', 'with its reason') FROM (SELECT tiergate.tenant_document('acme')::jsonb) x (d);
SELECT tiergate.resume('acme');
SELECT tiergate.grant_boost('acme', factor => 2.5, until => date_trunc('second', now()) + interval '2 hours');
SELECT is(d->'boost', jsonb_build_object('factor', 2.5, 'until', extract(epoch FROM date_trunc('second', now()) + interval '2 hours')::bigint),
          'boost') FROM (SELECT tiergate.tenant_document('acme')::jsonb) x (d);
UPDATE tiergate.tenants SET boost_until = now() - interval '1 second' WHERE name = 'acme';
SELECT is(tiergate.tenant_document('acme')::jsonb->'boost', NULL, 'a boost that is over is left out');
UPDATE tiergate.api_keys SET expires_at = now() - interval '1 second' WHERE tenant = 'acme';
SELECT is(tiergate.tenant_document('acme')::jsonb->'api_keys', '[]', 'so is a key that has expired');

-- an own issuer has a revision of its own: another change of the tenant keeps it
SELECT is((d #>> '{issuers,0,revision}')::bigint, tiergate.revision_of('tenant_issuer', (d #>> '{issuers,0,id}')::bigint), 'own revision')
  FROM (SELECT tiergate.tenant_document('acme')::jsonb) x (d);
SELECT cmp_ok((d #>> '{issuers,0,revision}')::bigint, '<', (d->>'revision')::bigint, 'older than the tenant''s')
  FROM (SELECT tiergate.tenant_document('acme')::jsonb) x (d);
UPDATE tiergate.issuers SET leeway = 31 WHERE name = 'main';
SELECT is((d #>> '{issuers,0,revision}')::bigint, (d->>'revision')::bigint, 'until the issuer changes')
  FROM (SELECT tiergate.tenant_document('acme')::jsonb) x (d);

-- list
SELECT tiergate.onboard('{"name": "big", "tier": "dedicated", "issuers": [{"ref": "platform"}]}');
SELECT tiergate.onboard('{"name": "own", "tier": "dedicated"}');
INSERT INTO tiergate.gateways (name, kind, tenant) VALUES ('big-1', 'dedicated', 'big'), ('own-1', 'dedicated', 'own'), ('shared-1', 'shared', NULL);
SELECT results_eq($$ SELECT kind, name FROM tiergate.watch_list('shared-1') $$, $$ VALUES ('issuer', 'platform'), ('tenant', 'acme'), ('tenant', 'big'), ('tenant', 'own') $$, 'a shared gateway sees every tenant');
SELECT results_eq($$ SELECT kind, name FROM tiergate.watch_list('unheard-of') $$, $$ VALUES ('issuer', 'platform'), ('tenant', 'acme'), ('tenant', 'big'), ('tenant', 'own') $$, 'so does one that nobody registered');
SELECT is(array_agg(document::jsonb->>'forward'), '{NULL,tiergate-forward,tiergate-forward}', 'of some it only knows where they are')
  FROM tiergate.watch_list('shared-1') WHERE kind = 'tenant';
SELECT results_eq($$ SELECT kind, name FROM tiergate.watch_list('big-1') $$, $$ VALUES ('issuer', 'platform'), ('tenant', 'big') $$, 'a dedicated one its tenant');
SELECT results_eq($$ SELECT kind, name FROM tiergate.watch_list('own-1') $$, $$ VALUES ('issuer', 'platform'), ('tenant', 'own') $$, 'and nothing else but issuers of the platform, to which it may come to refer');
SELECT is(array_agg(w.name), NULL, 'revision and id are those of the document')
  FROM tiergate.watch_list('shared-1') w
 WHERE (w.document::jsonb->>'revision')::bigint <> w.revision OR (w.document::jsonb->>'id')::bigint <> w.id;

-- since
CREATE TEMP TABLE mark AS SELECT revision FROM tiergate.registry_state();
UPDATE tiergate.quotas SET requests = 1 WHERE name = 'requests';
UPDATE tiergate.quotas SET requests = 2 WHERE name = 'requests';
UPDATE tiergate.tenants SET display_name = 'x' WHERE name = 'big';
UPDATE tiergate.quotas SET requests = 3 WHERE name = 'requests';
DELETE FROM tiergate.tenants WHERE name = 'own';
UPDATE tiergate.issuers SET leeway = 9 WHERE tenant IS NULL;
SELECT results_eq($$ SELECT w.revision - m.revision, w.kind, w.name, w.op, w.tier, w.gateway, (w.document::jsonb->>'revision')::bigint - m.revision
                       FROM mark m, tiergate.watch_since(m.revision, 1000) w $$,
    $$ VALUES (1::bigint, 'tenant', 'acme', 'PUT', 'vcluster', NULL, 4::bigint), (3, 'tenant', 'big', 'PUT', 'dedicated', 'big-1', 3),
              (5, 'tenant', 'own', 'DELETE', NULL, NULL, NULL), (6, 'issuer', 'platform', 'PUT', NULL, NULL, 6) $$,
    'each object once, at its first revision, as it is now');
SELECT results_eq($$ SELECT w.revision - m.revision, w.name FROM mark m, tiergate.watch_since(m.revision, 1) w $$,
                  $$ VALUES (1::bigint, 'acme') $$, 'at most so many');
SELECT is((SELECT count(*) FROM mark m, tiergate.watch_since(m.revision + 6, 10)), 0::bigint, 'nothing after the last');

BEGIN;
DELETE FROM tiergate.tenants WHERE name = 'acme';
SELECT tiergate.onboard('{"name": "acme", "issuers": [{"ref": "late"}]}') WHERE false;
SELECT tiergate.put_object('issuer', NULL, 'late', '{"issuer": "https://late", "jwks_uri": "https://late/keys"}');
SELECT tiergate.onboard('{"name": "acme", "issuers": [{"ref": "late"}]}');
COMMIT;
SELECT results_eq($$ SELECT w.revision - m.revision, w.kind, w.name, w.op FROM mark m, tiergate.watch_since(m.revision + 6, 1) w $$,
    $$ VALUES (7::bigint, 'issuer', 'late', 'PUT'), (7, 'tenant', 'acme', 'DELETE'), (7, 'tenant', 'acme', 'PUT') $$,
    'one transaction is never cut, and comes in an order that can be applied');

-- history
SELECT is(oldest, 0::bigint, 'nothing is pruned yet') FROM tiergate.registry_state();
UPDATE tiergate.settings SET value = '"0 seconds"' WHERE name = 'changes.retention';
SELECT tiergate.prune_changes();
SELECT is(s.oldest, s.revision, 'after pruning only the present is left') FROM tiergate.registry_state() s;
SELECT is((SELECT count(*) FROM tiergate.changes c WHERE kind = 'tenant'), (SELECT count(*) FROM tiergate.tenants), 'one row for each tenant that is there');
SELECT throws_ok($$ SELECT * FROM mark m, tiergate.watch_since(m.revision, 10) $$, 'TG410', NULL, 'who asks for more must list');
SELECT lives_ok($$ SELECT * FROM tiergate.registry_state() s, tiergate.watch_since(s.revision, 10) $$, 'who is up to date need not');
UPDATE tiergate.quotas SET requests = 4 WHERE name = 'requests';
DELETE FROM tiergate.tenants;
SELECT tiergate.prune_changes();
SELECT is((SELECT count(*) FROM tiergate.changes WHERE kind = 'tenant'), 0::bigint, 'deleted tenants leave nothing');
SELECT isnt((SELECT revision FROM tiergate.registry_state()), 0::bigint, 'but the revision stays');

SELECT * FROM finish();
