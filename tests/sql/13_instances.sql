-- SPDX-License-Identifier: BSD-2-Clause
--
-- Gateways that tenantd runs: made with their tenants, taken, reported about,
-- removed.  What takes several sessions is in test_dedicated.py.

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
CREATE FUNCTION pg_temp.claim(most integer DEFAULT 10, node text DEFAULT 'n1', low integer DEFAULT 20000, high integer DEFAULT 20999)
RETURNS SETOF tiergate.instance_work LANGUAGE sql AS $$
    SELECT * FROM tiergate.instances_claim(node, 'process', most, low, high, '127.0.0.1')
$$;
CREATE FUNCTION pg_temp.name(tenant text) RETURNS text LANGUAGE sql AS $$
    SELECT 'dedicated-' || id FROM tiergate.tenants WHERE name = tenant
$$;
CREATE FUNCTION pg_temp.observed(tenant text, phase text, reason text, conditions jsonb DEFAULT NULL, pid integer DEFAULT NULL)
RETURNS boolean LANGUAGE sql AS $$
    SELECT tiergate.instance_observed(pg_temp.name(tenant), phase, NULL, conditions, pid, NULL, NULL, NULL, reason, 'because')
$$;
CREATE FUNCTION pg_temp.instance(tenant text) RETURNS tiergate.instances LANGUAGE sql AS $$
    SELECT i FROM tiergate.instances i WHERE i.name = pg_temp.name($1)
$$;

-- made by whoever makes the tenant, and by nobody else
SELECT tiergate.create_tenant('small');
SELECT is((SELECT count(*) FROM tiergate.instances), 0::bigint, 'a tenant of tier vcluster has no instance');
SELECT tiergate.create_tenant('a', tier => 'dedicated');
INSERT INTO tiergate.tenants (name, tier) VALUES ('b', 'dedicated');
SELECT count(*) FROM tiergate.import_tenants('[{"name": "c", "tier": "dedicated"}, {"name": "d", "tier": "dedicated"}]');
SELECT is(array_agg(tenant ORDER BY tenant)::text, '{a,b,c,d}', 'those of tier dedicated have') FROM tiergate.instances;
SELECT results_eq($$ SELECT name, kind, tenant FROM tiergate.gateways ORDER BY tenant $$,
                  $$ SELECT ('dedicated-' || id) COLLATE "C", 'dedicated', name FROM tiergate.tenants WHERE tier = 'dedicated' ORDER BY name $$, 'and a gateway');
SELECT results_eq($$ SELECT desired, generation, observed_generation, phase, reason, node, port FROM tiergate.instances WHERE tenant = 'a' $$,
                  $$ VALUES ('running', 1::bigint, 0::bigint, 'pending', 'Unclaimed', NULL::text, NULL::integer) $$, 'nobody runs it yet');
SELECT is((SELECT row(action, object, tenant)::text FROM tiergate.audit WHERE object = 'gateways' AND tenant = 'a'), '(insert,gateways,a)', 'it is audited');

-- names
SELECT is(pg_temp.outcome($$ INSERT INTO tiergate.gateways (name) VALUES ('dedicated-1000') $$), 'TG422 reserved-name /name', 'its name is nobody else''s');
SELECT is(pg_temp.outcome($$ INSERT INTO tiergate.gateways (name) VALUES ('dedicated-x') $$), 'TG422 reserved-name /name', 'nor one like it');
SELECT is(pg_temp.outcome($$ SELECT tiergate.gateway_ack('dedicated-1000', 'b', 1, '{"state": "live"}') $$), 'TG422 reserved-name /name', 'also when it only acknowledges');
SELECT is(pg_temp.outcome($$ SELECT tiergate.gateway_ack('dedicated', 'b', 1, '{"state": "live"}') $$), 'ok', 'another name is free');
SELECT is(pg_temp.outcome(format('SELECT tiergate.gateway_ack(%L, ''b'', 1, ''{"state": "live"}'')', pg_temp.name('a'))), 'ok', 'it may acknowledge itself');
SELECT is((SELECT kind FROM tiergate.gateways WHERE name = pg_temp.name('a')), 'dedicated', 'and stays what it is');
SELECT is(pg_temp.outcome(s), 'TG409 gateway-managed', s) FROM (VALUES
    ('DELETE FROM tiergate.gateways WHERE tenant = ''a'''), ('UPDATE tiergate.gateways SET kind = ''shared'', tenant = NULL WHERE tenant = ''a'''),
    ('UPDATE tiergate.gateways SET tenant = ''b'' WHERE tenant = ''a'''), ('UPDATE tiergate.gateways SET name = ''x'' WHERE tenant = ''a''')) x (s);
SELECT is(pg_temp.outcome($$ INSERT INTO tiergate.gateways (name, kind, tenant) VALUES ('own', 'dedicated', 'nobody') $$), 'TG422 unknown-tenant /tenant',
          'a gateway that others run needs a tenant, too');
SELECT is(pg_temp.outcome($$ INSERT INTO tiergate.gateways (name, kind, tenant) VALUES ('own', 'dedicated', 'small') $$), 'ok', 'and may be any of the tenant''s');

-- taken
SELECT is((SELECT array_agg(tenant ORDER BY tenant)::text FROM pg_temp.claim(2)), '{a,b}', 'the oldest are taken, at most so many');
SELECT is((SELECT array_agg(tenant ORDER BY tenant)::text FROM pg_temp.claim(10, 'n2')), '{c,d}', 'by another node the others');
SELECT is((SELECT count(*) FROM pg_temp.claim()), 0::bigint, 'none twice');
SELECT is((SELECT array_agg(tenant ORDER BY name)::text FROM tiergate.instances_of('n1')), '{a,b}', 'each node knows its own');
SELECT is((SELECT count(DISTINCT port) FROM tiergate.instances WHERE node = 'n1' AND port BETWEEN 20000 AND 20999), 2::bigint, 'each has a port of its own');
SELECT results_eq($$ SELECT w.name, w.tenant, w.desired, w.generation, w.phase, w.attempts, w.retry_at, w.address, w.placement, w.node FROM tiergate.instances_of('n1') w WHERE w.tenant = 'a' $$,
    $$ SELECT pg_temp.name('a'), 'a', 'running', 1::bigint, 'pending', 0, NULL::bigint, '127.0.0.1', 'dedicated', 'n1' $$, 'what its driver gets to know');
SELECT is(w.spec - 'plugins', '{"workers": 1, "connections": 1024, "zone": "8m", "restart": 0, "limits": {"memory": null, "pids": 64, "nofile": 4096, "cpu": null}}', 'how large it is')
  FROM tiergate.instances_of('n1') w WHERE w.tenant = 'a';
SELECT is((w.spec #> '{plugins,0}') - '{schema,snippets}'::text[], '{"name": "gzip", "modules": [], "parameters": {}}', 'its plugins')
  FROM tiergate.instances_of('n1') w WHERE w.tenant = 'a';
SELECT is(pg_temp.outcome($$ SELECT * FROM tiergate.instances_claim('n1', 'process', 1, 20000, 20999, 'localhost') $$), 'TG422 invalid-report', 'the address is an address');
SELECT is(pg_temp.outcome($$ SELECT * FROM tiergate.instances_claim(NULL, 'process', 1, 20000, 20999, '::1') $$), 'TG422 invalid-report', 'and the node has a name');

-- ports run out
SELECT tiergate.create_tenant(n, tier => 'dedicated') FROM unnest('{e,f}'::text[]) n;
SELECT is((SELECT array_agg(tenant)::text FROM pg_temp.claim(10, 'n3', 300, 300)), '{e}', 'one port, one instance');
SELECT is((SELECT array_agg(tenant)::text FROM pg_temp.claim(10, 'n3', 300, 300)), NULL, 'the next has to wait');
SELECT is((pg_temp.instance('f')).reason, 'NoPort', 'and says so');
SELECT is((SELECT count(*) FROM tiergate.gateway_events WHERE gateway = pg_temp.name('f') AND reason = 'NoPort'), 1::bigint, 'once');
SELECT is(tiergate.instance_port(pg_temp.name('e'), 300, 300), NULL, 'there is no other port');
SELECT is(tiergate.instance_port(pg_temp.name('e'), 301, 301), 301, 'but for a larger range');
SELECT is((pg_temp.instance('e')).port, 301, 'which it has then');
SELECT is(tiergate.instance_port('nobody', 1, 2), NULL, 'an unknown instance has none');
SELECT is((SELECT array_agg(tenant)::text FROM pg_temp.claim(10, 'n3', 300, 300)), '{f}', 'what is given back is free');
SELECT is(pg_temp.outcome($$ UPDATE tiergate.instances SET port = 300 WHERE node = 'n3' $$), '23505', 'no two of a node have the same');

-- a tenant whose own gateway decides has changed where it is reached
SELECT is(tiergate.tenant_document(t)::jsonb->'revision', to_jsonb(tiergate.revision_of('tenant', t.id)), 'a document knows its revision') FROM tiergate.tenants t WHERE name = 'e';
SELECT revision AS before FROM tiergate.registry_state() \gset
SELECT tiergate.instance_port(pg_temp.name('e'), 302, 302);
SELECT is(tiergate.revision_of('tenant', id), :before::bigint + 1, 'so it has a new revision') FROM tiergate.tenants WHERE name = 'e';

-- reported about
SELECT ok(pg_temp.observed('a', 'starting', 'Starting', '[{"type": "ConfigAccepted", "status": "True"}]', 4711), 'a report');
SELECT results_eq($$ SELECT phase, reason, message, pid, started_at IS NOT NULL FROM tiergate.instances WHERE tenant = 'a' $$,
                  $$ VALUES ('starting', 'Starting', 'because', 4711, true) $$, 'is kept');
SELECT is((SELECT array_agg(phase || ' ' || reason ORDER BY id)::text FROM tiergate.gateway_events WHERE gateway = pg_temp.name('a')),
          '{"pending Wanted","pending Claimed","starting Starting"}', 'as an event');
SELECT since AS since FROM tiergate.instances WHERE tenant = 'a' \gset
SELECT pg_temp.observed('a', 'starting', 'Starting', NULL, 4711);
SELECT is((SELECT count(*) FROM tiergate.gateway_events WHERE gateway = pg_temp.name('a')), 3::bigint, 'the same again is none');
SELECT pg_temp.observed('a', 'starting', 'Waiting', NULL, 4711);
SELECT is((SELECT count(*) FROM tiergate.gateway_events WHERE gateway = pg_temp.name('a')), 4::bigint, 'another reason is');
SELECT is((pg_temp.instance('a')).since, :'since', 'and the phase is as old as it was');
SELECT is(tiergate.instance_observed(pg_temp.name('a'), 'failed', 1, NULL, NULL, 3, 1893456000500, 7, 'Crashed', 'signal 9'), true, 'a failure');
SELECT results_eq($$ SELECT phase, pid, started_at, attempts, retry_at AT TIME ZONE 'UTC', restarts, observed_generation FROM tiergate.instances WHERE tenant = 'a' $$,
                  $$ VALUES ('failed', NULL::integer, NULL::timestamptz, 3, timestamp '2030-01-01 00:00:00.5', 7, 1::bigint) $$, 'says when it is tried again');
SELECT is((SELECT retry_at FROM tiergate.instances_of('n1') WHERE tenant = 'a'), 1893456000500, 'in milliseconds');
SELECT matches(tiergate.instance_next(pg_temp.instance('a')), '^attempt 4 in \d+ s$', 'and what comes next');
SELECT ok(NOT tiergate.instance_observed('dedicated-999999', 'ready', NULL, NULL, NULL, NULL, NULL, NULL, 'x', 'y'), 'of one that is gone nothing is kept');
SELECT is(pg_temp.outcome($$ SELECT pg_temp.observed('a', 'dancing', 'x') $$), '23514', 'phases are those that there are');

-- the driver is up to date: the long part is left out
SELECT is((SELECT spec FROM tiergate.instances_of('n1', false) WHERE tenant = 'a'), NULL, 'no spec when nothing is new');
SELECT isnt((SELECT spec FROM tiergate.instances_of('n1', false) WHERE tenant = 'b'), NULL::jsonb, 'but where something is');
SELECT tiergate.restart_gateway('a');
SELECT is((SELECT spec->'restart' FROM tiergate.instances_of('n1', false) WHERE tenant = 'a'), '1', 'a restart that is wanted is new');
SELECT is((SELECT new FROM tiergate.audit WHERE object = 'instances' ORDER BY id DESC LIMIT 1)->'restart', '1', 'and audited');
SELECT is(pg_temp.outcome($$ SELECT tiergate.restart_gateway('small') $$), 'TG404 unknown-gateway', 'of a tenant without a gateway');

-- conditions
SELECT is(jsonb_path_query_array(tiergate.merge_conditions('[{"type": "A", "status": "True", "reason": "r", "message": "m", "since": "then"}, {"type": "B", "status": "True", "since": "then"}]',
    '[{"type": "A", "status": "True", "reason": "s"}, {"type": "B", "status": "False"}, {"type": "C"}, {"status": "True"}, {"type": ""}]'), '$[*].type'), '["A", "B", "C"]', 'one of each type');
SELECT is(c.value->0, '{"type": "A", "status": "True", "reason": "s", "message": "n", "since": "then"}', 'the same status keeps its time')
  FROM tiergate.merge_conditions('[{"type": "A", "status": "True", "reason": "r", "message": "m", "since": "then"}]', '[{"type": "A", "status": "True", "reason": "s", "message": "n"}]') c (value);
SELECT isnt(c.value->0->>'since', 'then'::text, 'another has a new one')
  FROM tiergate.merge_conditions('[{"type": "A", "status": "True", "since": "then"}]', '[{"type": "A", "status": "False"}]') c (value);
SELECT is(tiergate.merge_conditions('[{"type": "A", "status": "True", "since": "then"}]', '[]'), '[{"type": "A", "status": "True", "since": "then"}]', 'what is not reported stays');

-- its token
SELECT tiergate.instance_token(pg_temp.name('a')) AS token \gset
SELECT matches(:'token'::text, '^tgt_[A-Za-z0-9_-]{43}$', 'a token');
SELECT results_eq(format($$ SELECT actor, scope, gateway FROM tiergate.resolve_credential('{"token_sha256": "%s"}') $$, encode(sha256(:'token'::bytea), 'hex')),
                  format($$ VALUES ('token:instance-%1$s', 'gateway', '%1$s') $$, pg_temp.name('a')), 'is its own');
SELECT isnt(tiergate.instance_token(pg_temp.name('a')), :'token'::text, 'a second one');
SELECT is(pg_temp.outcome(format($$ SELECT tiergate.resolve_credential('{"token_sha256": "%s"}') $$, encode(sha256(:'token'::bytea), 'hex'))), 'TG401 invalid-credential', 'ends the first');
SELECT is(tiergate.instance_token('dedicated-999999'), NULL, 'none for one that is gone');

-- what it is fit to see
SELECT results_eq(format('SELECT kind, tenant, tenant_id FROM tiergate.watch_view(%L)', pg_temp.name('a')),
                  $$ SELECT 'dedicated', 'a', id FROM tiergate.tenants WHERE name = 'a' $$, 'its tenant');
SELECT results_eq($$ SELECT kind, tenant, tenant_id FROM tiergate.watch_view('dedicated-999999') $$, $$ VALUES ('dedicated', '', 0::bigint) $$, 'one that is gone: nothing');
SELECT results_eq($$ SELECT kind, tenant, tenant_id FROM tiergate.watch_view('own') $$,
                  $$ SELECT 'dedicated', 'small', id FROM tiergate.tenants WHERE name = 'small' $$, 'one that others run: the tenant of that name');
SELECT results_eq($$ SELECT kind, tenant, tenant_id FROM tiergate.watch_view('unheard-of') $$, $$ VALUES (NULL::text, NULL::text, NULL::bigint) $$, 'one that nobody knows is shared');
SELECT results_eq(format('SELECT name FROM tiergate.watch_list(%L)', pg_temp.name('a')), $$ VALUES ('a') $$, 'it gets its tenant');
SELECT is((SELECT count(*) FROM tiergate.watch_list('dedicated-999999')), 0::bigint, 'or nothing');

-- removal
SELECT pg_temp.name('a') AS old \gset
SELECT tiergate.set_plugin('a', 'brotli');
SELECT tiergate.delete_tenant('a');
SELECT results_eq(format('SELECT desired, tenant COLLATE "default" FROM tiergate.instances WHERE name = %L', :'old'), $$ VALUES ('absent', 'a') $$, 'its tenant is gone, so shall it be');
SELECT is((SELECT count(*) FROM tiergate.gateways WHERE name = :'old'), 1::bigint, 'until then it is still there');
SELECT is((SELECT count(*) FROM tiergate.watch_list(:'old')), 0::bigint, 'but sees nothing any more');
SELECT tiergate.create_tenant('a', tier => 'dedicated');
SELECT isnt(pg_temp.name('a'), :'old'::text, 'a tenant of the same name has another');
SELECT is((SELECT count(*) FROM tiergate.watch_list(:'old')), 0::bigint, 'which the old one does not see');
SELECT results_eq(format('SELECT name FROM tiergate.watch_list(%L)', pg_temp.name('a')), $$ VALUES ('a') $$, 'but its own');
SELECT is((SELECT spec FROM tiergate.instances_of('n1') WHERE name = :'old'), NULL, 'nothing is to be rendered for it');
SELECT is((SELECT count(*) FROM tiergate.api_tokens WHERE gateway = :'old'), 1::bigint, 'its token serves it to the end');
SELECT ok(tiergate.instance_removed(:'old'), 'it is removed');
SELECT is((SELECT count(*) FROM tiergate.instances WHERE name = :'old') + (SELECT count(*) FROM tiergate.gateways WHERE name = :'old')
          + (SELECT count(*) FROM tiergate.api_tokens WHERE gateway = :'old'), 0::bigint, 'nothing is left');
SELECT ok(tiergate.instance_removed(:'old'), 'twice does no harm');
SELECT is((SELECT row(phase, reason)::text FROM tiergate.gateway_events WHERE gateway = :'old' ORDER BY id DESC LIMIT 1), '(stopped,Removed)', 'but what happened');
SELECT is(pg_temp.outcome(format('SELECT tiergate.gateway_ack(%L, ''b'', 1, ''{"state": "live"}'')', :'old')), 'TG422 reserved-name /name', 'it may not come back');
SELECT is((SELECT count(*) FROM tiergate.instances WHERE tenant = 'a'), 1::bigint, 'the new one is untouched');

-- one that nobody has taken needs nobody to remove it
SELECT pg_temp.name('a') AS untaken \gset
SELECT tiergate.delete_tenant('a');
SELECT is((SELECT count(*) FROM tiergate.instances WHERE name = :'untaken') + (SELECT count(*) FROM tiergate.gateways WHERE name = :'untaken'), 0::bigint, 'it goes at once');
SELECT tiergate.delete_tenant('small');
SELECT is((SELECT count(*) FROM tiergate.gateways WHERE name = 'own'), 0::bigint, 'as do gateways that others run');

-- wanted again while it is drained
UPDATE tiergate.tenants SET tier = 'vcluster' WHERE name = 'b';
SELECT is((pg_temp.instance('b')).desired, 'absent', 'not wanted');
UPDATE tiergate.tenants SET tier = 'dedicated' WHERE name = 'b';
SELECT results_eq($$ SELECT desired, node COLLATE "default", generation FROM tiergate.instances WHERE tenant = 'b' $$, $$ VALUES ('running', 'n1', 3::bigint) $$, 'wanted again, by the same node');
SELECT ok(NOT tiergate.instance_removed(pg_temp.name('b')), 'the driver that has removed it');
SELECT results_eq($$ SELECT phase, reason, observed_generation, node COLLATE "default" FROM tiergate.instances WHERE tenant = 'b' $$, $$ VALUES ('pending', 'WantedAgain', 0::bigint, 'n1') $$, 'starts it anew');

-- events: so many, so long
SELECT pg_temp.observed('b', 'starting', 'r' || n) FROM generate_series(1, 1300) n;
SELECT cmp_ok((SELECT count(*) FROM tiergate.gateway_events WHERE gateway = pg_temp.name('b')), '<', 1150::bigint, 'a crash loop is held in check');
INSERT INTO tiergate.gateway_events (at, gateway, tenant, phase, reason, message) VALUES (now() - interval '31 days', 'g', 't', 'ready', 'Old', '');
SELECT tiergate.housekeeping();
SELECT is((SELECT count(*) FROM tiergate.gateway_events WHERE gateway = pg_temp.name('b')), 1000::bigint, 'the newest 1000 stay');
SELECT is((SELECT reason FROM tiergate.gateway_events WHERE gateway = pg_temp.name('b') ORDER BY id DESC LIMIT 1), 'r1300', 'the newest');
SELECT is((SELECT count(*) FROM tiergate.gateway_events WHERE reason = 'Old'), 0::bigint, 'for 30 days');

-- what psql shows
SELECT results_eq($$ SELECT tenant, phase, why, next, address, plugins::text FROM tiergate.gateway_status WHERE tenant IN ('c', 'e') ORDER BY tenant $$,
    $$ SELECT 'c' COLLATE "C", 'pending', 'Claimed: node "n2" runs it at 127.0.0.1 port ' || port, 'it is started', '127.0.0.1:' || port, '{gzip}' FROM tiergate.instances WHERE tenant = 'c'
       UNION ALL SELECT 'e', 'pending', 'Claimed: node "n3" runs it at 127.0.0.1 port 300', 'it is started', '127.0.0.1:302', '{gzip}' $$, 'gateway_status');
SELECT is((SELECT array_agg(reason)::text FROM tiergate.gateway_log WHERE tenant = 'e'), '{Wanted,Claimed,PortChanged,PortChanged}', 'gateway_log');

SELECT * FROM finish();
