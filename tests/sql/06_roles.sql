-- SPDX-License-Identifier: BSD-2-Clause
--
-- Each role can do what it is for, and nothing else.

\set QUIET 1
SELECT * FROM no_plan();

-- roles belong to the cluster, other tests may have left theirs
DO $$ BEGIN
    CREATE ROLE tap_quota; CREATE ROLE tap_admin; CREATE ROLE tap_reader; CREATE ROLE tap_daemon;
    CREATE ROLE tap_acme; CREATE ROLE tap_nobody;
EXCEPTION WHEN duplicate_object THEN NULL; END $$;
GRANT tiergate_quota_admin TO tap_quota;
GRANT tiergate_admin TO tap_admin;
GRANT tiergate_reader TO tap_reader;
GRANT tiergate_daemon TO tap_daemon;

SELECT tiergate.onboard(format('{"name": "%1$s", "hosts": ["%1$s.example.com"], "consumers": [{"name": "c"}], "keys": [{"consumer": "c"}],
    "issuers": [{"name": "own", "issuer": "https://x", "jwks_uri": "https://x/k"}],
    "upstreams": [{"name": "v1", "endpoints": [{"address": "10.0.0.1", "port": 80}]}],
    "routes": [{"name": "all", "backends": [{"upstream": "v1"}]}], "quotas": [{"name": "q", "limit": 5, "window": "1s"}]}', t)::jsonb)
  FROM unnest('{acme,beta}'::text[]) t;
SELECT tiergate.record_usage('g1', format('{"boot": "b", "counters": [{"tenant": "acme", "requests": 1}, {"tenant": "beta", "requests": 2}],
    "quotas": [{"id": %s, "used": 1}, {"id": %s, "used": 2}]}', min(id), max(id))::jsonb) FROM tiergate.quotas;
SELECT tiergate.set_tier(t, 'dedicated') FROM unnest('{acme,beta}'::text[]) t;
SELECT count(*) FROM tiergate.instances_claim('n1', 'process', 9, 20000, 20009, '127.0.0.1');
SELECT tiergate.set_plugin(t, 'buffering') FROM unnest('{acme,beta}'::text[]) t;
SELECT tiergate.instance_ready(name) FROM tiergate.instances;
DELETE FROM tiergate.gateway_events WHERE reason <> 'Claimed';
SELECT tiergate.grant_tenant_role('tap_acme', 'acme');
SELECT tiergate.create_token('t');

GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA public TO PUBLIC;
GRANT ALL ON ALL TABLES IN SCHEMA pg_temp TO PUBLIC;

-- runs a statement as a role and says how it ended; what it did is undone
CREATE FUNCTION public.as_role(role text, statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    state text;
BEGIN
    BEGIN
        EXECUTE format('SET LOCAL ROLE %I', role);
        EXECUTE statement;
        RAISE EXCEPTION USING ERRCODE = 'XX999';
    EXCEPTION WHEN OTHERS THEN
        GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE;
    END;
    RETURN CASE state WHEN 'XX999' THEN 'ok' WHEN '42501' THEN 'denied' ELSE state END;
END
$$;

CREATE FUNCTION public.count_as(role text, query text) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    n bigint;
BEGIN
    EXECUTE format('SET LOCAL ROLE %I', role);
    EXECUTE 'SELECT count(*) FROM ' || query INTO n;
    RESET ROLE;
    RETURN n;
END
$$;

-- quota administrators
SELECT is(as_role('tap_quota', s), 'ok', 'quota admin: ' || s) FROM unnest(ARRAY[
    $$ SELECT tiergate.set_quota('acme', requests => 5, per => '1 minute') $$,
    $$ SELECT tiergate.set_quota('acme', route => 'all', requests => 5, per => '1 minute') $$,
    $$ SELECT tiergate.drop_quota('acme', 'q') $$,
    $$ SELECT tiergate.grant_boost('acme', factor => 2, until => now() + '1 hour') $$,
    $$ SELECT tiergate.revoke_boost('acme') $$,
    $$ SELECT * FROM tiergate.quota_status $$,
    $$ SELECT * FROM tiergate.quotas $$]) s;
SELECT is(count_as('tap_quota', 'tiergate.quota_status'), 2::bigint, 'quota admin sees every tenant''s');
SELECT is(as_role('tap_quota', s), 'denied', 'quota admin may not: ' || s) FROM unnest(ARRAY[
    $$ UPDATE tiergate.quotas SET requests = 1 $$,
    $$ DELETE FROM tiergate.quotas $$,
    $$ UPDATE tiergate.tenants SET boost_factor = 2 $$,
    $$ SELECT tiergate.suspend('acme') $$,
    $$ SELECT tiergate.resume('acme') $$,
    $$ SELECT tiergate.create_tenant('x') $$,
    $$ SELECT tiergate.onboard('{}') $$,
    $$ SELECT tiergate.create_api_key('acme', 'x') $$,
    $$ SELECT tiergate.create_token('x') $$,
    $$ SELECT tiergate.put_object('quota', 'acme', 'q', '{}') $$,
    $$ SELECT tiergate.tenant_document('acme') $$,
    $$ SELECT * FROM tiergate.watch_list('x') $$,
    $$ SELECT tiergate_api.begin_request('{}', 'admin', NULL, NULL, NULL, NULL) $$,
    $$ SELECT tiergate_api.list_tenants('{}', '{}', NULL) $$,
    $$ SELECT display_name FROM tiergate.tenants $$,
    $$ SELECT * FROM tiergate.audit $$,
    $$ SELECT * FROM tiergate.api_keys $$,
    $$ SELECT * FROM tiergate.hosts $$,
    $$ SELECT nextval('tiergate.revision') $$]) s;

-- the manual of each is what it may call
SELECT is(count_as('tap_quota', 'tiergate.manual'), 4::bigint, 'the manual of a quota admin is these four');
SELECT is(count_as('tap_admin', 'tiergate.manual'),
          (SELECT count(*) FROM tiergate.manual WHERE function NOT IN ('grant_tenant_role', 'prune_audit')),
          'that of an admin is all but what the owner does');

-- no other role may call what it may
SELECT is((SELECT array_agg(p.oid::regprocedure::text ORDER BY p.oid::regprocedure::text COLLATE "C") FROM pg_proc p
            WHERE p.pronamespace IN ('tiergate'::regnamespace, 'tiergate_api'::regnamespace)
              AND has_function_privilege('tap_quota', p.oid, 'EXECUTE') AND p.provolatile = 'v'),
          (SELECT array_agg(f::regprocedure::text ORDER BY f::regprocedure::text COLLATE "C") FROM unnest(ARRAY[
              'tiergate.drop_quota(text,text)', 'tiergate.grant_boost(text,numeric,timestamptz)', 'tiergate.revoke_boost(text)',
              'tiergate.set_quota(text,bigint,interval,bigint,text,text,bigint,bigint,boolean,text)']) f),
          'the functions of a quota admin that change anything are these four');

-- admins
SELECT is(as_role('tap_admin', s), 'ok', 'admin: ' || s) FROM unnest(ARRAY[
    $$ SELECT tiergate.create_tenant('x', hosts => '{x.example.com}') $$,
    $$ SELECT tiergate.onboard('{"name": "x", "upstreams": [{"name": "v1", "endpoints": [{"address": "10.0.0.1", "port": 1}]}], "routes": [{"name": "r", "backends": [{"upstream": "v1"}]}], "keys": [{"consumer": "c"}], "quotas": [{"name": "q", "limit": 1, "window": "1s"}]}') $$,
    $$ SELECT tiergate.put_object('route', 'acme', 'x', '{"match": {"path": {"value": "/x"}}, "backends": [{"upstream": "v1"}]}') $$,
    $$ SELECT tiergate.suspend('acme') $$,
    $$ SELECT tiergate.delete_tenant('acme') $$,
    $$ UPDATE tiergate.quotas SET requests = 1 WHERE tenant = 'acme' $$,
    $$ UPDATE tiergate.routes SET retries = 0 $$,
    $$ DELETE FROM tiergate.consumers $$,
    $$ INSERT INTO tiergate.hosts VALUES ('y.example.com', 'acme') $$,
    $$ SELECT tiergate.create_api_key('acme', 'x') $$,
    $$ SELECT tiergate.rotate_api_key((SELECT min(id) FROM tiergate.api_keys)) $$,
    $$ SELECT tiergate.create_token('x') $$,
    $$ SELECT tiergate.revoke_token('t') $$,
    $$ SELECT tiergate.tenant_document('acme') $$,
    $$ UPDATE tiergate.settings SET value = 'true' WHERE name = 'jwks.allow_http' $$,
    $$ SELECT tiergate.set_tier('acme', 'vcluster') $$,
    $$ SELECT tiergate.create_tenant('x', tier => 'dedicated') $$,
    $$ INSERT INTO tiergate.tenants (name, tier) VALUES ('x', 'dedicated') $$,
    $$ SELECT tiergate.set_forwarding('acme', 'misdirect') $$,
    $$ SELECT tiergate.restart_gateway('acme') $$,
    $$ SELECT tiergate.set_plugin('acme', 'brotli', '{"level": 3}') $$,
    $$ UPDATE tiergate.tenant_plugins SET enabled = false $$,
    $$ SELECT tiergate.drop_plugin('acme', 'buffering') $$,
    $$ SELECT tiergate.set_tier_plugin('dedicated', 'brotli') $$,
    $$ SELECT tiergate.drop_tier_plugin('dedicated', 'gzip') $$,
    $$ SELECT tiergate.allow_plugin('x', schema => '{"type": "object", "properties": {"a": {"type": "integer", "default": 1}}}', http => 'x {{a}};') $$,
    $$ DELETE FROM tiergate.plugins WHERE name = 'njs' $$,
    $$ UPDATE tiergate.tiers SET gateway = '{"workers": 2}' WHERE name = 'dedicated' $$,
    $$ SELECT * FROM tiergate.gateway_status $$,
    $$ SELECT * FROM tiergate.gateway_log $$,
    $$ SELECT * FROM tiergate.instances $$,
    $$ SELECT * FROM tiergate.handovers $$,
    $$ SELECT * FROM tiergate.watch_list('shared-1') $$,
    $$ SELECT * FROM tiergate.audit $$,
    $$ SELECT * FROM tiergate.usage_summary $$]) s;
SELECT is(as_role('tap_admin', $$ UPDATE tiergate.settings SET value = '"1 hour"' WHERE name = 'audit.retention' $$), 'TG403',
          'admin may not shorten the audit');
SELECT is(as_role('tap_admin', s), 'denied', 'admin may not: ' || s) FROM unnest(ARRAY[
    $$ UPDATE tiergate.audit SET actor = 'x' $$,
    $$ DELETE FROM tiergate.audit $$,
    $$ INSERT INTO tiergate.audit (db_role, action, object) VALUES ('x', 'insert', 'x') $$,
    $$ CALL tiergate.prune_audit(now()) $$,
    $$ SELECT tiergate.drop_old_audit() $$,
    $$ INSERT INTO tiergate.changes (kind, object_id, name) VALUES ('tenant', 1, 'x') $$,
    $$ UPDATE tiergate.changes SET revision = 1 $$,
    $$ SELECT nextval('tiergate.revision') $$,
    $$ SELECT token_sha256 FROM tiergate.api_tokens $$,
    $$ SELECT * FROM tiergate.idempotency_keys $$,
    $$ INSERT INTO tiergate.refusals VALUES ('x', 400, 'x', '') $$,
    $$ TRUNCATE tiergate.hosts $$,
    $$ UPDATE tiergate.instances SET desired = 'absent' $$,
    $$ DELETE FROM tiergate.instances $$,
    $$ UPDATE tiergate.handovers SET words = '[]' $$,
    $$ INSERT INTO tiergate.gateway_events (gateway, tenant, phase, reason, message) VALUES ('x', 'x', 'x', 'x', 'x') $$,
    $$ SELECT tiergate.instance_token('dedicated-1') $$,
    $$ SELECT * FROM tiergate.instances_claim('n', 'd', 1, 1, 2, '::1') $$,
    $$ SELECT tiergate.place(1, 'shared') $$,
    $$ SELECT tiergate.handover_report('x', '{}') $$,
    $$ SELECT * FROM tiergate.handovers_advance() $$,
    $$ ALTER TABLE tiergate.hosts DISABLE TRIGGER ALL $$,
    $$ SELECT tiergate_api.list_tenants('{}', '{}', NULL) $$]) s;

-- readers
SELECT is(as_role('tap_reader', s), 'ok', 'reader: ' || s) FROM unnest(ARRAY[
    $$ SELECT * FROM tiergate.tenants $$, $$ SELECT * FROM tiergate.routes $$, $$ SELECT * FROM tiergate.quota_status $$,
    $$ SELECT * FROM tiergate.usage_by_hour $$, $$ SELECT * FROM tiergate.gateways $$, $$ SELECT * FROM tiergate.audit $$,
    $$ SELECT * FROM tiergate.gateway_status $$, $$ SELECT * FROM tiergate.gateway_log $$, $$ SELECT * FROM tiergate.instances $$,
    $$ SELECT * FROM tiergate.plugins $$, $$ SELECT * FROM tiergate.tenant_plugins $$, $$ SELECT * FROM tiergate.tier_plugins $$,
    $$ SELECT * FROM tiergate.handovers $$,
    $$ SELECT id, tenant, consumer FROM tiergate.api_keys $$]) s;
SELECT is(as_role('tap_reader', s), 'denied', 'reader may not: ' || s) FROM unnest(ARRAY[
    $$ SELECT sha256 FROM tiergate.api_keys $$, $$ SELECT token_sha256 FROM tiergate.api_tokens $$,
    $$ UPDATE tiergate.tenants SET state = 'active' $$, $$ DELETE FROM tiergate.hosts $$,
    $$ INSERT INTO tiergate.hosts VALUES ('y.example.com', 'acme') $$,
    $$ SELECT tiergate.set_quota('acme', requests => 1) $$, $$ SELECT tiergate.suspend('acme') $$]) s;

-- tenantd
SELECT is(as_role('tap_daemon', s), 'ok', 'daemon: ' || s) FROM unnest(ARRAY[
    $$ SELECT tiergate_api.list_tenants('{}', '{}', NULL) $$, $$ SELECT * FROM tiergate.registry_state() $$,
    $$ SELECT * FROM tiergate.watch_list('x') $$, $$ SELECT * FROM tiergate.watch_since(0, 10) $$,
    $$ SELECT tiergate.housekeeping() $$, $$ SELECT * FROM tiergate.due_jwks() $$,
    $$ SELECT * FROM tiergate.import_tenants('[{"name": "x"}]') $$,
    $$ SELECT (r).* FROM tiergate_api.create_tenant('{}', '{}', '{"name": "x"}') r $$,
    $$ SELECT * FROM tiergate.instances_claim('n', 'd', 1, 1, 2, '::1') $$, $$ SELECT * FROM tiergate.instances_of('n1') $$,
    $$ SELECT tiergate.instance_observed('x', 'ready', 1, '[]', 1, 0, NULL, 0, 'a', 'b') $$, $$ SELECT tiergate.instance_ready('x') $$,
    $$ SELECT tiergate.instance_port('x', 1, 2) $$, $$ SELECT tiergate.instance_token('x') $$, $$ SELECT tiergate.instance_removed('x') $$,
    $$ SELECT * FROM tiergate.handovers_advance() $$, $$ SELECT * FROM tiergate.watch_view('x') $$, $$ SELECT * FROM tiergate.watch_read(0, 10) $$,
    $$ SELECT tiergate_api.list_plugins('{}', '{}', NULL) $$, $$ SELECT tiergate_api.get_tenant_gateway('{acme}', '{}', NULL) $$,
    $$ SELECT tiergate_api.put_tenant_plugin('{acme,gzip}', '{}', NULL) $$,
    $$ SELECT tiergate.gateway_ack('x', 'b', 1, '{"state": "live"}') $$, $$ LISTEN tiergate_changes $$, $$ LISTEN tiergate_instances $$]) s;
SELECT is(as_role('tap_daemon', s), 'denied', 'daemon may not: ' || s) FROM unnest(ARRAY[
    $$ SELECT * FROM tiergate.tenants $$, $$ SELECT * FROM tiergate.api_keys $$, $$ DELETE FROM tiergate.tenants $$,
    $$ SELECT * FROM tiergate.instances $$, $$ SELECT tiergate.set_tier('acme', 'vcluster') $$, $$ SELECT tiergate.set_plugin('acme', 'gzip') $$,
    $$ SELECT tiergate.place(1, 'shared') $$, $$ DELETE FROM tiergate.plugins $$,
    $$ SELECT tiergate.onboard('{"name": "x"}') $$, $$ UPDATE tiergate.changes SET revision = 1 $$]) s;

-- a tenant's role reads what is its tenant's
SELECT is(count_as('tap_acme', t), 1::bigint, 'tenant''s role sees its own: ' || t) FROM unnest(ARRAY[
    'tiergate.tenants', 'tiergate.hosts', 'tiergate.issuers', 'tiergate.consumers', '(SELECT id FROM tiergate.api_keys) k',
    'tiergate.upstreams', 'tiergate.endpoints', 'tiergate.routes', 'tiergate.quotas', 'tiergate.usage',
    'tiergate.quota_usage', 'tiergate.quota_status', 'tiergate.usage_summary', 'tiergate.usage_by_hour',
    'tiergate.usage_by_minute', 'tiergate.tenant_roles', 'tiergate.tenant_plugins', 'tiergate.instances', 'tiergate.gateway_log']) t;
SELECT is(count_as('tap_acme', t || ' WHERE tenant = ''beta'''), 0::bigint, 'and nothing of another: ' || t) FROM unnest(ARRAY[
    'tiergate.hosts', 'tiergate.issuers', 'tiergate.consumers', 'tiergate.upstreams', 'tiergate.endpoints', 'tiergate.routes',
    'tiergate.quotas', 'tiergate.usage', 'tiergate.audit', 'tiergate.quota_status', 'tiergate.tenant_plugins', 'tiergate.instances',
    'tiergate.gateway_events', '(SELECT tenant FROM tiergate.handovers) h']) t;
SELECT is(as_role('tap_acme', s), 'ok', 'tenant''s role may: ' || s) FROM unnest(ARRAY[
    $$ SELECT * FROM tiergate.plugins $$, $$ SELECT * FROM tiergate.plugin_set('acme', 'dedicated') $$]) s;
SELECT cmp_ok(count_as('tap_acme', 'tiergate.audit'), '>', 5::bigint, 'it sees its audit');
SELECT is(as_role('tap_acme', s), 'denied', 'tenant''s role may not: ' || s) FROM unnest(ARRAY[
    $$ SELECT sha256 FROM tiergate.api_keys $$, $$ UPDATE tiergate.quotas SET requests = 1 $$, $$ DELETE FROM tiergate.hosts $$,
    $$ INSERT INTO tiergate.hosts VALUES ('z.example.com', 'acme') $$, $$ SELECT * FROM tiergate.api_tokens $$,
    $$ SELECT * FROM tiergate.settings $$, $$ SELECT * FROM tiergate.changes $$, $$ SELECT revision FROM tiergate.gateways $$,
    $$ INSERT INTO tiergate.tenant_roles VALUES ('tap_acme', 'beta') $$,
    $$ SELECT words FROM tiergate.handovers $$, $$ UPDATE tiergate.tenant_plugins SET enabled = false $$, $$ UPDATE tiergate.instances SET desired = 'absent' $$,
    $$ SELECT tiergate.set_plugin('acme', 'brotli') $$, $$ SELECT tiergate.set_tier('acme', 'vcluster') $$, $$ SELECT tiergate.restart_gateway('acme') $$,
    $$ SELECT tiergate.tenant_document('beta') $$, $$ SELECT * FROM tiergate.watch_list('x') $$,
    $$ SELECT tiergate.grant_tenant_role('tap_acme', 'beta') $$]) s;
SELECT is(as_role('tap_acme', 'SELECT * FROM tiergate.usage_' || to_char(now() AT TIME ZONE 'UTC', 'YYYYMMDD')), 'denied', 'nor go round by a partition');

-- everybody else
SELECT is(as_role('tap_nobody', s), 'denied', 'others may not: ' || s) FROM unnest(ARRAY[
    $$ SELECT * FROM tiergate.tenants $$, $$ SELECT tiergate.set_quota('acme', requests => 1) $$,
    $$ SELECT tiergate.registry_state() $$, $$ SELECT * FROM tiergate.quota_status $$]) s;

DROP OWNED BY tap_quota, tap_admin, tap_reader, tap_daemon, tap_acme, tap_nobody;
DROP ROLE tap_quota, tap_admin, tap_reader, tap_daemon, tap_acme, tap_nobody;

SELECT * FROM finish();
