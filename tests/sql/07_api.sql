-- SPDX-License-Identifier: BSD-2-Clause
--
-- Each REST function, as tenantd calls them: begin_request, the function, commit.

\set QUIET 1
SELECT * FROM no_plan();

-- A call answers "status etag body", a refusal "status slug pointer".
CREATE FUNCTION pg_temp.call(fn text, path text[], query jsonb DEFAULT '{}', body jsonb DEFAULT NULL,
                             if_match text DEFAULT NULL, scope text DEFAULT 'admin')
RETURNS tiergate_api.response LANGUAGE plpgsql AS $$
DECLARE
    r tiergate_api.response;
    v tiergate.violation;
BEGIN
    PERFORM tiergate_api.begin_request(jsonb_build_object('peer', jsonb_build_object('user', 'root', 'role', scope,
                                           'tenant', CASE WHEN scope = 'tenant' THEN path[1] END)),
                                       scope, path[1], NULL, if_match, 'req-1');
    EXECUTE format('SELECT (r).* FROM tiergate_api.%I($1, $2, $3) r', fn) INTO r USING path, query, body;
    RETURN r;
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS v.state = RETURNED_SQLSTATE, v.message = MESSAGE_TEXT,
                            v.detail = PG_EXCEPTION_DETAIL, v.pointer = COLUMN_NAME;
    IF v.state NOT LIKE 'TG%' THEN
        RAISE;
    END IF;
    RETURN ROW(substr(v.state, 3)::integer, NULL, NULL,
               jsonb_build_object('type', v.detail, 'pointer', v.pointer, 'detail', v.message)::text)::tiergate_api.response;
END
$$;

CREATE FUNCTION pg_temp.status(fn text, path text[], query jsonb DEFAULT '{}', body jsonb DEFAULT NULL,
                               if_match text DEFAULT NULL, scope text DEFAULT 'admin')
RETURNS text LANGUAGE sql AS $$
    SELECT rtrim(concat_ws(' ', r.status, CASE WHEN r.status >= 400 THEN r.body::jsonb->>'type' END,
                           CASE WHEN r.status >= 400 THEN r.body::jsonb->>'pointer' END))
      FROM pg_temp.call(fn, path, query, body, if_match, scope) r
$$;

CREATE FUNCTION pg_temp.body(fn text, path text[], query jsonb DEFAULT '{}', body jsonb DEFAULT NULL)
RETURNS jsonb LANGUAGE sql AS $$
    SELECT r.body::jsonb FROM pg_temp.call(fn, path, query, body) r
$$;

-- tenants
SELECT is(pg_temp.status('create_tenant', '{}', '{}', '{"name": "acme", "hosts": ["acme.example.com"],
    "upstreams": [{"name": "v1", "endpoints": [{"address": "10.0.0.1", "port": 8080}]}],
    "keys": [{"consumer": "mobile"}]}'), '201', 'POST tenants');
SELECT is(pg_temp.status('create_tenant', '{}', '{}', '{"name": "acme"}'), '409 tenant-exists /name', 'twice');
SELECT is(pg_temp.status('create_tenant', '{}', '{"x": "1"}', '{"name": "b"}'), '400 unknown-parameter', 'unknown query parameter');

SELECT is(pg_temp.status('get_tenant', '{acme}'), '200', 'GET tenant');
SELECT is(pg_temp.status('get_tenant', '{nobody}'), '404 unknown-tenant', 'GET unknown tenant');
SELECT is(pg_temp.body('get_tenant', '{acme}')->'hosts', '["acme.example.com"]', 'with its hosts');
SELECT is((r.body::jsonb->'revision')::text, trim(r.etag, '"'), 'ETag is the revision')
  FROM pg_temp.call('get_tenant', '{acme}') r;
SELECT is(pg_temp.body('get_document', '{acme}')->>'name', 'acme', 'GET document');

SELECT is(pg_temp.status('patch_tenant', '{acme}', '{}', '{"display_name": "Acme Ltd", "labels": {"a": "1", "b": "2"}}'), '200', 'PATCH');
SELECT is(pg_temp.body('patch_tenant', '{acme}', '{}', '{"labels": {"a": null, "c": "3"}}')->'labels', '{"b": "2", "c": "3"}', 'labels are merged');
SELECT is(pg_temp.body('patch_tenant', '{acme}', '{}', '{"display_name": null}')->'display_name', NULL, 'null removes');
SELECT is(pg_temp.body('patch_tenant', '{acme}', '{}', '{"hosts": ["acme.example.com", "www.acme.example.com"]}')->'hosts',
          '["acme.example.com", "www.acme.example.com"]', 'hosts are replaced');
SELECT is(pg_temp.status('patch_tenant', '{acme}', '{}', '{"hosts": ["acme.example.com", "Bad"]}'), '422 invalid-hostname /hosts/1', 'PATCH of a bad host');
SELECT is(pg_temp.status('patch_tenant', '{acme}', '{}', '{"name": "b"}'), '422 unknown-field /name', 'a name stays');
SELECT is(pg_temp.status('patch_tenant', '{acme}', '{}', '{"tier": null}'), '422 missing-field /tier', 'a tier cannot be removed');
SELECT is(pg_temp.status('patch_tenant', '{acme}', '{}', '{"state": "suspended"}', NULL, 'tenant'), '403 forbidden /state', 'a tenant may not resume itself');
SELECT is(pg_temp.status('patch_tenant', '{acme}', '{}', '{"display_name": "x"}', NULL, 'tenant'), '200', 'but call itself something');

-- If-Match
SELECT is(pg_temp.status('patch_tenant', '{acme}', '{}', '{"display_name": "y"}', '"1"'), '412 precondition-failed', 'an old ETag');
SELECT is(pg_temp.status('patch_tenant', '{acme}', '{}', '{"display_name": "y"}', r.etag), '200', 'the present ETag')
  FROM pg_temp.call('get_tenant', '{acme}') r;
SELECT is(pg_temp.status('patch_tenant', '{acme}', '{}', '{"display_name": "z"}', '"1", ' || r.etag), '200', 'one of several ETags')
  FROM pg_temp.call('get_tenant', '{acme}') r;
SELECT is(pg_temp.status('patch_tenant', '{acme}', '{}', '{"display_name": "w"}', '*'), '200', 'any ETag');
SELECT is(pg_temp.status('delete_tenant', '{acme}', '{}', NULL, '"1"'), '412 precondition-failed', 'DELETE with an old ETag');

-- lifecycle
SELECT is(pg_temp.body('suspend_tenant', '{acme}', '{}', '{"reason": "unpaid"}')->>'state', 'suspended', 'suspend');
SELECT is(pg_temp.body('get_tenant', '{acme}')->>'reason', 'unpaid', 'with a reason');
SELECT is(pg_temp.status('suspend_tenant', '{acme}', '{}', jsonb_build_object('reason', repeat('x', 201))), '422 wrong-length /reason', 'of 200 bytes');
SELECT is(pg_temp.body('resume_tenant', '{acme}')->>'state', 'active', 'resume');
SELECT is(pg_temp.body('get_tenant', '{acme}')->'reason', NULL, 'takes the reason away');
SELECT is(pg_temp.status('suspend_tenant', '{nobody}'), '404 unknown-tenant', 'suspend unknown');
SELECT is(pg_temp.status('put_boost', '{acme}', '{}', '{"factor": 3, "until": "2099-01-01T00:00:00Z"}'), '422 out-of-range /until', 'a boost of ages');
SELECT is(pg_temp.status('put_boost', '{acme}', '{}', jsonb_build_object('factor', 3, 'until', to_char(now() + interval '2 hours', 'YYYY-MM-DD"T"HH24:MI:SSTZH:TZM'))), '200', 'PUT boost');
SELECT is(pg_temp.body('get_document', '{acme}') #>> '{boost,factor}', '3', 'is in the document');
SELECT is(pg_temp.status('put_boost', '{acme}', '{}', '{"factor": 3}'), '422 missing-field /until', 'a boost without end');
SELECT is(pg_temp.status('put_boost', '{acme}', '{}', '{"factor": 0, "until": "2030-01-01T00:00:00Z"}'), '422 out-of-range /factor', 'a boost of nothing');
SELECT is(pg_temp.status('delete_boost', '{acme}'), '204', 'DELETE boost');

-- collections
SELECT is(pg_temp.status('put_host', '{acme,api.acme.example.com}'), '201', 'PUT host');
SELECT is(pg_temp.status('put_host', '{acme,api.acme.example.com}'), '200', 'again');
SELECT is(pg_temp.status('put_host', '{acme,BAD}'), '422 invalid-hostname', 'PUT a bad host');
SELECT is(pg_temp.status('get_host', '{acme,api.acme.example.com}'), '200', 'GET host');
SELECT is(pg_temp.status('delete_host', '{acme,api.acme.example.com}'), '204', 'DELETE host');
SELECT is(pg_temp.status('delete_host', '{acme,api.acme.example.com}'), '404 unknown-host', 'again');

SELECT is(pg_temp.status('put_platform_issuer', '{platform}', '{}', '{"issuer": "https://id", "jwks_uri": "https://id/keys"}'), '201', 'PUT platform issuer');
SELECT is(pg_temp.status('put_issuer', '{acme,platform}', '{}', '{"ref": "platform", "audiences": ["api"]}'), '201', 'PUT issuer reference');
SELECT is(pg_temp.status('put_issuer', '{acme,own}', '{}', '{"issuer": "https://own", "jwks_uri": "https://own/keys", "audiences": ["a"]}'), '201', 'PUT issuer');
SELECT is(pg_temp.body('get_issuer', '{acme,platform}') - 'id', '{"name": "platform", "ref": "platform", "audiences": ["api"]}', 'GET issuer reference');
SELECT is(jsonb_array_length(pg_temp.body('list_issuers', '{acme}')->'items'), 2, 'list issuers');
SELECT is(pg_temp.status('delete_platform_issuer', '{platform}'), '409 issuer-in-use', 'an issuer in use stays');
SELECT is(pg_temp.status('delete_issuer', '{acme,platform}'), '204', 'DELETE issuer');
SELECT is(pg_temp.status('delete_platform_issuer', '{platform}'), '204', 'then it may go');
SELECT is(pg_temp.status('get_platform_issuer', '{platform}'), '404 unknown-issuer', 'and is gone');
SELECT is(pg_temp.body('list_platform_issuers', '{}')->'items', '[]', 'list platform issuers');

SELECT is(pg_temp.status('put_consumer', '{acme,mobile}', '{}', '{"labels": {"team": "a"}}'), '201', 'PUT consumer');
SELECT is(pg_temp.body('get_consumer', '{acme,mobile}')->'labels', '{"team": "a"}', 'GET consumer');
SELECT is(pg_temp.status('put_upstream', '{acme,v2}', '{}', '{"endpoints": [{"address": "10.0.0.2", "port": 80}, {"address": "fd00::1", "port": 80}]}'), '201', 'PUT upstream');
SELECT is(pg_temp.body('get_upstream', '{acme,v2}')->'endpoints',
          '[{"address": "10.0.0.2", "port": 80, "weight": 1}, {"address": "fd00::1", "port": 80, "weight": 1}]', 'GET upstream');
SELECT is(pg_temp.status('put_upstream', '{acme,v2}', '{}', pg_temp.body('get_upstream', '{acme,v2}')), '200', 'what GET shows may be PUT');
SELECT is(pg_temp.body('put_upstream', '{acme,v2}', '{}', '{"host": "v2.internal"}')->'endpoints',
          '[{"address": "10.0.0.2", "port": 80, "weight": 1}, {"address": "fd00::1", "port": 80, "weight": 1}]', 'endpoints stay when not given');
SELECT is(pg_temp.body('put_upstream', '{acme,v2}', '{}', '{"endpoints": [{"address": "10.0.0.3", "port": 80, "weight": 5}]}')->'endpoints',
          '[{"address": "10.0.0.3", "port": 80, "weight": 5}]', 'and are replaced when given');
SELECT is(pg_temp.status('put_upstream', '{acme,v2}', '{}', '{"endpoints": [{"address": "x", "port": 80}]}'), '422 invalid-address /endpoints/0/address', 'PUT a bad upstream');

SELECT is(pg_temp.status('put_endpoint', '{acme,v2,10.0.0.9:80}', '{}', '{"weight": 2}'), '201', 'PUT endpoint');
SELECT is(pg_temp.status('put_endpoint', '{acme,v2,10.0.0.9:80}'), '200', 'again');
SELECT is(pg_temp.status('put_endpoint', '{acme,v2,[fd00::9]:80}'), '201', 'PUT endpoint of IPv6');
SELECT is(pg_temp.status('put_endpoint', '{acme,v2,10.0.0.9}'), '422 invalid-address', 'without port');
SELECT is(pg_temp.status('put_endpoint', '{acme,v2,169.254.0.1:80}'), '422 address-refused /address', 'a refused address');
SELECT is(pg_temp.status('put_endpoint', '{acme,v9,10.0.0.9:80}'), '404 unknown-upstream', 'of an unknown upstream');
SELECT is(jsonb_array_length(pg_temp.body('list_endpoints', '{acme,v2}')->'items'), 3, 'list endpoints');
SELECT is(pg_temp.status('delete_endpoint', '{acme,v2,[fd00::9]:80}'), '204', 'DELETE endpoint');
SELECT is(pg_temp.status('delete_endpoint', '{acme,v2,[fd00::9]:80}'), '404 unknown-endpoint', 'again');

SELECT is(pg_temp.status('put_route', '{acme,orders}', '{}', '{"match": {"path": {"value": "/orders"}, "methods": ["POST", "GET"]},
    "auth": {"scopes": ["orders:read"], "claims": [{"name": "role", "values": ["admin"]}]},
    "rewrite": {"type": "strip_prefix"}, "backends": [{"upstream": "v1", "weight": 95}, {"upstream": "v2", "weight": 5}], "sticky": "consumer"}'), '201', 'PUT route');
SELECT is(pg_temp.body('get_route', '{acme,orders}') - 'id', '{"name": "orders",
    "match": {"path": {"type": "prefix", "value": "/orders"}, "methods": ["GET", "POST"]},
    "auth": {"mode": "required", "scopes": ["orders:read"], "claims": [{"name": "role", "values": ["admin"]}], "hide_credentials": true},
    "rewrite": {"type": "strip_prefix"}, "backends": [{"upstream": "v1", "weight": 95}, {"upstream": "v2", "weight": 5}],
    "sticky": "consumer", "timeouts": {"connect_ms": 1000, "send_ms": 30000, "read_ms": 30000}, "retries": 1, "websocket": false}', 'GET route');
SELECT is(pg_temp.status('put_route', '{acme,orders}', '{}', pg_temp.body('get_route', '{acme,orders}')), '200', 'what GET shows may be PUT');
SELECT is(pg_temp.status('put_route', '{acme,other}', '{}', pg_temp.body('get_route', '{acme,orders}')), '422 name-mismatch /name', 'but not elsewhere');
SELECT is(pg_temp.status('put_route', '{acme,orders}', '{}', '{"backends": [{"upstream": "v7"}]}'), '422 unknown-upstream /backends/0/upstream', 'PUT a bad route');
SELECT is(pg_temp.status('put_route', '{acme,orders}', '{}', '{"backends": [{"upstream": "v1"}], "retries": 9}'), '422 out-of-range /retries', 'PUT a route out of range');
SELECT is(pg_temp.status('put_route', '{acme,orders}', '{}', '[]'), '422 wrong-type', 'PUT what is no object');
SELECT is(pg_temp.status('delete_upstream', '{acme,v1}'), '409 upstream-in-use', 'an upstream in use stays');

SELECT is(pg_temp.status('put_quota', '{acme,per-route}', '{}', '{"route": "orders", "limit": 50, "window": "1s", "burst": 20}'), '201', 'PUT quota');
SELECT is(pg_temp.body('get_quota', '{acme,per-route}') - 'id', '{"name": "per-route", "scope": "route", "route": "orders", "metric": "requests", "limit": 50, "window": "1s", "burst": 20, "dry_run": false}', 'GET quota');
SELECT is(pg_temp.body('put_quota', '{acme,each}', '{}', '{"scope": "consumer", "limit": 5, "window": "day"}') - 'id', '{"name": "each", "scope": "consumer", "metric": "requests", "limit": 5, "window": "day", "dry_run": false}', 'a quota for each consumer');
SELECT is(pg_temp.status('put_quota', '{acme,each}', '{}', pg_temp.body('get_quota', '{acme,each}')), '200', 'what GET shows may be PUT');
SELECT is(pg_temp.status('put_quota', '{acme,per-route}', '{}', '{"limit": 50, "window": "2 s"}'), '422 invalid-window /window', 'PUT a bad quota');
SELECT is(pg_temp.status('delete_route', '{acme,orders}'), '204', 'DELETE route');
SELECT is(pg_temp.status('get_quota', '{acme,per-route}'), '404 unknown-quota', 'its quota goes with it');
SELECT is(pg_temp.status('delete_upstream', '{acme,v1}'), '204', 'and the upstream may go');

-- pages
SELECT is((SELECT count(*) FROM generate_series(1, 5) n WHERE pg_temp.status('put_consumer', ARRAY['acme', 'c' || n]) = '201'), 5::bigint, 'five consumers');
SELECT is(jsonb_path_query_array(p, '$.items[*].name'), '["c1", "c2"]', 'first page') FROM pg_temp.body('list_consumers', '{acme}', '{"limit": "2"}') p;
SELECT is(jsonb_path_query_array(pg_temp.body('list_consumers', '{acme}', jsonb_build_object('limit', '2', 'cursor', p->>'next')), '$.items[*].name'), '["c3", "c4"]', 'second page')
  FROM pg_temp.body('list_consumers', '{acme}', '{"limit": "2"}') p;
SELECT is(pg_temp.body('list_consumers', '{acme}', '{"limit": "6"}')->'next', NULL, 'the last page has no next');
SELECT is(pg_temp.status('list_consumers', '{acme}', '{"limit": "0"}'), '400 invalid-parameter', 'limit 0');
SELECT is(pg_temp.status('list_consumers', '{acme}', '{"limit": "x"}'), '400 invalid-parameter', 'limit x');
SELECT is(pg_temp.status('list_consumers', '{acme}', '{"cursor": "%%%"}'), '400 invalid-parameter', 'a cursor of one''s own');
SELECT is(pg_temp.status('list_keys', '{acme}', '{"cursor": "eHl6"}'), '400 invalid-parameter', 'a cursor that is no number');
SELECT is(jsonb_array_length(pg_temp.body('list_tenants', '{}')->'items'), 1, 'list tenants');
SELECT is(jsonb_array_length(pg_temp.body('list_tenants', '{}', '{"state": "suspended"}')->'items'), 0, 'by state');
SELECT is(jsonb_array_length(pg_temp.body('list_tenants', '{}', '{"host": "acme.example.com"}')->'items'), 1, 'by host');

-- keys
SELECT is(pg_temp.status('create_key', '{acme}', '{}', '{"consumer": "web", "scopes": ["a"]}'), '201', 'POST key');
SELECT matches(pg_temp.body('create_key', '{acme}', '{}', '{"consumer": "web"}')->>'key', '^tgk_[A-Za-z0-9_-]{43}$', 'shown once');
SELECT is((SELECT count(*) FROM jsonb_array_elements(pg_temp.body('list_keys', '{acme}')->'items') k WHERE k ? 'key' OR k ? 'sha256'), 0::bigint, 'and not again');
SELECT is(pg_temp.body('create_key', '{acme}', '{}', jsonb_build_object('consumer', 'old', 'sha256', encode(sha256('x'), 'hex')))->'key', NULL, 'a key that exists is registered');
SELECT is(pg_temp.status('create_key', '{acme}', '{}', jsonb_build_object('consumer', 'old', 'sha256', encode(sha256('x'), 'hex'))), '409 duplicate-key /sha256', 'once');
SELECT is(pg_temp.status('create_key', '{acme}', '{}', '{}'), '422 missing-field /consumer', 'a key of nobody');
SELECT is(pg_temp.status('rotate_key', ARRAY['acme', (SELECT max(id)::text FROM tiergate.api_keys)], '{}', '{"grace": 60}'), '201', 'rotate');
SELECT is((SELECT count(*) FROM jsonb_array_elements(pg_temp.body('get_document', '{acme}')->'api_keys') k WHERE k->>'consumer' = 'old'), 2::bigint, 'both keys hold during the grace');
SELECT is(pg_temp.status('rotate_key', ARRAY['acme', (SELECT min(id)::text FROM tiergate.api_keys WHERE consumer = 'old')]), '409 key-rotated', 'not twice');
SELECT is(pg_temp.status('rotate_key', ARRAY['acme', (SELECT max(id)::text FROM tiergate.api_keys)], '{}', '{"grace": -1}'), '422 out-of-range /grace', 'no grace before');
SELECT is(pg_temp.status('rotate_key', ARRAY['acme', (SELECT max(id)::text FROM tiergate.api_keys)]), '201', 'rotate without grace');
SELECT is((SELECT count(*) FROM jsonb_array_elements(pg_temp.body('get_document', '{acme}')->'api_keys') k WHERE k->>'consumer' = 'old'), 2::bigint, 'ends the old key at once');
SELECT is(pg_temp.status('delete_key', ARRAY['acme', (SELECT max(id)::text FROM tiergate.api_keys)]), '204', 'revoke');
SELECT is(pg_temp.status('delete_key', '{acme,999999}'), '404 unknown-key', 'revoke unknown');
SELECT is(pg_temp.status('delete_key', '{acme,x}'), '404 unknown-key', 'revoke x');
SELECT is(pg_temp.status('put_consumer', '{acme,web}'), '201', 'a consumer');
SELECT is(pg_temp.status('delete_consumer', '{acme,web}'), '204', 'that is deleted');
SELECT is((SELECT count(*) FROM tiergate.api_keys WHERE consumer = 'web'), 0::bigint, 'takes its keys along');

-- gateways
SELECT is(pg_temp.status('put_gateway', '{shared-1}'), '201', 'PUT gateway');
SELECT is(pg_temp.status('put_gateway', '{own-1}', '{}', '{"kind": "dedicated", "tenant": "acme"}'), '201', 'PUT dedicated gateway');
SELECT is(pg_temp.status('put_gateway', '{own-2}', '{}', '{"kind": "dedicated"}'), '422 invalid-gateway /tenant', 'of nobody');
SELECT is(pg_temp.status('put_gateway', '{own-2}', '{}', '{"kind": "dedicated", "tenant": "zz"}'), '422 unknown-tenant /tenant', 'of an unknown');
SELECT is(pg_temp.status('put_gateway', '{"Bad Name"}'), '422 invalid-name /name', 'of a bad name');
SELECT is(pg_temp.status('ack_gateway', '{shared-1}', '{}', jsonb_build_object('boot', 'b1', 'revision', 7, 'state', 'live', 'tenants', 1,
    'registry', (SELECT id FROM tiergate.registry), 'zone', '{"size": 100, "used": 10}'::jsonb,
    'rejected', '[{"kind": "tenant", "name": "acme", "revision": 5, "reason": "zone full"}]'::jsonb)), '204', 'POST ack');
SELECT is(pg_temp.body('get_tenant', '{acme}')->'observedRevision', '{"shared-1": 7}', 'is seen in the tenant');
SELECT is(pg_temp.body('get_tenant', '{acme}')->'rejected', '{"shared-1": "zone full"}', 'with what was rejected');
SELECT is(pg_temp.status('ack_gateway', '{shared-1}', '{}', '{"boot": "b1", "revision": 6, "state": "live"}'), '204', 'an ack that was overtaken');
SELECT is(pg_temp.body('get_gateway', '{shared-1}')->'observedRevision', '7', 'does not go back');
SELECT is(pg_temp.status('ack_gateway', '{shared-1}', '{}', '{"boot": "b2", "revision": 6, "state": "loading"}'), '204', 'but another boot');
SELECT is(pg_temp.body('get_gateway', '{shared-1}')->'observedRevision', '6', 'does');
SELECT is(pg_temp.status('ack_gateway', '{shared-1}', '{}', '{"boot": "b1", "revision": "x", "state": "live"}'), '422 invalid-report /revision', 'a bad revision');
SELECT is(pg_temp.status('ack_gateway', '{shared-1}', '{}', '{"boot": "b1", "revision": 1, "state": "dead"}'), '422 invalid-report /state', 'a bad state');
SELECT is(pg_temp.status('ack_gateway', '{shared-1}', '{}', '{"boot": "b1", "revision": 1, "state": "live", "tenants": "many"}'), '422 invalid-report', 'a bad number');
SELECT is(pg_temp.status('ack_gateway', '{shared-1}', '{}', '{"boot": "b1", "revision": 1, "state": "live", "registry": "00000000-0000-0000-0000-000000000000"}'), '409 other-registry /registry', 'another registry');
SELECT is(pg_temp.status('ack_gateway', '{shared-1}', '{}', NULL), '422 invalid-report /boot', 'no body');
SELECT is(jsonb_array_length(pg_temp.body('list_gateways', '{}')->'items'), 2, 'list gateways');
SELECT is(pg_temp.status('delete_gateway', '{own-1}'), '204', 'DELETE gateway');
SELECT is(pg_temp.status('get_gateway', '{own-1}'), '404 unknown-gateway', 'is gone');
SELECT is(jsonb_array_length(pg_temp.body('list_tiers', '{}')->'items'), 2, 'list tiers');

-- tokens
SELECT matches(pg_temp.body('create_token', '{}', '{}', '{"name": "portal", "scope": "admin"}')->>'token', '^tgt_[A-Za-z0-9_-]{43}$', 'POST token');
SELECT is(pg_temp.status('create_token', '{}', '{}', '{"name": "portal", "scope": "admin"}'), '409 token-exists /name', 'twice');
SELECT is(pg_temp.status('create_token', '{}', '{}', '{"name": "t", "scope": "tenant"}'), '422 invalid-token /tenant', 'a tenant''s token without tenant');
SELECT is(pg_temp.status('create_token', '{}', '{}', '{"name": "t", "scope": "admin", "tenant": "acme"}'), '422 invalid-token /tenant', 'an admin''s with one');
SELECT is(pg_temp.status('create_token', '{}', '{}', '{"name": "t", "scope": "tenant", "tenant": "zz"}'), '422 unknown-tenant /tenant', 'of an unknown tenant');
SELECT is(pg_temp.body('create_token', '{}', '{}', '{"name": "cert", "scope": "reader", "certificate": {"subject": "CN=ops"}}')->'token', NULL, 'a certificate gets no token');
SELECT is(pg_temp.status('create_token', '{}', '{}', '{"name": "t", "scope": "reader", "certificate": {}}'), '422 invalid-token /certificate', 'an empty certificate');
SELECT is((SELECT count(*) FROM jsonb_array_elements(pg_temp.body('list_tokens', '{}')->'items') t WHERE t ? 'token'), 0::bigint, 'tokens are not listed');
SELECT is(pg_temp.status('delete_token', ARRAY[(SELECT id::text FROM tiergate.api_tokens WHERE name = 'portal')]), '204', 'DELETE token');
SELECT is(pg_temp.status('delete_token', ARRAY[(SELECT id::text FROM tiergate.api_tokens WHERE name = 'portal')]), '404 unknown-token', 'again');

-- usage, status, audit
SELECT is(pg_temp.status('report_usage', '{shared-1}', '{}', jsonb_build_object('boot', 'b1', 'time', extract(epoch FROM now()) * 1000,
    'counters', '[{"tenant": "acme", "route": "orders", "requests": 10, "status": [0,9,0,1,0], "denied": 0, "throttled": 1, "bytes_in": 100,
                   "bytes_out": 2000, "latency_us": 12345, "latency": [0,4,5,1,0,0,0,0,0,0,0,0]}]'::jsonb,
    'quotas', jsonb_build_array(jsonb_build_object('id', (SELECT id FROM tiergate.quotas WHERE name = 'each'), 'key', 'mobile', 'used', 3, 'limit', 5, 'throttled', 1)))), '204', 'POST usage');
SELECT is(pg_temp.body('get_usage', '{acme}') #> '{items,0,requests}', '10', 'GET usage');
SELECT is(pg_temp.body('get_usage', '{acme}', '{"route": "none"}')->'items', '[]', 'of a route');
SELECT is(pg_temp.status('get_usage', '{acme}', '{"step": "week"}'), '400 invalid-parameter', 'of a bad step');
SELECT is(pg_temp.status('get_usage', '{acme}', '{"from": "yesterday"}'), '400 invalid-parameter', 'of a bad time');
SELECT is(pg_temp.body('get_quota_status', '{acme}') #- '{items,0,reported_at}', '{"items": [{"quota": "each", "consumer": "mobile", "metric": "requests", "limit": 5, "per": "day", "used": 3, "remaining": 2, "throttled": 1, "dry_run": false}]}', 'GET quota-status');
SELECT is(pg_temp.body('get_tenant_audit', '{acme}', '{"limit": "1"}') #>> '{items,0,actor}', 'peer:root', 'GET audit of a tenant');
SELECT is(pg_temp.body('get_audit', '{}', '{"limit": "1"}') #>> '{items,0,request_id}', 'req-1', 'GET audit');

SELECT is(pg_temp.status('delete_tenant', '{acme}'), '204', 'DELETE tenant');
SELECT is(pg_temp.status('get_tenant', '{acme}'), '404 unknown-tenant', 'is gone');
SELECT is((SELECT count(*) FROM tiergate.routes) + (SELECT count(*) FROM tiergate.hosts) + (SELECT count(*) FROM tiergate.quotas)
        + (SELECT count(*) FROM tiergate.endpoints) + (SELECT count(*) FROM tiergate.api_keys), 0::numeric::bigint, 'with all that it owned');

-- import
SELECT results_eq($$ SELECT line, status, body::jsonb->>'type', body::jsonb #>> '{errors,0,pointer}'
                       FROM tiergate.import_tenants('[{"name": "i1", "hosts": ["i1.example.com"], "keys": [{"consumer": "a"}]}, {"name": "BAD"}, {"name": "i3", "hosts": ["i1.example.com"]}, 5, {"name": "i5"}]') $$,
    $$ VALUES (1, 201, NULL, NULL), (2, 422, 'urn:tiergate:problem:invalid-label', '/name'),
              (3, 409, 'urn:tiergate:problem:host-taken', '/hosts/0'), (4, 422, 'urn:tiergate:problem:wrong-type', NULL), (5, 201, NULL, NULL) $$,
    'import: a bad line does not stop the others');
SELECT is((SELECT count(*) FROM tiergate.tenants), 2::bigint, 'the good lines are there');
SELECT is((SELECT count(*) FROM tiergate.import_tenants('[]')), 0::bigint, 'import of nothing');

-- several new tenants at once
CREATE FUNCTION pg_temp.together(calls jsonb)
RETURNS SETOF tiergate_api.response LANGUAGE sql AS $$
    SELECT tiergate_api.begin_request('{"peer": {"user": "root", "role": "admin"}}', 'admin', NULL, NULL, NULL, NULL);
    SELECT * FROM tiergate_api.create_tenants(calls);
$$;

CREATE TEMP TABLE together AS SELECT * FROM pg_temp.together('[
    {"id": "req-two", "body": {"name": "two", "hosts": ["two.example.com"], "keys": [{"consumer": "web"}]}},
    {"id": "req-one", "body": {"name": "one"}, "idempotency": {"key": "k", "digest": "d"}}]');
SELECT results_eq('SELECT status, location FROM together',
    $$ VALUES (201, '/v1/tenants/two'), (201, '/v1/tenants/one') $$, 'several tenants at once, in order');
SELECT is((SELECT count(DISTINCT etag) FROM together), 1::bigint, 'share a revision');
SELECT bag_eq('SELECT t.etag, t.body::jsonb - ''keys'' FROM together t',
    $$ SELECT r.etag, r.body::jsonb FROM unnest('{one,two}'::text[]) n, pg_temp.call('get_tenant', ARRAY[n]) r $$,
    'and answer as one would');
SELECT matches((SELECT body::jsonb #>> '{keys,0,key}' FROM together LIMIT 1), '^tgk_', 'keys are shown');
SELECT bag_eq($$ SELECT DISTINCT tenant, request_id, actor FROM tiergate.audit WHERE tenant IN ('one', 'two') $$,
    $$ VALUES ('one', 'req-one', 'peer:root'), ('two', 'req-two', 'peer:root') $$, 'the audit tells the calls apart');
SELECT is((SELECT r.body::jsonb->>'name' FROM tiergate_api.begin_request('{"peer": {"user": "root", "role": "admin"}}',
    'admin', NULL, '{"key": "k", "digest": "d"}', NULL, 'r') r), 'one', 'and an answer is remembered');
SELECT throws_ok($$ SELECT pg_temp.together('[{"id": "a", "body": {"name": "three"}}, {"id": "b", "body": {"name": "one"}}]') $$,
    NULL, NULL, 'one that is refused refuses all');
SELECT throws_ok($$ SELECT pg_temp.together('[{"id": "a", "body": {"name": "three"}, "idempotency": {"key": "k", "digest": "d"}}]') $$,
    '23505', NULL, 'and so does one that was made before');
SELECT throws_ok($$ SELECT pg_temp.together('[{"id": "a", "body": {"name": "three"}}, {"id": "b", "body": {"name": "three"}}]') $$,
    '23505', NULL, 'or the same name twice');
SELECT is(pg_temp.status('get_tenant', '{three}'), '404 unknown-tenant', 'nothing was done then');

-- every route of the contract is a function of this shape
SELECT is((SELECT count(*) FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
            WHERE n.nspname = 'tiergate_api' AND p.prorettype = 'tiergate_api.response'::regtype
              AND obj_description(p.oid, 'pg_proc') ~ '^(GET|POST|PUT|PATCH|DELETE) /v1/'
              AND pg_get_function_identity_arguments(p.oid) <> 'path text[], query jsonb, body jsonb'), 0::bigint, 'REST functions have one shape');

-- dedicated gateways
SELECT is(pg_temp.status('create_tenant', '{}', '{}', '{"name": "ded", "tier": "dedicated"}'), '201', 'POST of a dedicated tenant');
SELECT is(b - '{id,created_at,revision,observedRevision,labels,hosts}'::text[], '{"name": "ded", "tier": "dedicated", "placement": "dedicated", "forwarding": "forward", "state": "active"}',
          'shows where it is served') FROM pg_temp.body('get_tenant', '{ded}') b;
SELECT 'dedicated-' || id AS ded FROM tiergate.tenants WHERE name = 'ded' \gset
SELECT ok(pg_temp.body('get_tenant', '{ded}')->'observedRevision' ? :'ded', 'and how far its gateway is');
SELECT is(b - '{since,created_at}'::text[], format('{"name": "%s", "kind": "dedicated", "tenant": "ded", "state": "unknown", "observedRevision": 0, "rejected": [],
    "desired": "running", "generation": 1, "observedGeneration": 0, "phase": "pending", "reason": "Unclaimed", "message": "no tenantd has taken it yet",
    "next": "a tenantd with a provisioner takes it", "conditions": [], "attempts": 0, "restarts": 0, "plugins": ["gzip"]}', :'ded')::jsonb, 'GET gateway of a tenant')
  FROM pg_temp.body('get_tenant_gateway', '{ded}') b;
SELECT is(pg_temp.body('get_gateway', ARRAY[:'ded']), pg_temp.body('get_tenant_gateway', '{ded}'), 'is that of its name');
SELECT is(pg_temp.status('get_tenant_gateway', '{acme}'), '404 unknown-gateway', 'of a tenant that has none') WHERE EXISTS (SELECT FROM tiergate.tenants WHERE name = 'acme');
SELECT is(pg_temp.status('get_tenant_gateway', '{nobody}'), '404 unknown-tenant', 'of an unknown tenant');
SELECT is(pg_temp.status('put_gateway', '{dedicated-77}', '{}', '{}'), '422 reserved-name /name', 'PUT of a reserved name');
SELECT is(pg_temp.status('put_gateway', ARRAY[:'ded'], '{}', '{"kind": "shared"}'), '409 gateway-managed', 'PUT of a gateway that tenantd runs');
SELECT is(pg_temp.status('delete_gateway', ARRAY[:'ded']), '409 gateway-managed', 'DELETE of one');
SELECT is(pg_temp.status('ack_gateway', '{dedicated-77}', '{}', '{"boot": "b", "revision": 1, "state": "live"}'), '422 reserved-name /name', 'ack of one that is gone');

SELECT count(*) FROM tiergate.instances_claim('n1', 'process', 9, 20000, 20000, '127.0.0.1');
SELECT tiergate.instance_ready(:'ded');
SELECT is(b - '{since,created_at}'::text[], format('{"name": "%s", "kind": "dedicated", "tenant": "ded", "state": "unknown", "observedRevision": 0, "rejected": [],
    "desired": "running", "generation": 1, "observedGeneration": 0, "phase": "ready", "reason": "Ready", "message": "it serves its tenant",
    "next": "it rolls from generation 0 to 1", "attempts": 0, "restarts": 0, "plugins": ["gzip"], "node": "n1", "driver": "process",
    "address": "127.0.0.1", "port": 20000}', :'ded')::jsonb, 'with what its driver says') FROM (SELECT pg_temp.body('get_gateway', ARRAY[:'ded']) - 'conditions') x (b);
SELECT is(jsonb_path_query_array(pg_temp.body('list_gateway_events', ARRAY[:'ded']), '$.items[*].reason'), '["Ready", "Claimed", "Wanted"]', 'events, newest first');
SELECT is(jsonb_path_query_array(pg_temp.body('list_gateway_events', ARRAY[:'ded'], jsonb_build_object('limit', '1', 'cursor', p->>'next')), '$.items[*].reason'), '["Claimed"]', 'page by page')
  FROM pg_temp.body('list_gateway_events', ARRAY[:'ded'], '{"limit": "1"}') p;
SELECT is(pg_temp.status('list_gateway_events', '{unheard-of}'), '404 unknown-gateway', 'of an unknown gateway');

-- tiers change over REST
SELECT is(pg_temp.body('create_tenant', '{}', '{}', '{"name": "mover"}')->>'placement', 'shared', 'a tenant on the shared gateways');
SELECT is(b - '{id,created_at,revision,observedRevision,labels,hosts}'::text[], '{"name": "mover", "tier": "dedicated", "placement": "shared", "forwarding": "misdirect", "state": "active"}',
          'PATCH tier, forwarding') FROM pg_temp.body('patch_tenant', '{mover}', '{}', '{"tier": "dedicated", "forwarding": "misdirect"}') b;
SELECT is(pg_temp.status('patch_tenant', '{mover}', '{}', p.patch::jsonb, NULL, p.scope), p.status, p.scope || ' PATCH ' || p.patch) FROM (VALUES
    ('{"forwarding": "drop"}', 'admin', '422 unknown-value /forwarding'), ('{"forwarding": null}', 'admin', '422 missing-field /forwarding'),
    ('{"forwarding": 5}', 'admin', '422 wrong-type /forwarding'), ('{"placement": "dedicated"}', 'admin', '422 unknown-field /placement'),
    ('{"tier": "gold"}', 'admin', '422 unknown-tier /tier'),
    ('{"forwarding": "forward"}', 'tenant', '403 forbidden /forwarding'), ('{"tier": "vcluster"}', 'tenant', '403 forbidden /tier')) p (patch, scope, status);
SELECT count(*) FROM tiergate.instances_claim('n1', 'process', 9, 20001, 20001, '127.0.0.1');
SELECT 'dedicated-' || id AS mover FROM tiergate.tenants WHERE name = 'mover' \gset
SELECT is(pg_temp.status('ack_gateway', '{shared-9}', '{}', '{"boot": "b", "revision": 1, "state": "live"}'), '204', 'a shared gateway lives');
SELECT is(pg_temp.status('ack_gateway', ARRAY[:'mover'], '{}', jsonb_build_object('boot', 'b', 'revision', s.revision, 'state', 'live')), '204', 'its own acknowledges')
  FROM tiergate.registry_state() s;
SELECT tiergate.instance_ready(:'mover');
SELECT is((pg_temp.body('get_tenant_gateway', '{mover}')->'handover') - '{id,started_at,step_at}'::text[], '{"direction": "promote", "step": "export", "waiting_for": ["shared-9"]}', 'the move is seen');
SELECT is(pg_temp.body('get_tenant_gateway', '{mover}')->>'next', 'it rolls from generation 0 to 1', 'and what comes next');
SELECT max(id) AS handover FROM tiergate.handovers \gset
SELECT is(pg_temp.status('report_handover', '{shared-9}', '{}', jsonb_build_object('handover', :handover, 'words', '[]'::jsonb)), '204', 'POST handover');
SELECT is(pg_temp.status('report_handover', '{shared-9}', '{}', jsonb_build_object('handover', :handover)), '410 handover-over /handover', 'when it is over');
SELECT is(pg_temp.status('report_handover', '{shared-9}', '{}', '[]'), '422 invalid-report /handover', 'what is no report');
SELECT is(pg_temp.body('get_tenant', '{mover}')->>'placement', 'dedicated', 'it has moved');
SELECT is(pg_temp.body('get_tenant_gateway', '{mover}')->'handover'->>'outcome', 'complete', 'completely');
SELECT is(pg_temp.status('report_usage', '{shared-9}', '{}', '{"boot": "b", "counters": [{"tenant": "mover", "route": "tiergate-forward", "requests": 5, "status": [0,5,0,0,0]},
    {"tenant": "mover", "route": "", "requests": 2, "status": [0,0,0,2,0]}]}'), '204', 'usage of what was passed on');
SELECT is((SELECT sum(requests) FROM tiergate.usage WHERE tenant = 'mover'), 2::numeric, 'is not counted twice');
SELECT is(pg_temp.status('delete_tenant', '{mover}'), '204', 'DELETE of a dedicated tenant');
SELECT is(pg_temp.body('get_gateway', ARRAY[:'mover'])->>'desired', 'absent', 'its gateway is to go');
SELECT tiergate.instance_removed(:'mover');
SELECT is(pg_temp.status('get_gateway', ARRAY[:'mover']), '404 unknown-gateway', 'and is gone');
SELECT is(pg_temp.body('list_gateway_events', ARRAY[:'mover']) #>> '{items,0,reason}', 'Removed', 'what happened stays');

-- plugins
SELECT is(pg_temp.status('put_plugin', '{extra}', '{}', '{"description": "x", "modules": ["ngx_http_x_module.so"],
    "schema": {"type": "object", "properties": {"size": {"type": "integer", "default": 1, "minimum": 1}}}, "snippets": {"location": "x {{size}};"}}'), '201', 'PUT plugin');
SELECT is(pg_temp.body('get_plugin', '{extra}') - 'created_at', '{"name": "extra", "description": "x", "modules": ["ngx_http_x_module.so"],
    "schema": {"type": "object", "properties": {"size": {"type": "integer", "default": 1, "minimum": 1}}}, "snippets": {"location": "x {{size}};"}}', 'GET plugin');
SELECT is(pg_temp.status('put_plugin', '{extra}', '{}', pg_temp.body('get_plugin', '{extra}')), '200', 'what GET shows may be PUT');
SELECT is(pg_temp.status('put_plugin', '{other}', '{}', pg_temp.body('get_plugin', '{extra}')), '422 name-mismatch /name', 'but not elsewhere');
SELECT is(pg_temp.status('put_plugin', '{p}', '{}', b.body::jsonb), b.status, 'PUT plugin ' || b.body) FROM (VALUES
    ('[]', '422 wrong-type'), ('{"module": []}', '422 unknown-field /module'), ('{"modules": "x.so"}', '422 wrong-type /modules'),
    ('{"modules": [5]}', '422 invalid-module /modules'), ('{"schema": {"type": "array"}}', '422 invalid-schema /schema'),
    ('{"snippets": {"events": "x"}}', '422 unknown-field /snippets/events'), ('{"snippets": {"http": 5}}', '422 wrong-type /snippets/http'),
    ('{"snippets": {"http": "x {{a}};"}}', '422 invalid-template /snippets/http'), ('{"description": null}', '201')) b (body, status);
SELECT is(pg_temp.status('delete_plugin', '{p}'), '204', 'DELETE plugin');
SELECT is(pg_temp.status('get_plugin', '{p}'), '404 unknown-plugin', 'is gone');
SELECT is(pg_temp.status('delete_plugin', '{p}'), '404 unknown-plugin', 'already');
SELECT is(jsonb_path_query_array(pg_temp.body('list_plugins', '{}', '{"limit": "2"}'), '$.items[*].name'), '["access-log-json", "brotli"]', 'list plugins');

SELECT is(pg_temp.status('put_tenant_plugin', '{ded,extra}', '{}', '{"parameters": {"size": 3}}', NULL, 'tenant'), '201', 'a tenant picks');
SELECT is(pg_temp.status('put_tenant_plugin', '{ded,extra}', '{}', '{"parameters": {"size": 4}}', NULL, 'tenant'), '200', 'and changes its mind');
SELECT is(pg_temp.body('get_tenant_plugin', '{ded,extra}'), '{"name": "extra", "description": "x", "source": "tenant", "enabled": true, "mandatory": false, "parameters": {"size": 4}}', 'GET');
SELECT is(r.etag, tiergate_api.etag(tiergate.revision_of('tenant', t.id)), 'has the tenant''s revision') FROM tiergate.tenants t, pg_temp.call('get_tenant_plugin', '{ded,extra}') r WHERE t.name = 'ded';
SELECT is(pg_temp.status('put_tenant_plugin', '{ded,extra}', '{}', '{}', '"1"'), '412 precondition-failed', 'an old ETag');
SELECT is(pg_temp.status('put_tenant_plugin', '{ded,extra}', '{}', b.body::jsonb), b.status, 'PUT ' || b.body) FROM (VALUES
    ('{"parameters": {"size": 0}}', '422 out-of-range /parameters/size'), ('{"parameters": {"sizes": 1}}', '422 unknown-field /parameters/sizes'),
    ('{"parameters": [1]}', '422 wrong-type /parameters'), ('{"size": 1}', '422 unknown-field /size'), ('{"enabled": "no"}', '422 wrong-type /enabled'),
    ('[]', '422 wrong-type')) b (body, status);
SELECT is(pg_temp.status('put_tenant_plugin', '{ded,nothing}', '{}', '{}'), '404 unknown-plugin', 'an unknown plugin');
SELECT is(pg_temp.status('put_tenant_plugin', '{nobody,gzip}', '{}', '{}'), '404 unknown-tenant', 'of an unknown tenant');
SELECT is(pg_temp.status('put_tenant_plugin', '{ded,gzip}', '{}', '{"enabled": false}'), '201', 'one of the tier is turned off');
SELECT is(jsonb_path_query_array(pg_temp.body('list_tenant_plugins', '{ded}'), '$.items[*] ? (@.enabled == true).name'), '["extra"]', 'list plugins of a tenant');
SELECT is(pg_temp.body('get_tenant_gateway', '{ded}')->'plugins', '["extra"]', 'as its gateway has them');
SELECT is(pg_temp.status('delete_plugin', '{extra}'), '409 plugin-in-use', 'a plugin in use stays');
SELECT is(pg_temp.status('put_plugin', '{extra}', '{}', '{"schema": {"type": "object"}}'), '409 plugin-in-use /schema', 'as does its schema');
SELECT is(pg_temp.status('delete_tenant_plugin', '{ded,extra}', '{}', NULL, NULL, 'tenant'), '204', 'DELETE');
SELECT is(pg_temp.status('delete_tenant_plugin', '{ded,extra}'), '404 unknown-plugin', 'once');
SELECT is(pg_temp.status('put_tier_plugin', '{dedicated,extra}', '{}', '{"parameters": {"size": 5}, "mandatory": true}'), '201', 'a tier''s');
SELECT is(pg_temp.status('put_tier_plugin', '{dedicated,extra}', '{}', '{"parameters": {"size": 0}}'), '422 out-of-range /parameters/size', 'is judged, too');
SELECT is(pg_temp.status('put_tier_plugin', '{gold,extra}'), '404 unknown-tier', 'of an unknown tier');
SELECT is(pg_temp.status('put_tier_plugin', '{dedicated,nothing}'), '404 unknown-plugin', 'an unknown one');
SELECT is(pg_temp.status('put_tenant_plugin', '{ded,extra}', '{}', '{}'), '409 plugin-mandatory', 'mandatory');
SELECT is(jsonb_path_query_first(pg_temp.body('list_tiers', '{}'), '$.items[*] ? (@.name == "dedicated")') - 'description', '{"name": "dedicated", "gateway_kind": "dedicated", "gateway": {},
    "plugins": [{"name": "extra", "parameters": {"size": 5}, "mandatory": true}, {"name": "gzip", "parameters": {}, "mandatory": false}]}', 'tiers show theirs');
SELECT is(pg_temp.status('delete_tier_plugin', '{dedicated,extra}'), '204', 'DELETE');
SELECT is(pg_temp.status('delete_tier_plugin', '{dedicated,extra}'), '404 unknown-plugin', 'once');

SELECT * FROM finish();
