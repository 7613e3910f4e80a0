-- SPDX-License-Identifier: BSD-2-Clause
--
-- What the design prints for operators in psql, and plain DML under the same rules.

\set QUIET 1
SELECT * FROM no_plan();

SELECT tiergate.onboard('{"name": "acme", "hosts": ["acme.example.com"], "upstreams": [{"name": "v1"}, {"name": "v2"}],
    "routes": [{"name": "orders", "backends": [{"upstream": "v1"}]}]}');

SELECT is(tiergate.set_quota('acme', requests => 5000, per => '1 minute'), 'acme: 5000 requests per minute (quota requests-minute)', 'set_quota');
SELECT is(tiergate.set_quota('acme', route => 'orders', requests => 50, per => '1 second', burst => 20),
          'acme: 50 requests per second on route orders (quota orders.requests-second)', 'of a route');
SELECT is(tiergate.set_quota('acme', requests => 10, per => '1 day', consumer => '*'),
          'acme: 10 requests per day for each consumer (quota each.requests-day)', 'for each consumer');
SELECT is(tiergate.set_quota('acme', requests => 10, per => '1 month', consumer => 'auth0|5'),
          'acme: 10 requests per month for consumer auth0|5 (quota c' || left(md5('auth0|5'), 8) || '.requests-month)', 'for one');
SELECT is(tiergate.set_quota('acme', concurrency => 100), 'acme: 100 requests at a time (quota concurrency)', 'concurrency');
SELECT is(tiergate.set_quota('acme', body_size => 1000, dry_run => true), 'acme: 1000 bytes of request body, counted only (quota body-size)', 'body size');
SELECT is((SELECT count(*) FROM tiergate.quotas), 6::bigint, 'each counts something else');

SELECT is(tiergate.set_quota('acme', requests => 4000, per => '1 minute'), 'acme: 4000 requests per minute (quota requests-minute)', 'again');
SELECT is((SELECT count(*) FROM tiergate.quotas), 6::bigint, 'replaces what counts the same');
SELECT is(tiergate.set_quota('acme', requests => 9, per => '10 seconds', name => 'requests-minute'), 'acme: 9 requests per 10s (quota requests-minute)', 'by name');
SELECT is((SELECT count(*) FROM tiergate.quotas), 6::bigint, 'too');

SELECT throws_ok($$ SELECT tiergate.set_quota('nobody', requests => 1) $$, 'TG404', NULL, 'of an unknown tenant');
SELECT throws_ok($$ SELECT tiergate.set_quota('acme', route => 'nope', requests => 1) $$, 'TG422', NULL, 'of an unknown route');
SELECT throws_ok($$ SELECT tiergate.set_quota('acme') $$, 'TG422', NULL, 'of nothing');
SELECT throws_ok($$ SELECT tiergate.set_quota('acme', requests => 1, concurrency => 1) $$, 'TG422', NULL, 'of two things');
SELECT throws_ok($$ SELECT tiergate.set_quota('acme', requests => 0) $$, 'TG422', NULL, 'of none');
SELECT throws_ok($$ SELECT tiergate.set_quota('acme', requests => 1, per => '25 hours') $$, 'TG422', NULL, 'in a window that cannot be counted');
SELECT throws_ok($$ SELECT tiergate.set_quota('acme', requests => 1, per => '1.5 seconds') $$, 'TG422', NULL, 'in parts of a second');
SELECT throws_ok($$ SELECT tiergate.set_quota('acme', requests => 1, per => '1 month 1 day') $$, 'TG422', NULL, 'in a month and a day');
SELECT throws_ok($$ SELECT tiergate.set_quota('acme', requests => 1, per => '1 day', burst => 5) $$, 'TG422', NULL, 'with burst of a day');
SELECT is(tiergate.quota_window('24 hours'), 'day', '24 hours are a day');
SELECT is(tiergate.quota_window('30 days'), NULL, '30 days are no month');
SELECT is(tiergate.quota_window('1 hour'), '3600s', 'an hour');

UPDATE tiergate.quotas SET requests = 100 WHERE tenant = 'acme';
SELECT is((SELECT array_agg(requests ORDER BY name) FROM tiergate.quotas WHERE metric = 'requests'), '{100,100,100,100}', 'plain UPDATE sets requests');
SELECT is((SELECT array_agg(coalesce(requests, concurrency, body_size) ORDER BY name) FROM tiergate.quotas WHERE metric <> 'requests'), '{1000,100}',
          'and leaves quotas of other metrics alone');
SELECT throws_ok($$ UPDATE tiergate.quotas SET requests = -1 WHERE tenant = 'acme' $$, 'TG422', NULL, 'within the rules');
SELECT throws_ok($$ UPDATE tiergate.quotas SET per = '2 months' WHERE name = 'requests-minute' $$, 'TG422', NULL, 'of all columns');
SELECT lives_ok($$ INSERT INTO tiergate.quotas (tenant, requests, per) VALUES ('acme', 5, '1 hour') $$, 'plain INSERT needs no name');
SELECT throws_ok($$ INSERT INTO tiergate.quotas (tenant, requests, per) VALUES ('acme', 6, '60 minutes') $$, '23505', NULL, 'but counts nothing twice');

SELECT lives_ok($$ SELECT tiergate.drop_quota('acme', 'requests-hour') $$, 'drop_quota');
SELECT throws_ok($$ SELECT tiergate.drop_quota('acme', 'requests-hour') $$, 'TG404', NULL, 'again');

SELECT alike(tiergate.grant_boost('acme', factor => 3, until => now() + '2 hours'), 'acme: rates and request limits times 3 until %', 'grant_boost');
SELECT is((SELECT "limit" FROM tiergate.quota_status WHERE quota = 'requests-minute'), 300::bigint, 'shows in quota_status');
SELECT throws_ok($$ SELECT tiergate.grant_boost('acme', factor => 3, until => now() - interval '1 hour') $$, 'TG422', NULL, 'of the past');
SELECT throws_ok($$ SELECT tiergate.grant_boost('acme', factor => 1001, until => now() + '2 hours') $$, 'TG422', NULL, 'too much');
SELECT throws_ok($$ SELECT tiergate.grant_boost('nobody', factor => 2, until => now() + '2 hours') $$, 'TG404', NULL, 'of an unknown tenant');
SELECT tiergate.revoke_boost('acme');
SELECT is((SELECT "limit" FROM tiergate.quota_status WHERE quota = 'requests-minute'), 100::bigint, 'revoke_boost');

SELECT tiergate.suspend('acme', reason => 'unpaid');
SELECT is((SELECT row(state, reason)::text FROM tiergate.tenants), '(suspended,unpaid)', 'suspend');
SELECT tiergate.resume('acme');
SELECT is((SELECT row(state, reason)::text FROM tiergate.tenants), '(active,)', 'resume');
SELECT throws_ok($$ SELECT tiergate.suspend('nobody') $$, 'TG404', NULL, 'suspend an unknown tenant');

SELECT is(tiergate.set_weights('acme', 'orders', '{"v1": 95, "v2": 5}'), '[{"weight": 95, "upstream": "v1"}, {"weight": 5, "upstream": "v2"}]', 'set_weights');
SELECT throws_ok($$ SELECT tiergate.set_weights('acme', 'orders', '{"v9": 1}') $$, 'TG422', NULL, 'to an unknown upstream');
SELECT throws_ok($$ SELECT tiergate.set_weights('acme', 'nope', '{"v1": 1}') $$, 'TG404', NULL, 'of an unknown route');

SELECT matches(tiergate.create_api_key('acme', 'mobile', scopes => '{a}'), '^tgk_[A-Za-z0-9_-]{43}$', 'create_api_key');
SELECT is((SELECT count(DISTINCT tiergate.new_secret('x')) FROM generate_series(1, 1000)), 1000::bigint, 'secrets differ');
SELECT matches(r.key, '^tgk_', 'rotate_api_key') FROM tiergate.rotate_api_key((SELECT id FROM tiergate.api_keys), grace => '1 day') r;
SELECT is((SELECT count(*) FROM tiergate.api_keys WHERE expires_at = now()::date) , 0::bigint, 'with grace');
SELECT tiergate.revoke_api_key(max(id)) FROM tiergate.api_keys;
SELECT is((SELECT count(*) FROM tiergate.api_keys), 1::bigint, 'revoke_api_key');
SELECT throws_ok($$ SELECT tiergate.revoke_api_key(99999) $$, 'TG404', NULL, 'of an unknown key');

SELECT isnt(tiergate.create_tenant('beta', hosts => '{beta.example.com}'), NULL, 'create_tenant');
SELECT throws_ok($$ SELECT tiergate.create_tenant('beta') $$, 'TG409', NULL, 'twice');
SELECT throws_ok($$ SELECT tiergate.create_tenant('gamma', hosts => '{beta.example.com}') $$, 'TG409', NULL, 'with a host that is taken');
SELECT tiergate.delete_tenant('beta');
SELECT is((SELECT count(*) FROM tiergate.tenants WHERE name = 'beta'), 0::bigint, 'delete_tenant');

-- plain DML meets every rule that REST meets
SELECT throws_ok(d.statement, d.state, NULL, d.statement) FROM (VALUES
    ('INSERT INTO tiergate.tenants (name) VALUES (''Bad'')', 'TG422'),
    ('INSERT INTO tiergate.tenants (name, state) VALUES (''b'', ''gone'')', 'TG422'),
    ('INSERT INTO tiergate.tenants (name, tier) VALUES (''b'', ''gold'')', 'TG422'),
    ('INSERT INTO tiergate.tenants (name, labels) VALUES (''b'', ''{"a": 1}'')', 'TG422'),
    ('INSERT INTO tiergate.tenants (name, boost_factor) VALUES (''b'', 2)', 'TG422'),
    ('UPDATE tiergate.tenants SET name = ''b'' WHERE name = ''acme''', 'TG422'),
    ('UPDATE tiergate.tenants SET id = DEFAULT WHERE name = ''acme''', 'TG422'),
    ('UPDATE tiergate.tenants SET reason = repeat(''x'', 201), state = ''suspended''', 'TG422'),
    ('UPDATE tiergate.tenants SET reason = E''a\nb'', state = ''suspended''', 'TG422'),
    ('UPDATE tiergate.tenants SET boost_factor = 2, boost_until = ''infinity''', 'TG422'),
    ('UPDATE tiergate.routes SET scopes = ''{{a,b}}''', 'TG422'),
    ('UPDATE tiergate.routes SET auth_methods = ''{{jwt,api_key}}''', 'TG422'),
    ('UPDATE tiergate.routes SET claims = ''[{"name": "a\nb", "values": ["x"]}]''', 'TG422'),
    ('UPDATE tiergate.routes SET claims = ''[{"name": "a", "values": ["x\ny"]}]''', 'TG422'),
    ('INSERT INTO tiergate.issuers (name, issuer, jwks_uri, audiences) VALUES (''x'', ''https://x'', ''https://x'', ''{{a,b}}'')', 'TG422'),
    ('INSERT INTO tiergate.issuers (name, issuer, jwks_uri, algorithms) VALUES (''x'', ''https://x'', ''https://x'', ''{{RS256}}'')', 'TG422'),
    ('INSERT INTO tiergate.issuers (name, issuer, jwks_uri, consumer_claim) VALUES (''x'', ''https://x'', ''https://x'', E''a\nb'')', 'TG422'),
    ('UPDATE tiergate.settings SET value = ''"24 bananas"'' WHERE name = ''changes.retention''', 'TG422'),
    ('UPDATE tiergate.settings SET value = ''24'' WHERE name = ''usage.retention''', 'TG422'),
    ('UPDATE tiergate.settings SET value = ''"forever"'' WHERE name = ''changes.retention''', 'TG422'),
    ('UPDATE tiergate.settings SET value = ''"-1 day"'' WHERE name = ''audit.retention''', 'TG422'),
    ('UPDATE tiergate.settings SET value = ''["nonsense"]'' WHERE name = ''endpoints.deny''', 'TG422'),
    ('UPDATE tiergate.settings SET value = ''"10.0.0.0/8"'' WHERE name = ''endpoints.allow''', 'TG422'),
    ('UPDATE tiergate.settings SET value = ''"maybe"'' WHERE name = ''jwks.allow_http''', 'TG422'),
    ('UPDATE tiergate.settings SET value = ''0'' WHERE name = ''jwks.refresh_seconds''', 'TG422'),
    ('UPDATE tiergate.settings SET name = ''x'' WHERE name = ''jwks.refresh_seconds''', 'TG422'),
    ('SELECT tiergate.create_token(''x'', scope => ''god'')', 'TG422'),
    ('SELECT tiergate.create_token(''x'', scope => ''tenant'')', 'TG422'),
    ('SELECT tiergate.put_object(''widget'', ''acme'', ''x'', ''{}'')', 'TG422'),
    ('INSERT INTO tiergate.hosts VALUES (''a_b.example.com'', ''acme'')', 'TG422'),
    ('INSERT INTO tiergate.hosts VALUES (''single'', ''acme'')', 'TG422'),
    ('INSERT INTO tiergate.hosts VALUES (''acme.example.com'', ''acme'')', '23505'),
    ('INSERT INTO tiergate.hosts VALUES (''x.example.com'', ''nobody'')', '23503'),
    ('INSERT INTO tiergate.consumers (tenant, name) VALUES (''acme'', ''a b'')', 'TG422'),
    ('INSERT INTO tiergate.api_keys (tenant, consumer, sha256) VALUES (''acme'', ''a'', ''x'')', 'TG422'),
    ('INSERT INTO tiergate.api_keys (tenant, consumer, sha256, scopes) VALUES (''acme'', ''a'', sha256(''x''), ''{"a b"}'')', 'TG422'),
    ('INSERT INTO tiergate.issuers (name, issuer) VALUES (''x'', ''https://x'')', 'TG422'),
    ('INSERT INTO tiergate.issuers (name, issuer, keys) VALUES (''x'', ''https://x'', ''[{"kty": "oct", "k": "x"}]'')', 'TG422'),
    ('INSERT INTO tiergate.issuers (name, issuer, jwks_uri, algorithms) VALUES (''x'', ''https://x'', ''https://x'', ''{none}'')', 'TG422'),
    ('INSERT INTO tiergate.issuers (tenant, name, ref) VALUES (''acme'', ''x'', 12345)', 'TG422'),
    ('INSERT INTO tiergate.upstreams (tenant, name, fail_timeout_ms) VALUES (''acme'', ''x'', 1)', 'TG422'),
    ('INSERT INTO tiergate.endpoints (tenant, upstream, address, port) VALUES (''acme'', ''v1'', ''10.0.0.0/8'', 1)', 'TG422'),
    ('INSERT INTO tiergate.endpoints (tenant, upstream, address, port) VALUES (''acme'', ''v1'', ''169.254.169.254'', 1)', 'TG422'),
    ('INSERT INTO tiergate.endpoints (tenant, upstream, address, port) VALUES (''acme'', ''v1'', ''10.0.0.1'', 0)', 'TG422'),
    ('INSERT INTO tiergate.endpoints (tenant, upstream, address, port) VALUES (''acme'', ''v9'', ''10.0.0.1'', 1)', '23503'),
    ('INSERT INTO tiergate.routes (tenant, name, path, backends) VALUES (''acme'', ''r'', ''/r'', ''[]'')', 'TG422'),
    ('INSERT INTO tiergate.routes (tenant, name, path, backends) VALUES (''acme'', ''r'', ''/r'', ''5'')', 'TG422'),
    ('INSERT INTO tiergate.routes (tenant, name, path, backends) VALUES (''acme'', ''r'', ''/r'', ''["v1"]'')', 'TG422'),
    ('INSERT INTO tiergate.routes (tenant, name, path, backends) VALUES (''acme'', ''r'', ''/r'', ''[{"upstream": "v1", "wieght": 5}]'')', 'TG422'),
    ('INSERT INTO tiergate.routes (tenant, name, path, backends) VALUES (''acme'', ''r'', ''/r'', ''[{"upstream": "v1", "weight": 1.5}]'')', 'TG422'),
    ('INSERT INTO tiergate.routes (tenant, name, path, backends) VALUES (''acme'', ''r'', ''/r'', ''[{"upstream": "v1", "weight": 0}]'')', 'TG422'),
    ('INSERT INTO tiergate.routes (tenant, name, path) VALUES (''acme'', ''r'', ''/r'')', '23502'),
    ('INSERT INTO tiergate.routes (tenant, name, path, backends) VALUES (''acme'', ''r'', ''/r'', ''[{"upstream": "v9"}]'')', 'TG422'),
    ('INSERT INTO tiergate.routes (tenant, name, backends) VALUES (''acme'', ''r'', ''[{"upstream": "v1"}]'')', 'TG409'),
    ('UPDATE tiergate.routes SET path = ''nope''', 'TG422'),
    ('UPDATE tiergate.routes SET methods = ''{get}''', 'TG422'),
    ('UPDATE tiergate.routes SET claims = ''[{"name": "a"}]''', 'TG422'),
    ('UPDATE tiergate.routes SET headers = ''[{"name": "a"}]''', 'TG422'),
    ('UPDATE tiergate.routes SET rewrite = ''replace_path''', 'TG422'),
    ('UPDATE tiergate.routes SET retries = 6', 'TG422'),
    ('UPDATE tiergate.routes SET read_ms = 0', 'TG422'),
    ('UPDATE tiergate.upstreams SET name = ''v3'' WHERE name = ''v1''', 'TG409'),
    ('DELETE FROM tiergate.upstreams WHERE name = ''v1''', 'TG409'),
    ('DELETE FROM tiergate.tiers WHERE name = ''vcluster''', 'TG409'),
    ('UPDATE tiergate.tiers SET name = ''basic'' WHERE name = ''vcluster''', 'TG409'),
    ('UPDATE tiergate.limits SET value = maximum + 1', '23514'),
    ('INSERT INTO tiergate.gateways (name) VALUES (''Bad'')', 'TG422'),
    ('INSERT INTO tiergate.gateways (name, kind) VALUES (''g'', ''dedicated'')', '23514')) d (statement, state);

SELECT lives_ok($$ UPDATE tiergate.routes SET name = 'orders-2' WHERE name = 'orders' AND NOT EXISTS (SELECT FROM tiergate.quotas WHERE route = 'orders') $$,
                'a route may be renamed: it is no rival of itself');

-- what can meet in one request
SELECT tiergate.create_tenant('crowd');
INSERT INTO tiergate.upstreams (tenant, name) VALUES ('crowd', 'v1');
INSERT INTO tiergate.routes (tenant, name, path, backends) SELECT 'crowd', 'r' || n, '/r' || n, '[{"upstream": "v1"}]' FROM generate_series(1, 2) n;
INSERT INTO tiergate.quotas (tenant, requests, per) SELECT 'crowd', 5, make_interval(secs => n) FROM generate_series(1, 10) n;
SELECT lives_ok($$ INSERT INTO tiergate.quotas (tenant, route, requests, per) SELECT 'crowd', 'r' || r, 5, make_interval(secs => n) FROM generate_series(1, 2) r, generate_series(1, 3) n $$,
                'quotas of different routes do not meet');
SELECT lives_ok($$ INSERT INTO tiergate.quotas (tenant, consumer, requests, per) SELECT 'crowd', 'c' || c, 5, make_interval(secs => n) FROM generate_series(1, 50) c, generate_series(1, 3) n $$,
                'nor those of different consumers');
SELECT throws_ok($$ INSERT INTO tiergate.quotas (tenant, route, requests, per) VALUES ('crowd', 'r1', 5, '1 hour') $$, 'TG422', '17 are more than the limit quotas_per_request = 16 allows', 'but these do');
SELECT throws_ok($$ UPDATE tiergate.quotas SET route = 'r1' WHERE route = 'r2' AND per = '1 second' $$, '23505', NULL, 'an UPDATE to what is counted already');
SELECT throws_ok($$ UPDATE tiergate.quotas SET route = 'r1', per = '1 hour' WHERE route = 'r2' AND per = '1 second' $$, 'TG422', NULL, 'an UPDATE is held to it too');
-- nobody keeps all others from a top-level domain
SELECT throws_ok(format('INSERT INTO tiergate.hosts VALUES (%L, ''acme'')', h), 'TG422', NULL, h || ' is too much for one tenant')
  FROM unnest('{single,*.com,*.dev}'::text[]) h;
SELECT lives_ok($$ INSERT INTO tiergate.hosts VALUES ('*.acme.dev', 'acme') $$, 'what is below its own name is not');

-- site policy
UPDATE tiergate.settings SET value = 'true' WHERE name IN ('hosts.allow_single_label', 'hosts.allow_nested_claims');
UPDATE tiergate.settings SET value = '["10.0.0.0/8"]' WHERE name = 'endpoints.allow';
SELECT lives_ok($$ INSERT INTO tiergate.hosts VALUES ('single', 'acme'), ('*.internal', 'acme') $$, 'a site may allow single labels');
INSERT INTO tiergate.tenants (name) VALUES ('beta');
INSERT INTO tiergate.hosts VALUES ('*.wild.example.com', 'acme');
SELECT lives_ok($$ INSERT INTO tiergate.hosts VALUES ('x.wild.example.com', 'beta') $$, 'and names below another''s wildcard');
SELECT throws_ok($$ INSERT INTO tiergate.endpoints (tenant, upstream, address, port) VALUES ('acme', 'v1', '127.0.0.1', 80) $$, 'TG422', NULL,
                 'and forbid addresses');
SELECT lives_ok($$ INSERT INTO tiergate.endpoints (tenant, upstream, address, port) VALUES ('acme', 'v1', '10.1.2.3', 80) $$, 'other than these');

SELECT * FROM finish();
