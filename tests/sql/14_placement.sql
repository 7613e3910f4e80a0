-- SPDX-License-Identifier: BSD-2-Clause
--
-- Tenants that move between shared gateways and their own, step by step, and the
-- documents that gateways get meanwhile.

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
CREATE FUNCTION pg_temp.own(of text) RETURNS text LANGUAGE sql AS $$ SELECT 'dedicated-' || t.id FROM tiergate.tenants t WHERE t.name = of $$;
CREATE FUNCTION pg_temp.ack(gateway text) RETURNS void LANGUAGE sql AS $$
    SELECT tiergate.gateway_ack(gateway, 'b', (SELECT revision FROM tiergate.registry_state()), '{"state": "live"}')
$$;
-- members of the documents that shared gateways and its own get
CREATE FUNCTION pg_temp.members(of text, OUT shared text, OUT own text) LANGUAGE sql AS $$
    SELECT string_agg(k, ' ' ORDER BY k) FILTER (WHERE d.document ? k), string_agg(k, ' ' ORDER BY k) FILTER (WHERE d.own ? k)
      FROM (SELECT (SELECT w.document FROM tiergate.watch_list('shared-1') w WHERE w.kind = 'tenant' AND w.name = of)::jsonb AS document,
                   (SELECT w.document FROM tiergate.watch_list(pg_temp.own(of)) w WHERE w.kind = 'tenant')::jsonb AS own) d,
           unnest('{forward,misdirected,hold,handover,carry,carry_id}'::text[]) k
$$;
CREATE FUNCTION pg_temp.stands(of text) RETURNS text LANGUAGE sql AS $$
    SELECT concat_ws(' ', t.tier, t.placement, (SELECT h.direction || '/' || h.step || coalesce('/' || h.outcome, '') FROM tiergate.handovers h
                                                 WHERE h.tenant_id = t.id ORDER BY h.id DESC LIMIT 1),
                     (SELECT i.desired FROM tiergate.instances i WHERE i.tenant_id = t.id))
      FROM tiergate.tenants t WHERE t.name = of
$$;
CREATE FUNCTION pg_temp.handover(of text) RETURNS bigint LANGUAGE sql AS $$
    SELECT max(h.id) FROM tiergate.handovers h JOIN tiergate.tenants t ON t.id = h.tenant_id WHERE t.name = of
$$;
CREATE FUNCTION pg_temp.report(of text, gateway text, words jsonb DEFAULT '[]') RETURNS text LANGUAGE sql AS $$
    SELECT pg_temp.outcome(format('SELECT tiergate.handover_report(%L, %L)', gateway,
                                  jsonb_build_object('boot', 'b', 'handover', pg_temp.handover(of), 'tenant', of, 'words', words)))
$$;
CREATE FUNCTION pg_temp.onboard(of text, tier text DEFAULT 'vcluster') RETURNS void LANGUAGE sql AS $$
    SELECT tiergate.onboard(jsonb_build_object('name', of, 'tier', tier, 'hosts', jsonb_build_array(of || '.example.com'),
        'issuers', '[{"name": "main", "issuer": "https://x", "jwks_uri": "https://x/k"}]'::jsonb, 'keys', '[{"consumer": "c"}]'::jsonb,
        'consumers', '[{"name": "c"}]'::jsonb,
        'upstreams', '[{"name": "v1", "endpoints": [{"address": "10.0.0.1", "port": 80}]}]'::jsonb,
        'routes', '[{"name": "all", "backends": [{"upstream": "v1"}]}]'::jsonb, 'quotas', '[{"name": "q", "limit": 5, "window": "60s"}]'::jsonb))
$$;
CREATE FUNCTION pg_temp.claim() RETURNS bigint LANGUAGE sql AS $$
    SELECT count(*) FROM tiergate.instances_claim('n1', 'process', 100, 20000, 20999, '127.0.0.1')
$$;
-- as if the step had begun so long ago
CREATE FUNCTION pg_temp.age(by interval) RETURNS void LANGUAGE sql AS $$
    UPDATE tiergate.handovers SET step_at = step_at - by, acked_at = acked_at - by, finished_at = finished_at - by
$$;

-- settings
SELECT is(pg_temp.outcome(format('UPDATE tiergate.settings SET value = %L WHERE name = %L', v.value, 'gateways.' || v.name)), v.outcome, v.name || ' ' || v.value) FROM (VALUES
    ('linger', '"1 minute"', 'ok'), ('linger', '"soon"', 'TG422 invalid-setting /value'), ('linger', '"-1 s"', 'TG422 invalid-setting /value'),
    ('linger', '5', 'TG422 invalid-setting /value'), ('linger', '"30 seconds"', 'ok'),
    ('handover_timeout', '"0 s"', 'TG422 invalid-setting /value'), ('handover_timeout', '"1 hour"', 'TG422 invalid-setting /value'),
    ('handover_timeout', '"2 seconds"', 'ok'), ('shared_address', '"10.0.0.1:80"', 'ok'), ('shared_address', '"[::1]:80"', 'ok'),
    ('shared_address', '"shared:80"', 'TG422 invalid-setting /value'), ('shared_address', '"10.0.0.1"', 'TG422 invalid-setting /value'),
    ('shared_address', '"10.0.0.1:0"', 'TG422 invalid-setting /value'), ('shared_address', 'null', 'ok')) v (name, value, outcome);

-- a new tenant of a dedicated tier
SELECT pg_temp.onboard('new', 'dedicated');
SELECT is(pg_temp.stands('new'), 'dedicated dedicated running', 'begins where its tier says');
SELECT is(m.*::text, '(forward,)', 'shared gateways know whose it is') FROM pg_temp.members('new') m;
SELECT is(jsonb_path_query_first(document::jsonb, '$.upstreams[*] ? (@.name == "tiergate-forward").endpoints'), '[]', 'but not where, yet')
  FROM tiergate.watch_list('shared-1') WHERE name = 'new';
SELECT revision AS before FROM tiergate.registry_state() \gset
SELECT pg_temp.claim();
SELECT is(tiergate.revision_of('tenant', id), :before::bigint + 1, 'until somebody runs its gateway') FROM tiergate.tenants WHERE name = 'new';

-- what is passed on keeps its state, and none of its secrets
SELECT document::jsonb AS d FROM tiergate.watch_list('shared-1') WHERE name = 'new' \gset
SELECT is(:'d'::jsonb - '{id,revision,upstreams,routes,quotas,consumers}'::text[], '{"name": "new", "tier": "dedicated", "state": "active", "hosts": ["new.example.com"],
    "issuers": [], "api_keys": [], "forward": "tiergate-forward"}', 'a document that passes on');
SELECT is(jsonb_array_length(:'d'::jsonb->'quotas') + jsonb_array_length(:'d'::jsonb->'consumers'), 2, 'has its quotas and consumers');
SELECT is(jsonb_path_query_array(:'d'::jsonb, '$.routes[*].name'), '["all", "tiergate-forward"]', 'its routes, and one more');
SELECT is(jsonb_path_query_first(:'d'::jsonb, '$.routes[1]') - 'id', '{"name": "tiergate-forward", "match": {"path": {"type": "prefix", "value": "/"}},
    "auth": {"mode": "none", "hide_credentials": false}, "backends": [{"upstream": "tiergate-forward", "weight": 1}], "sticky": "none",
    "timeouts": {"connect_ms": 1000, "send_ms": 3600000, "read_ms": 3600000}, "retries": 1, "websocket": true}', 'for everything');
SELECT is((jsonb_path_query_first(:'d'::jsonb, '$.upstreams[1]') #- '{endpoints,0,id}'::text[]) - 'id'::text, format('{"name": "tiergate-forward", "max_outstanding": 0,
    "health": {"max_fails": 0, "fail_timeout_ms": 10000, "slow_start_ms": 0}, "endpoints": [{"address": "127.0.0.1", "port": %s, "weight": 1}]}', port)::jsonb, 'to its gateway')
  FROM tiergate.instances WHERE tenant = 'new';
SELECT is((SELECT count(*) FROM tiergate.routes r WHERE r.id = jsonb_path_query_first(:'d'::jsonb, '$.routes[1].id')::bigint), 0::bigint, 'with numbers that nothing else has');
SELECT pg_temp.onboard('after');
SELECT cmp_ok(max(id), '>', jsonb_path_query_first(:'d'::jsonb, '$.routes[1].id')::bigint, 'nor ever gets') FROM tiergate.routes;
SELECT ok(tiergate.instance_ready(pg_temp.own('new')), 'ready');
SELECT is(pg_temp.stands('new'), 'dedicated dedicated running', 'there is nothing to move');
SELECT is((SELECT row(phase, ready_at IS NOT NULL, jsonb_path_query_array(conditions, '$[*].type'))::text FROM tiergate.instances WHERE tenant = 'new'),
          '(ready,t,"[""Placed"", ""Ready""]")', 'conditions say so');

-- names between gateways
SELECT is(pg_temp.outcome($$ INSERT INTO tiergate.routes (tenant, name, path, backends) VALUES ('new', 'tiergate-forward', '/x', '[{"upstream": "v1"}]') $$), 'TG422 reserved-name /name', 'a route');
SELECT is(pg_temp.outcome($$ UPDATE tiergate.routes SET name = 'tiergate-forward' WHERE tenant = 'new' $$), 'TG422 reserved-name /name', 'renamed');
SELECT is(pg_temp.outcome($$ INSERT INTO tiergate.upstreams (tenant, name) VALUES ('new', 'tiergate-forward') $$), 'TG422 reserved-name /name', 'an upstream');

-- mode
SELECT tiergate.set_forwarding('new', 'misdirect');
SELECT is(m.*::text, '(misdirected,)', 'misdirect') FROM pg_temp.members('new') m;
SELECT is(document::jsonb->'issuers' || (document::jsonb->'api_keys'), '[]', 'without credentials') FROM tiergate.watch_list('shared-1') WHERE name = 'new';
SELECT is(pg_temp.outcome($$ SELECT tiergate.set_forwarding('new', 'drop') $$), 'TG422 unknown-value /forwarding', 'modes are those that there are');
SELECT is(pg_temp.outcome($$ UPDATE tiergate.tenants SET forwarding = NULL $$), '23502', 'one of them');
SELECT tiergate.set_forwarding('new', 'forward');
SELECT is(pg_temp.outcome($$ UPDATE tiergate.tenants SET placement = 'shared' WHERE name = 'new' $$), 'TG422 placement-observed /placement', 'nobody moves a tenant by hand');
INSERT INTO tiergate.tenants (name, placement) VALUES ('sly', 'dedicated');
SELECT is(pg_temp.stands('sly'), 'vcluster shared', 'nor makes one elsewhere');

-- promotion
SELECT pg_temp.onboard('acme');
SELECT id AS acme FROM tiergate.tenants WHERE name = 'acme' \gset
SELECT id AS quota FROM tiergate.quotas WHERE tenant = 'acme' \gset
SELECT pg_temp.ack('shared-1'), pg_temp.ack('shared-2');
INSERT INTO tiergate.gateways (name, state, last_seen) VALUES ('asleep', 'live', now() - interval '6 seconds'), ('loading', 'loading', now());
SELECT is(m.*::text, '(,)', 'before: nothing of the kind') FROM pg_temp.members('acme') m;
SELECT is(tiergate.set_tier('acme', 'dedicated'), 'acme: tier dedicated, placement shared until the move is done', 'set_tier');
SELECT is(pg_temp.stands('acme'), 'dedicated shared running', 'it stays where it was');
SELECT is(m.*::text, '(,hold)', 'its gateway holds requests') FROM pg_temp.members('acme') m;
SELECT pg_temp.claim();
SELECT tiergate.instance_observed(pg_temp.own('acme'), 'failed', 1, '[{"type": "ConfigAccepted", "status": "False"}]', NULL, 1, NULL, 0, 'Refused', 'nginx said no');
SELECT * FROM tiergate.handovers_advance();
SELECT is(pg_temp.stands('acme'), 'dedicated shared running', 'a provisioning that fails leaves it there');
SELECT is(m.*::text, '(,hold)', 'served as ever') FROM pg_temp.members('acme') m;
SELECT ok(tiergate.instance_ready(pg_temp.own('acme')), 'ready at last');
SELECT is(pg_temp.stands('acme'), 'dedicated shared promote/hold running', 'waits for its acknowledgement of holding');
SELECT is((a.open, a.next_ms)::text, '(1,25)', 'polled meanwhile') FROM tiergate.handovers_advance() a;
SELECT pg_temp.ack(pg_temp.own('acme'));
SELECT revision AS before FROM tiergate.registry_state() \gset
SELECT * FROM tiergate.handovers_advance();
SELECT is(pg_temp.stands('acme'), 'dedicated dedicated promote/export running', 'the switch');
SELECT is(revision, :before::bigint + 1, 'is one revision') FROM tiergate.registry_state();
SELECT is((SELECT gateways::text FROM tiergate.handovers WHERE id = pg_temp.handover('acme')), '{shared-1,shared-2}', 'of the gateways that live');
SELECT is(m.*::text, '("forward handover",hold)', 'shared ones pass on and report, its own holds') FROM pg_temp.members('acme') m;
SELECT is(document::jsonb->'handover', jsonb_build_object('id', pg_temp.handover('acme')), 'once for this handover') FROM tiergate.watch_list('shared-1') WHERE name = 'acme';
SELECT is((SELECT new FROM tiergate.audit WHERE object = 'tenants' AND tenant = 'acme' ORDER BY id DESC LIMIT 1), '{"placement": "dedicated"}', 'audited');
SELECT is(s.*::text, format('(shared-1,%s,t,t)', s.id), 'the feed says the same') FROM (
    SELECT 'shared-1', w.id, w.document::jsonb ? 'hold' AND NOT w.document::jsonb ? 'forward', w.shared AND w.shared_document::jsonb ? 'forward'
      FROM tiergate.watch_feed(:before, 10) w WHERE w.name = 'acme') s (gateway, id, own, shared);

SELECT is(pg_temp.report('acme', 'shared-1', format('[{"quota": %s, "key": "aa", "at": 1, "level": "5"}, {"quota": %s, "key": "bb", "word": "1"}]', :quota, :quota + 1000)::jsonb), 'ok', 'a report');
SELECT is(pg_temp.report('acme', 'shared-1', format('[{"quota": %s, "key": "aa", "at": 1, "level": "5"}]', :quota)::jsonb), 'ok', 'twice');
SELECT is(pg_temp.stands('acme'), 'dedicated dedicated promote/export running', 'the other one is still missing');
SELECT is(pg_temp.report('acme', pg_temp.own('new'), '[]'), 'TG410 handover-over /handover', 'another''s own gateway has nothing to say');
SELECT is(pg_temp.outcome(format('SELECT tiergate.handover_report(''shared-2'', %L)', b.body)), b.outcome, 'a report ' || b.body) FROM (VALUES
    ('{}', 'TG422 invalid-report /handover'), ('[]', 'TG422 invalid-report /handover'), ('{"handover": "x"}', 'TG422 invalid-report /handover'),
    ('{"handover": -1}', 'TG422 invalid-report /handover'), ('{"handover": 999999}', 'TG410 handover-over /handover'),
    ('{"handover": 1, "words": 5}', 'TG422 invalid-report /words'), ('{"handover": 1, "words": [5]}', 'TG422 invalid-report /words/0'),
    ('{"handover": 1, "words": [{"quota": "x"}]}', 'TG422 invalid-report /words/0'), ('{"handover": 1, "words": [{}]}', 'TG422 invalid-report /words/0')) b (body, outcome);
SELECT is(pg_temp.report('acme', 'shared-2', format('[{"quota": %s, "key": "aa", "at": 2, "level": "7"}]', :quota)::jsonb), 'ok', 'the other report');
SELECT is(pg_temp.stands('acme'), 'dedicated dedicated promote/done/complete running', 'ends it at once');
SELECT is(m.*::text, '(forward,"carry carry_id")', 'its own gateway has the counts and lets go') FROM pg_temp.members('acme') m;
SELECT is(document::jsonb->'carry', format('[{"quota": %s, "key": "aa", "at": 1, "level": "5"}, {"quota": %1$s, "key": "aa", "at": 2, "level": "7"}]', :quota)::jsonb, 'of its own quotas, each gateway''s')
  FROM tiergate.watch_list(pg_temp.own('acme')) WHERE kind = 'tenant';
SELECT is(pg_temp.report('acme', 'shared-2', '[]'), 'TG410 handover-over /handover', 'nobody waits any more');
SELECT is((a.open, a.next_ms)::text, '(0,)', 'and nothing is to be done') FROM tiergate.handovers_advance() a;
SELECT revision AS before FROM tiergate.registry_state() \gset
SELECT pg_temp.age('61 seconds');
SELECT is(m.*::text, '(forward,)', 'after a minute the counts leave the document') FROM pg_temp.members('acme') m;
SELECT is(revision, :before::bigint, 'by themselves') FROM tiergate.registry_state();
SELECT is(array_agg(reason ORDER BY id)::text, '{Wanted,Claimed,Refused,Ready,Promoting,Switched,Promoted}', 'the events tell the story')
  FROM tiergate.gateway_events WHERE gateway = pg_temp.own('acme');

-- counts that shared gateways report later are of the past
SELECT tiergate.record_usage('shared-1', format('{"boot": "b", "quotas": [{"id": %s, "used": 5}]}', :quota)::jsonb);
SELECT tiergate.record_usage(pg_temp.own('acme'), format('{"boot": "b", "quotas": [{"id": %s, "used": 3}]}', :quota)::jsonb);
SELECT is(used, 3::bigint, 'the fill of a quota is that of the gateway that decides') FROM tiergate.quota_status WHERE tenant = 'acme';

-- return
SELECT pg_temp.ack('shared-1'), pg_temp.ack('shared-2'), pg_temp.ack(pg_temp.own('acme'));
SELECT tiergate.set_tier('acme', 'vcluster');
SELECT is(pg_temp.stands('acme'), 'vcluster dedicated return/hold running', 'shared gateways get ready');
SELECT is(m.*::text, '(hold,)', 'they hold requests, its own decides') FROM pg_temp.members('acme') m;
SELECT * FROM tiergate.handovers_advance();
SELECT pg_temp.ack('shared-1');
SELECT * FROM tiergate.handovers_advance();
SELECT is(acked_at, NULL, 'one has acknowledged') FROM tiergate.handovers WHERE id = pg_temp.handover('acme');
SELECT pg_temp.ack('shared-2');
SELECT * FROM tiergate.handovers_advance();
SELECT isnt(acked_at, NULL::timestamptz, 'both have') FROM tiergate.handovers WHERE id = pg_temp.handover('acme');
SELECT is(pg_temp.stands('acme'), 'vcluster dedicated return/hold running', 'a moment more');
SELECT pg_temp.age('101 milliseconds');
SELECT * FROM tiergate.handovers_advance();
SELECT is(pg_temp.stands('acme'), 'vcluster dedicated return/export running', 'then it is asked');
SELECT is(m.*::text, '(hold,"handover hold")', 'holding what still comes to it') FROM pg_temp.members('acme') m;
SELECT is(pg_temp.report('acme', 'shared-1', '[]'), 'TG410 handover-over /handover', 'shared gateways are not asked');
SELECT is(pg_temp.report('acme', pg_temp.own('acme'), format('[{"quota": %s, "word": "cc"}]', :quota)::jsonb), 'ok', 'its report');
SELECT is(pg_temp.stands('acme'), 'vcluster shared return/done/complete running', 'moves it back');
SELECT is(m.*::text, '("carry carry_id",misdirected)', 'with the counts; its own gateway sends others away') FROM pg_temp.members('acme') m;
SELECT ok(a.open = 0 AND a.next_ms BETWEEN 29000 AND 30000, 'for so long') FROM tiergate.handovers_advance() a;
UPDATE tiergate.settings SET value = '"[fd00::7]:8080"' WHERE name = 'gateways.shared_address';
SELECT is(m.own, 'forward', 'or passes them on') FROM pg_temp.members('acme') m;
SELECT is(jsonb_path_query_first(document::jsonb, '$.upstreams[*] ? (@.name == "tiergate-forward").endpoints[0]') - 'id', '{"address": "fd00::7", "port": 8080, "weight": 1}', 'to a shared one')
  FROM tiergate.watch_list(pg_temp.own('acme')) WHERE kind = 'tenant';
UPDATE tiergate.instances SET linger_until = now() - interval '1 second' WHERE tenant = 'acme';
SELECT is((a.open, a.next_ms)::text, '(0,)', 'then') FROM tiergate.handovers_advance() a;
SELECT is(pg_temp.stands('acme'), 'vcluster shared return/done/complete absent', 'it goes');
SELECT ok(tiergate.instance_removed(pg_temp.own('acme')), 'removed');
SELECT is(m.*::text, '("carry carry_id",)', 'gateways that come late get the counts all the same') FROM pg_temp.members('acme') m;
SELECT pg_temp.age('61 seconds');
SELECT is(m.*::text, '(,)', 'for a minute') FROM pg_temp.members('acme') m;
SELECT is(used, 5::bigint, 'the fill is that of the shared gateways again') FROM tiergate.quota_status WHERE tenant = 'acme';

-- gateways that do not answer
SELECT pg_temp.onboard('slow');
SELECT pg_temp.ack('shared-1'), pg_temp.ack('shared-2');
SELECT tiergate.set_tier('slow', 'dedicated');
SELECT pg_temp.claim();
SELECT pg_temp.ack(pg_temp.own('slow'));
SELECT tiergate.instance_ready(pg_temp.own('slow'));
SELECT is(pg_temp.stands('slow'), 'dedicated dedicated promote/export running', 'when all is known already the switch is at once');
SELECT is(pg_temp.report('slow', 'shared-2'), 'ok', 'a report');
SELECT pg_temp.age('3 seconds');
SELECT * FROM tiergate.handovers_advance();
SELECT is(pg_temp.stands('slow'), 'dedicated dedicated promote/done/incomplete running', 'a silent gateway delays nobody for longer');
SELECT matches((SELECT message FROM tiergate.gateway_events WHERE tenant = 'slow' ORDER BY id DESC LIMIT 1), 'no counts came from shared-1$', 'it is named');
SELECT tiergate.set_tier('slow', 'vcluster');
SELECT pg_temp.age('3 seconds');
SELECT * FROM tiergate.handovers_advance();
SELECT is(pg_temp.stands('slow'), 'vcluster dedicated return/export running', 'nor one that does not acknowledge');
SELECT pg_temp.age('3 seconds');
SELECT * FROM tiergate.handovers_advance();
SELECT is(pg_temp.stands('slow'), 'vcluster shared return/done/incomplete running', 'nor its own');

-- lingering, and wanted again
SELECT tiergate.set_tier('slow', 'dedicated');
SELECT is(pg_temp.stands('slow'), 'dedicated shared return/done/incomplete running', 'a new start');
SELECT is(m.own, 'hold', 'it has to hold first') FROM pg_temp.members('slow') m;
SELECT is(linger_until, NULL, 'and does not linger any more') FROM tiergate.instances WHERE tenant = 'slow';
SELECT tiergate.instance_ready(pg_temp.own('slow'));
SELECT is(pg_temp.stands('slow'), 'dedicated shared promote/hold running', 'what it acknowledged before does not count');
SELECT pg_temp.ack(pg_temp.own('slow'));
UPDATE tiergate.gateways SET last_seen = now() - interval '1 minute' WHERE kind = 'shared';
SELECT * FROM tiergate.handovers_advance();
SELECT is(pg_temp.stands('slow'), 'dedicated dedicated promote/done/complete running', 'without shared gateways nobody is waited for');

-- changed back
SELECT tiergate.set_tier('slow', 'vcluster');
SELECT tiergate.set_tier('slow', 'dedicated');
SELECT is(pg_temp.stands('slow'), 'dedicated dedicated return/done/cancelled running', 'a return is cancelled');
SELECT is(m.*::text, '(forward,)', 'as if nothing had been') FROM pg_temp.members('slow') m;
SELECT pg_temp.onboard('fickle');
SELECT tiergate.set_tier('fickle', 'dedicated');
SELECT tiergate.set_tier('fickle', 'vcluster');
SELECT is(pg_temp.stands('fickle'), 'vcluster shared', 'before anybody took it: it is gone');
SELECT tiergate.set_tier('fickle', 'dedicated');
SELECT pg_temp.claim();
SELECT tiergate.instance_ready(pg_temp.own('fickle'));
SELECT tiergate.set_tier('fickle', 'vcluster');
SELECT is(pg_temp.stands('fickle'), 'vcluster shared promote/done/cancelled absent', 'before the switch: it goes');
SELECT tiergate.set_tier('fickle', 'dedicated');
SELECT is(pg_temp.stands('fickle'), 'dedicated shared promote/done/cancelled running', 'or comes back');
SELECT pg_temp.ack('shared-1'), pg_temp.ack(pg_temp.own('fickle'));
SELECT tiergate.instance_ready(pg_temp.own('fickle'));
SELECT is(pg_temp.stands('fickle'), 'dedicated dedicated promote/export running', 'after the switch');
SELECT tiergate.set_tier('fickle', 'vcluster');
SELECT is(pg_temp.stands('fickle'), 'vcluster dedicated promote/export running', 'the promotion ends first');
SELECT is(pg_temp.report('fickle', 'shared-1', (SELECT jsonb_build_array(jsonb_build_object('quota', id, 'word', 'aa')) FROM tiergate.quotas WHERE tenant = 'fickle')),
          'ok', 'a report');
SELECT is(pg_temp.stands('fickle'), 'vcluster dedicated return/hold running', 'then it returns');
SELECT is(m.*::text, '(hold,"carry carry_id")', 'with the counts, which its own gateway has not got before') FROM pg_temp.members('fickle') m;
SELECT is((SELECT count(*) FROM tiergate.handovers WHERE tenant = 'fickle' AND finished_at IS NULL), 1::bigint, 'one at a time');

-- the instance goes meanwhile
SELECT pg_temp.onboard('frail');
SELECT tiergate.set_tier('frail', 'dedicated');
SELECT pg_temp.claim();
SELECT tiergate.instance_ready(pg_temp.own('frail'));
SELECT tiergate.instance_observed(pg_temp.own('frail'), 'failed', 1, NULL, NULL, 1, NULL, 1, 'Crashed', 'signal 9');
SELECT * FROM tiergate.handovers_advance();
SELECT is(pg_temp.stands('frail'), 'dedicated shared promote/done/abandoned running', 'before the switch: it stays where it was');
SELECT pg_temp.ack(pg_temp.own('frail'));
SELECT tiergate.instance_ready(pg_temp.own('frail'));
SELECT is(pg_temp.stands('frail'), 'dedicated dedicated promote/export running', 'and tries again');
SELECT pg_temp.age('3 seconds');
SELECT * FROM tiergate.handovers_advance();
SELECT tiergate.instance_observed(pg_temp.own('frail'), 'failed', 1, NULL, NULL, 1, NULL, 1, 'Crashed', 'signal 9');
SELECT is(pg_temp.stands('frail'), 'dedicated dedicated promote/done/incomplete running', 'after it: it is started again');
SELECT tiergate.set_tier('frail', 'vcluster');
SELECT is(pg_temp.stands('frail'), 'vcluster shared promote/done/incomplete absent', 'or left at once, when it cannot answer');

-- tenants that are deleted
SELECT pg_temp.own('fickle') AS fickle \gset
SELECT pg_temp.handover('fickle') AS moving \gset
SELECT tiergate.delete_tenant('fickle');
SELECT is(outcome, 'deleted', 'a handover ends with its tenant') FROM tiergate.handovers WHERE id = :moving;
SELECT is(desired, 'absent', 'as does its gateway') FROM tiergate.instances WHERE name = :'fickle';
SELECT is((a.open)::text, '0', 'nothing is left to do') FROM tiergate.handovers_advance() a;
SELECT is(pg_temp.outcome(format('SELECT tiergate.handover_report(%L, ''{"handover": %s}'')', :'fickle', :moving)), 'TG410 handover-over /handover', 'or to report');
SELECT pg_temp.onboard('fickle');
SELECT is(m.*::text, '(,)', 'one of the same name begins anew') FROM pg_temp.members('fickle') m;

-- between tiers of the same kind
INSERT INTO tiergate.tiers VALUES ('large', 'dedicated', 'larger', '{"workers": 4}');
SELECT tiergate.set_tier('new', 'large');
SELECT is(w.spec->'workers' || (w.spec->'plugins'), '[4]', 'another size, and other plugins') FROM tiergate.instances_of('n1') w WHERE w.tenant = 'new';
SELECT is(pg_temp.stands('new'), 'large dedicated running', 'it moves nowhere');

-- usage that others meter
SELECT results_eq($$ SELECT c.value->>'tenant', c.value->>'route' FROM tiergate.metered_usage('shared-1',
        '{"counters": [{"tenant": "new", "route": "tiergate-forward"}, {"tenant": "new", "route": "all"}, {"tenant": "x"}], "quotas": []}') r, jsonb_array_elements(r->'counters') c $$,
                  $$ VALUES ('new', 'all'), ('x', NULL) $$, 'what was passed on is not counted');
SELECT is(tiergate.metered_usage('shared-1', '{"counters": [{"tenant": "x"}], "boot": "b"}'), '{"counters": [{"tenant": "x"}], "boot": "b"}', 'the rest is as it came');
SELECT is(tiergate.metered_usage('shared-1', '{"counters": 5}'), '{"counters": 5}', 'also when it is nonsense');
SELECT is(tiergate.metered_usage(pg_temp.own('new'), format('{"boot": "b", "counters": [{"tenant": "new", "requests": 1}, {"tenant": "acme", "requests": 1000}],
    "quotas": [{"id": %s, "used": 5}, {"id": %s, "used": 1}]}', (SELECT id FROM tiergate.quotas WHERE tenant = 'new'), (SELECT id FROM tiergate.quotas WHERE tenant = 'acme'))::jsonb),
    format('{"boot": "b", "counters": [{"tenant": "new", "requests": 1}], "quotas": [{"id": %s, "used": 5}]}', (SELECT id FROM tiergate.quotas WHERE tenant = 'new'))::jsonb,
    'an instance speaks for its own tenant only');
SELECT is(tiergate.metered_usage('dedicated-999999', '{"counters": [{"tenant": "new"}]}'), '{"counters": []}', 'one that is gone for nobody');

-- history
UPDATE tiergate.handovers SET finished_at = finished_at - interval '6 minutes' WHERE finished_at IS NOT NULL;
SELECT tiergate.housekeeping();
SELECT is((SELECT string_agg(tenant || ' ' || direction, ',') FROM tiergate.handovers WHERE words <> '[]' AND finished_at IS NOT NULL), 'acme return',
          'counts that were carried are forgotten, but those of a return that a promotion may follow');
SELECT cmp_ok((SELECT count(*) FROM tiergate.handovers), '>', 5::bigint, 'the handovers are not');
UPDATE tiergate.handovers SET finished_at = finished_at - interval '33 days' WHERE finished_at IS NOT NULL;
SELECT tiergate.housekeeping();
SELECT is((SELECT count(*) FROM tiergate.handovers WHERE finished_at IS NOT NULL), 0::bigint, 'for 30 days');

SELECT * FROM finish();
