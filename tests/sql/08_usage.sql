-- SPDX-License-Identifier: BSD-2-Clause
--
-- Usage reconciles exactly whatever happens to the reports; quota_status carries
-- them forward; retention; key sets.

\set QUIET 1
SELECT * FROM no_plan();

SELECT tiergate.onboard('{"name": "acme", "quotas": [{"name": "rate", "limit": 100, "window": "10s"}, {"name": "daily", "limit": 1000, "window": "day"},
    {"name": "inflight", "metric": "concurrency", "limit": 10}, {"name": "each", "scope": "consumer", "limit": 50, "window": "60s"}]}');

CREATE FUNCTION pg_temp.report(gateway text, boot text, requests bigint, at timestamptz DEFAULT now(), route text DEFAULT 'orders')
RETURNS void LANGUAGE sql AS $$
    SELECT tiergate.record_usage(gateway, jsonb_build_object('boot', boot, 'time', floor(extract(epoch FROM at) * 1000),
        'counters', jsonb_build_array(jsonb_build_object('tenant', 'acme', 'route', route, 'requests', requests,
            'status', jsonb_build_array(0, requests, 0, 0, 0), 'denied', requests, 'throttled', requests * 2, 'bytes_in', requests * 10,
            'bytes_out', requests * 100, 'latency_us', requests * 1000, 'latency', jsonb_build_array(0, requests, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)))))
$$;
CREATE FUNCTION pg_temp.seen() RETURNS bigint LANGUAGE sql AS $$ SELECT coalesce(sum(requests), 0)::bigint FROM tiergate.usage $$;

SELECT revision AS before FROM tiergate.registry_state() \gset

SELECT pg_temp.report('g1', 'a', 10);
SELECT is(pg_temp.seen(), 10::bigint, 'a report counts');
SELECT pg_temp.report('g1', 'a', 10);
SELECT is(pg_temp.seen(), 10::bigint, 'twice it counts once');
SELECT pg_temp.report('g1', 'a', 35);
SELECT is(pg_temp.seen(), 35::bigint, 'a lost one is made up for by the next');
SELECT pg_temp.report('g1', 'a', 20);
SELECT is(pg_temp.seen(), 35::bigint, 'one that was overtaken takes nothing away');
SELECT pg_temp.report('g1', 'a', 36);
SELECT is(pg_temp.seen(), 36::bigint, 'nor does it count again');
SELECT pg_temp.report('g1', 'b', 5);
SELECT is(pg_temp.seen(), 41::bigint, 'a new life of the shared memory starts from nothing');
SELECT pg_temp.report('g1', 'a', 36);
SELECT is(pg_temp.seen(), 41::bigint, 'a late report of the old one counts nothing');
SELECT pg_temp.report('g2', 'a', 4);
SELECT is(pg_temp.seen(), 45::bigint, 'another gateway counts for itself');
SELECT pg_temp.report('g1', 'b', 50, now() - interval '30 minutes');
SELECT cmp_ok((SELECT count(DISTINCT minute) FROM tiergate.usage), '>=', 2::bigint, 'the gateway''s clock says when');
SELECT pg_temp.report('g1', 'b', 60, now() - interval '3 days');
SELECT is((SELECT min(minute) FROM tiergate.usage) > now() - interval '1 hour', true, 'if it is near ours');
SELECT pg_temp.report('g1', 'b', 70, now() + interval '3 days');
SELECT is((SELECT max(minute) FROM tiergate.usage) <= now(), true, 'on either side');
SELECT is(row(sum(status_2xx), sum(denied), sum(throttled), sum(bytes_in), sum(bytes_out), sum(latency_us), tiergate.total(latency))::text,
          '(110,110,220,1100,11000,110000,"{0,110,0,0,0,0,0,0,0,0,0,0}")', 'every counter is merged') FROM tiergate.usage;
SELECT is((SELECT revision FROM tiergate.registry_state()), :before::bigint, 'usage makes no revision');

SELECT throws_ok($$ SELECT tiergate.record_usage('g1', '{"counters": []}') $$, 'TG422', NULL, 'a report without boot');
SELECT throws_ok($$ SELECT tiergate.record_usage('g1', '{"boot": "b", "counters": 5}') $$, 'TG422', NULL, 'of no array');
SELECT throws_ok($$ SELECT tiergate.record_usage('g1', '{"boot": "b", "counters": [{"tenant": "acme", "requests": "x"}]}') $$, 'TG422', NULL, 'of no number');
SELECT throws_ok($$ SELECT tiergate.record_usage('g1', '{"boot": "b", "counters": [{"requests": 1}]}') $$, 'TG422', NULL, 'of no tenant');
SELECT lives_ok($$ SELECT tiergate.record_usage('g1', '{"boot": "b", "quotas": [{"id": 99999, "used": 1}]}') $$, 'of a quota that is gone');

-- views
SELECT results_eq($$ SELECT tenant COLLATE "default", route COLLATE "default", requests, ok, throttled, mean_ms, p99_ms FROM tiergate.usage_summary $$,
                  $$ VALUES ('acme', 'orders', 110::bigint, 110::bigint, 220::bigint, 1.0, 2.5) $$, 'usage_summary');
SELECT is((SELECT sum(requests) FROM tiergate.usage_by_hour), 110::numeric, 'usage_by_hour');
SELECT is((SELECT sum(requests) FROM tiergate.usage_by_minute), 110::numeric, 'usage_by_minute');
SELECT is(tiergate.latency_quantile('{50,40,5,4,0,0,0,0,0,0,0,1}', q), e, 'quantile ' || q)
  FROM (VALUES (0.5, 1), (0.9, 2.5), (0.95, 5), (0.99, 10), (1, 'Infinity'::numeric)) v (q, e);
SELECT is(tiergate.latency_quantile('{0,0,0,0,0,0,0,0,0,0,0,0}', 0.5), NULL, 'of nothing');

-- quota status
CREATE FUNCTION pg_temp.fill(quota text, used bigint, ago interval, gateway text DEFAULT 'g1', key text DEFAULT '')
RETURNS void LANGUAGE sql AS $$
    SELECT tiergate.record_usage(gateway, jsonb_build_object('boot', 'z', 'time', floor(extract(epoch FROM clock_timestamp() - ago) * 1000),
        'quotas', jsonb_build_array(jsonb_build_object('id', (SELECT id FROM tiergate.quotas WHERE name = quota), 'key', key, 'used', used, 'throttled', 3))))
$$;
CREATE FUNCTION pg_temp.used(quota text) RETURNS bigint LANGUAGE sql AS $$ SELECT sum(used)::bigint FROM tiergate.quota_status s WHERE s.quota = used.quota $$;

SELECT is(row(used, remaining, throttled, reported_at)::text, '(0,100,0,)', 'a quota that no gateway has reported is empty') FROM tiergate.quota_status WHERE quota = 'rate';
SELECT pg_temp.fill('rate', 80, '0 seconds');
SELECT cmp_ok(pg_temp.used('rate'), '>=', 50::bigint, 'reported');
SELECT pg_temp.fill('rate', 80, '4 seconds', 'g2');
SELECT cmp_ok(pg_temp.used('rate'), '>=', 85::bigint, 'gateways add up, and what was used 4 s ago has partly come back');
SELECT cmp_ok(pg_temp.used('rate'), '<=', 122::bigint, 'but not more');
SELECT is(remaining, 0::bigint, 'never less than nothing remains') FROM tiergate.quota_status WHERE quota = 'rate';
SELECT pg_temp.fill('daily', 500, '0 seconds');
SELECT is(pg_temp.used('daily'), 500::bigint, 'a calendar count stays');
UPDATE tiergate.quota_usage SET at = at - interval '1 day' WHERE quota_id = (SELECT id FROM tiergate.quotas WHERE name = 'daily');
SELECT is(pg_temp.used('daily'), 0::bigint, 'until the day is over');
SELECT pg_temp.fill('inflight', 7, '0 seconds');
SELECT is(pg_temp.used('inflight'), 0::bigint, 'requests in flight of a gateway that is not there are none');
SELECT tiergate.gateway_ack('g1', 'z', 1, '{"state": "live"}');
SELECT is(pg_temp.used('inflight'), 7::bigint, 'of one that is, they count');
SELECT pg_temp.fill('each', 10, '0 seconds', 'g1', k) FROM unnest('{mobile,web}'::text[]) k;
SELECT is((SELECT array_agg(consumer ORDER BY consumer) FROM tiergate.quota_status WHERE quota = 'each'), '{mobile,web}', 'each consumer has a row');
SELECT pg_temp.fill('daily', 9, '1 hour');
SELECT pg_temp.fill('daily', 8, '2 hours');
SELECT is((SELECT used FROM tiergate.quota_usage WHERE quota_id = (SELECT id FROM tiergate.quotas WHERE name = 'daily')), 9::bigint, 'an older report does not replace a newer');

-- retention
SELECT tiergate.ensure_usage_partition('2020-01-01');
SELECT isnt(to_regclass('tiergate.usage_20200101'), NULL, 'an old partition');
SELECT tiergate.housekeeping();
SELECT is(to_regclass('tiergate.usage_20200101'), NULL, 'is dropped');
SELECT is((SELECT count(*) FROM generate_series(0, 2) n WHERE to_regclass('tiergate.usage_' || to_char((now() AT TIME ZONE 'UTC')::date + n, 'YYYYMMDD')) IS NOT NULL), 3::bigint,
          'today''s and the next two are there');
SELECT is(pg_temp.seen(), 110::bigint, 'the present stays');
DELETE FROM tiergate.quotas WHERE name = 'each';
SELECT tiergate.housekeeping();
SELECT is((SELECT count(*) FROM tiergate.quota_usage u WHERE NOT EXISTS (SELECT FROM tiergate.quotas q WHERE q.id = u.quota_id)), 0::bigint, 'the fill of a deleted quota goes');

-- the audit is kept until its owner says otherwise
DELETE FROM tiergate.api_keys;
SELECT tiergate.create_api_key('acme', 'old');
ALTER TABLE tiergate.audit DISABLE TRIGGER audit_keep;
UPDATE tiergate.audit SET at = now() - interval '3 days' WHERE object = 'api_keys';
ALTER TABLE tiergate.audit ENABLE TRIGGER audit_keep;
SELECT tiergate.housekeeping();
SELECT cmp_ok((SELECT count(*) FROM tiergate.audit WHERE object = 'api_keys'), '>', 0::bigint, 'old audit stays by default');
UPDATE tiergate.settings SET value = '"2 days"' WHERE name = 'audit.retention';
SELECT tiergate.housekeeping();
SELECT is((SELECT count(*) FROM tiergate.audit WHERE object = 'api_keys'), 0::bigint, 'and goes with audit.retention');
SELECT cmp_ok((SELECT count(*) FROM tiergate.audit), '>', 0::bigint, 'the rest stays');
SELECT throws_ok('DELETE FROM tiergate.audit', 'TG403', NULL, 'and is kept as before');

-- key sets
SELECT tiergate.put_object('issuer', NULL, 'p', '{"issuer": "https://p", "jwks_uri": "https://p/keys"}');
SELECT tiergate.put_object('issuer', 'acme', 'own', '{"issuer": "https://o", "jwks_uri": "https://o/keys"}');
SELECT tiergate.put_object('issuer', 'acme', 'static', '{"issuer": "https://s", "jwks": {"keys": [{"kty": "oct", "k_sealed": "v1.0123456789abcdef"}]}}');
SELECT results_eq($$ SELECT name COLLATE "default", tenant COLLATE "default" FROM tiergate.due_jwks() ORDER BY name $$, $$ VALUES ('own', 'acme'), ('p', NULL) $$, 'new issuers are due');
SELECT is((SELECT count(*) FROM tiergate.due_jwks()), 0::bigint, 'for one caller only');
SELECT s.issuer_id AS p, s.attempt FROM tiergate.jwks_state s JOIN tiergate.issuers i ON i.id = s.issuer_id WHERE i.name = 'p' \gset
SELECT is(tiergate.store_jwks(:p, :attempt, '{"keys": [{"kty": "EC", "crv": "P-256", "kid": "1", "use": "sig", "extra": 5,
    "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4", "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"},
    {"kty": "oct", "k": "c2VjcmV0"}, {"kty": "RSA", "use": "enc", "n": "x", "e": "AQAB"}, 5]}'), true, 'a key set is stored');
SELECT is((SELECT keys FROM tiergate.issuers WHERE id = :p), '[{"kty": "EC", "crv": "P-256", "kid": "1", "use": "sig",
    "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4", "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"}]', 'what can verify tokens, of it');
SELECT revision AS before FROM tiergate.registry_state() \gset
SELECT is(tiergate.store_jwks(:p, :attempt, '{"keys": [{"y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM", "kty": "EC", "crv": "P-256", "kid": "1", "use": "sig",
    "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4"}]}'), false, 'the same set');
SELECT is((SELECT revision FROM tiergate.registry_state()), :before::bigint, 'makes no revision');
SELECT is(tiergate.store_jwks(:p, :attempt, '{"keys": []}'), false, 'an empty set');
SELECT isnt((SELECT keys FROM tiergate.issuers WHERE id = :p), '[]', 'leaves the last good one');
SELECT is((SELECT failures FROM tiergate.jwks_state WHERE issuer_id = :p), 1, 'and counts as failure');
SELECT tiergate.jwks_failed(:p, :attempt, 'timed out');
SELECT is((SELECT row(failures, error)::text FROM tiergate.jwks_state WHERE issuer_id = :p), '(2,"timed out")', 'as others do');
SELECT tiergate.put_object('issuer', NULL, 'p', '{"issuer": "https://p", "jwks_uri": "https://p/keys", "leeway": 5}');
SELECT isnt((SELECT keys FROM tiergate.issuers WHERE id = :p), '[]', 'PUT keeps what was fetched from the same place');
SELECT tiergate.put_object('issuer', NULL, 'p', '{"issuer": "https://p", "jwks_uri": "https://p/other"}');
SELECT is((SELECT keys FROM tiergate.issuers WHERE id = :p), '[]', 'but not from another');
SELECT is(tiergate.store_jwks(:p, :attempt, '{"keys": [{"kty": "EC", "crv": "P-256", "kid": "1", "use": "sig",
    "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4", "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"}]}'), false, 'a set that was under way from there');
SELECT is((SELECT keys FROM tiergate.issuers WHERE id = :p), '[]', 'comes too late');
SELECT attempt AS other FROM tiergate.due_jwks() \gset
SELECT isnt(:other, :attempt, 'the new place is due at once');
SELECT tiergate.jwks_failed(:p, :attempt, 'late'), tiergate.jwks_failed(:p, :other, 'timed out');
SELECT is((SELECT row(failures, error)::text FROM tiergate.jwks_state WHERE issuer_id = :p), '(1,"timed out")', 'and only it is listened to');
SELECT is((SELECT count(*) FROM tiergate.due_jwks()), 0::bigint, 'the next attempt comes later');
UPDATE tiergate.jwks_state SET next_at = now() WHERE issuer_id = :p;
SELECT attempt AS other FROM tiergate.due_jwks() \gset
UPDATE tiergate.jwks_state SET next_at = now() WHERE issuer_id = :p;
SELECT tiergate.jwks_failed(:p, :other, 'timed out');
SELECT is((SELECT count(*) FROM tiergate.due_jwks()), 1::bigint, 'what became due while it was fetched stays so');

SELECT * FROM finish();
