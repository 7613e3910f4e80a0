-- SPDX-License-Identifier: BSD-2-Clause
--
-- A plan that a session made while tables were small must not scan them when they
-- have grown: what is read by sequential scans is counted, not timed.

\set QUIET 1
SELECT * FROM no_plan();

CREATE FUNCTION pg_temp.body(n integer) RETURNS jsonb LANGUAGE sql AS $$
    SELECT replace('{"name": "N", "hosts": ["N.example.com"], "issuers": [{"ref": "p"}], "consumers": [{"name": "c"}], "keys": [{"consumer": "c"}],
        "upstreams": [{"name": "v1", "endpoints": [{"address": "10.0.0.1", "port": 80}]}],
        "routes": [{"name": "r", "backends": [{"upstream": "v1"}]}], "quotas": [{"name": "q", "limit": 5, "window": "1s"}]}', 'N', 't' || n)::jsonb
$$;
CREATE FUNCTION pg_temp.scanned() RETURNS bigint LANGUAGE sql AS $$
    SELECT sum(seq_tup_read)::bigint FROM pg_stat_xact_user_tables
     WHERE schemaname = 'tiergate' AND relname IN ('tenants', 'hosts', 'issuers', 'consumers', 'api_keys', 'upstreams', 'endpoints',
                                                   'routes', 'quotas', 'changes', 'audit')
$$;

SELECT tiergate.put_object('issuer', NULL, 'p', '{"issuer": "https://p", "jwks_uri": "https://p/k"}');
SELECT tiergate.onboard(pg_temp.body(n)) FROM generate_series(1, 5) n;
ANALYZE;
-- plans for five tenants
SELECT count(*) FROM tiergate.import_tenants((SELECT jsonb_agg(pg_temp.body(n)) FROM generate_series(6, 10) n));
SELECT count(*) FROM tiergate.watch_since(0, 100);

BEGIN;
SELECT count(*) FROM tiergate.import_tenants((SELECT jsonb_agg(pg_temp.body(n)) FROM generate_series(101, 300) n));
SELECT cmp_ok(pg_temp.scanned(), '<', 100::bigint, 'import');
COMMIT;

BEGIN;
SELECT tiergate.onboard(pg_temp.body(n)) FROM generate_series(301, 320) n;
SELECT cmp_ok(pg_temp.scanned(), '<', 100::bigint, 'tenants one by one');
COMMIT;

BEGIN;
SELECT count(*) FROM tiergate.watch_since(0, 500);
SELECT cmp_ok(pg_temp.scanned(), '<', 100::bigint, 'the change feed');
COMMIT;

BEGIN;
SELECT tiergate_api.begin_request('{"peer": {"user": "root", "role": "admin"}}', 'admin', NULL, NULL, NULL, 'r');
SELECT count(*) FROM generate_series(101, 120) n, tiergate_api.put_quota(ARRAY['t' || n, 'q'], '{}', '{"limit": 6, "window": "1s"}') r;
SELECT count(*) FROM generate_series(101, 120) n, tiergate_api.get_tenant(ARRAY['t' || n], '{}', NULL) r;
SELECT count(*) FROM generate_series(101, 120) n, tiergate_api.delete_tenant(ARRAY['t' || n], '{}', NULL) r;
SELECT cmp_ok(pg_temp.scanned(), '<', 100::bigint, 'REST calls');
COMMIT;

-- without sequential scans one that cannot be avoided looks so expensive that it
-- would be compiled at each execution
SELECT is(array_agg(p.oid::regprocedure::text), NULL, 'no function turns off scans and leaves compilation on')
  FROM pg_proc p
 WHERE p.pronamespace IN ('tiergate'::regnamespace, 'tiergate_api'::regnamespace)
   AND 'enable_seqscan=off' = ANY (p.proconfig) AND NOT 'jit=off' = ANY (p.proconfig);
BEGIN;
SELECT tiergate_api.begin_request('{"peer": {"user": "root", "role": "admin"}}', 'admin', NULL, NULL, NULL, 'r');
SELECT is(current_setting('jit'), 'off', 'nor does a REST call');
COMMIT;

SELECT * FROM finish();
