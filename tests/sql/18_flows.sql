-- SPDX-License-Identifier: BSD-2-Clause
--
-- Reports of agents: each record once, only of tenants of the node; who sees what of
-- them; sums; the ring that does not grow.

\set QUIET 1
SELECT * FROM no_plan();

SELECT tiergate.create_tenant(n) FROM unnest('{acme,globex,initech}'::text[]) n;
INSERT INTO tiergate.mesh_nodes (name, tenants) VALUES ('a', '{acme}'), ('all', '{*}'), ('b', '{globex}');

CREATE FUNCTION pg_temp.ms(ago interval DEFAULT '0') RETURNS bigint LANGUAGE sql AS
    $$ SELECT floor(extract(epoch FROM clock_timestamp() - ago) * 1000)::bigint $$;

-- A record: what is given replaces the columns of docs/reference/flows.md by number.
CREATE FUNCTION pg_temp.flow(VARIADIC given text[] DEFAULT '{}') RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    r jsonb := jsonb_build_array(pg_temp.ms(), 'open', 'source', 'tcp', 'acme', 'web', '10.0.0.1', 40000, 'acme', 'db', '10.0.0.2', 5432,
                                 '240.64.0.1', 5432, 3, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 77, 78, 0);
BEGIN
    FOR i IN 1 .. cardinality(given) / 2 LOOP
        r := jsonb_set(r, ARRAY[given[2 * i - 1]], given[2 * i]::jsonb);
    END LOOP;
    RETURN r;
END
$$;
CREATE SEQUENCE pg_temp.numbers;
CREATE FUNCTION pg_temp.report(gateway text, VARIADIC flows jsonb[]) RETURNS bigint LANGUAGE sql AS $$
    SELECT tiergate.record_flows(gateway, jsonb_build_object('boot', 'b1', 'sequence', nextval('pg_temp.numbers'), 'flows', to_jsonb(flows)))
$$;
CREATE FUNCTION pg_temp.get(tenant text, query jsonb DEFAULT '{}') RETURNS jsonb LANGUAGE sql AS $$
    SELECT (tiergate_api.get_flows(ARRAY[tenant], query, NULL)).body::jsonb
$$;
CREATE FUNCTION pg_temp.seen(tenant text, query jsonb DEFAULT '{}') RETURNS integer LANGUAGE sql AS $$
    SELECT jsonb_array_length(pg_temp.get(tenant, query)->'items')
$$;
CREATE FUNCTION pg_temp.lost(reason text, tenant text DEFAULT '') RETURNS bigint LANGUAGE sql AS $$
    SELECT coalesce(sum(l.count), 0)::bigint FROM tiergate.flow_losses l WHERE l.reason = lost.reason AND l.tenant = lost.tenant
$$;

-- who may report
SELECT throws_ok($$ SELECT pg_temp.report('nobody', pg_temp.flow()) $$, 'TG404', NULL, 'a gateway that is no agent reports nothing');
INSERT INTO tiergate.gateways (name) VALUES ('shared-1');
SELECT throws_ok($$ SELECT pg_temp.report('shared-1', pg_temp.flow()) $$, 'TG404', NULL, 'nor does a shared gateway');
SELECT is(pg_temp.report('node-a', pg_temp.flow()), 1::bigint, 'an agent reports');
SELECT is(pg_temp.report('node-a', pg_temp.flow('4', '"globex"', '8', '"globex"')), 0::bigint, 'but not flows of tenants of other nodes');
SELECT is(pg_temp.lost('refused'), 1::bigint, 'which are counted');
SELECT is(pg_temp.report('node-a', pg_temp.flow('4', '"globex"')), 0::bigint, 'not where only the other side is of its tenant');
SELECT is(pg_temp.report('node-a', pg_temp.flow('1', '"accept"', '2', '"destination"', '4', '"globex"')), 1::bigint, 'unless it was seen on its side');
SELECT is(pg_temp.report('node-all', pg_temp.flow('4', '"globex"', '8', '"globex"')), 1::bigint, 'a node of all tenants reports all');
SELECT is(pg_temp.report('node-all', pg_temp.flow('4', '"nobody"')), 0::bigint, 'but none that there is not');
SELECT is(pg_temp.report('node-all', pg_temp.flow('8', '"nobody"')), 0::bigint, 'on neither side');
SELECT is(pg_temp.report('node-all', pg_temp.flow('4', 'null', '8', 'null')), 0::bigint, 'nor flows of nobody');

-- once
SELECT tiergate.record_flows('node-a', jsonb_build_object('boot', 'x', 'sequence', 1, 'flows', jsonb_build_array(pg_temp.flow('5', '"once"'))));
SELECT is(tiergate.record_flows('node-a', jsonb_build_object('boot', 'x', 'sequence', 1, 'flows', jsonb_build_array(pg_temp.flow('5', '"once"')))),
          0::bigint, 'a report that comes twice counts once');
SELECT is(tiergate.record_flows('node-a', jsonb_build_object('boot', 'y', 'sequence', 1, 'flows', jsonb_build_array(pg_temp.flow('5', '"once"')))),
          1::bigint, 'another life of the agent counts from one again');
SELECT is((SELECT connections FROM tiergate.mesh_edges WHERE source_service = 'once'), 2::bigint, 'in the sums as well');
SELECT tiergate.record_flows('node-a', jsonb_build_object('boot', 'x', 'sequence', n, 'lost', l, 'flows', '[]'::jsonb))
  FROM (VALUES (2, 5), (3, 12), (3, 50), (4, 12)) v (n, l);
SELECT is(pg_temp.lost('ring'), 12::bigint, 'losses are cumulative');

-- hostile reports
SELECT throws_ok(format('SELECT tiergate.record_flows(''node-a'', %L)', r), 'TG422', NULL, r)
  FROM unnest(ARRAY['{}', '{"boot": 5, "sequence": 1, "flows": []}', '{"boot": "z", "sequence": 0, "flows": []}', '{"boot": "z", "sequence": "x", "flows": []}',
                    '{"boot": "z", "sequence": 1}', '{"boot": "z", "sequence": 1, "flows": {}}', '{"boot": "z", "sequence": 1, "flows": 5}',
                    '{"boot": "z", "sequence": 1e30, "flows": []}', '{"boot": "z", "sequence": 1, "lost": -1, "flows": []}']) r;
SELECT throws_ok(format('SELECT pg_temp.report(''node-a'', pg_temp.flow(%L, %L))', n, v), 'TG422', NULL, format('column %s is %s', n, v))
  FROM (VALUES ('0', '"now"'), ('6', '"nowhere"'), ('7', '"x"'), ('11', '1e12'), ('14', '99999'), ('17', '"many"'), ('23', '1e25'), ('0', '[1]')) v (n, v);
SELECT throws_ok($$ SELECT tiergate.record_flows('node-a', jsonb_build_object('boot', 'z', 'sequence', 1, 'flows', (SELECT jsonb_agg(pg_temp.flow()) FROM generate_series(1, 1001)))) $$,
                 'TG422', NULL, 'more than 1000 records');
SELECT is(pg_temp.report('node-a', pg_temp.flow(n, v)), 0::bigint, format('column %s is %s', n, left(v, 30)))
  FROM (VALUES ('1', '"opened"'), ('1', 'null'), ('2', '"left"'), ('3', '"TCP; DROP"'), ('5', '"<script>alert(1)</script>"'), ('5', '"a\"] -> b"'), ('9', '"a\u0001b"'), ('9', '"a\nb"'),
               ('5', '{"a": 1}'), ('5', to_json(repeat('x', 64))::text), ('9', '""'), ('14', '63'), ('14', 'null'), ('15', '"ac me"'), ('17', '-1'), ('24', '-1'), ('24', '1000000000000000'),
               ('7', '65536'), ('13', '-1')) v (n, v);
SELECT is((SELECT count(*) FROM tiergate.flows WHERE source_service !~ '^[a-z]+$' OR destination_service !~ '^[a-z]+$'), 0::bigint, 'no such name was kept');
SELECT is((SELECT count(*) FROM tiergate.flows), 5::bigint, 'nothing else was');

-- who sees what
TRUNCATE tiergate.flows;
SELECT pg_temp.report('node-a',
    pg_temp.flow('8', '"globex"', '9', '"api"', '1', '"denied"', '14', '64', '15', '"globex"', '16', '"no-acme"', '10', '"10.9.0.1"', '11', '80', '24', '7'),
    pg_temp.flow('15', '"acme"', '16', '"mine"', '14', '2'),
    pg_temp.flow('1', '"close"', '17', '100', '18', '2000', '19', '150', '20', '1', '21', '5000000'),
    pg_temp.flow('1', '"accept"', '2', '"destination"', '4', 'null', '5', 'null', '14', '5', '12', 'null', '13', 'null'));
SELECT is(pg_temp.seen('acme'), 4, 'a tenant sees its flows');
SELECT is(pg_temp.seen('globex'), 1, 'and the other side those that it has part in');
SELECT is(pg_temp.seen('initech'), 0, 'others nothing');
SELECT is((pg_temp.get('acme', '{"verdict": "denied"}') #> '{items,0}') - '{id,time}'::text[],
    '{"type": "denied", "side": "source", "tenant": "acme", "source": {"tenant": "acme", "service": "web", "address": "10.0.0.1", "port": 40000},
      "destination": {"tenant": "globex", "service": "api", "address": "10.9.0.1", "port": 80}, "virtual": {"address": "240.64.0.1", "port": 5432},
      "protocol": "tcp", "verdict": "denied", "reason": "DENY_RULE", "reason_number": 64, "node": "a", "cgroup": 77, "cookie": 78, "lost": 7}', 'a record');
SELECT is((pg_temp.get('globex') #> '{items,0}') - '{id,time,source,destination,virtual}'::text[],
    '{"type": "denied", "side": "source", "tenant": "acme", "protocol": "tcp", "verdict": "denied", "reason": "DENY_RULE", "reason_number": 64, "policy": "no-acme"}',
    'node, socket and losses are not for the other side; its own policy is');
SELECT is(pg_temp.get('acme', '{"reason": "rule"}') #>> '{items,0,policy}', 'mine', 'each sees its own policies');
SELECT is(pg_temp.get('acme', '{"source": "/*"}') #> '{items,0,source}', '{"address": "10.0.0.1", "port": 40000}', 'outside is nobody');
SELECT is(pg_temp.get('acme')->'lost', to_jsonb(7 + 12), 'losses: of the tenant, and those that could be its');
SELECT is(pg_temp.get('globex')->'lost', to_jsonb(12), 'not of others');

-- filters
SELECT is(pg_temp.seen('acme', q::jsonb), n, q) FROM (VALUES
    ('{"source": "web"}', 3), ('{"source": "acme/web"}', 3), ('{"source": "acme/*"}', 3), ('{"source": "/*"}', 1), ('{"source": "globex/web"}', 0),
    ('{"destination": "db"}', 3), ('{"destination": "globex/api"}', 1), ('{"destination": "globex/*"}', 1), ('{"source": "web", "destination": "db"}', 2),
    ('{"verdict": "allowed"}', 3), ('{"verdict": "denied"}', 1), ('{"reason": "64"}', 1), ('{"reason": "DENY_RULE"}', 1), ('{"reason": "deny_rate"}', 0),
    ('{"port": "5432"}', 4), ('{"port": "80"}', 1), ('{"port": "81"}', 0), ('{"type": "close"}', 1), ('{"type": "accept"}', 1), ('{"type": "failed"}', 0),
    ('{"since": "5m"}', 4), ('{"since": "0s"}', 0), ('{"until": "5m"}', 0), ('{"until": "2100-01-01T00:00:00Z"}', 4), ('{"since": "7d"}', 4), ('{"follow": "0"}', 4)) v (q, n);
SELECT throws_ok(format('SELECT pg_temp.get(''acme'', %L)', q), 'TG400', NULL, q)
  FROM unnest(ARRAY['{"source": "<b>"}', '{"source": "a/b/c"}', '{"source": "web\u0001"}', '{"verdict": "maybe"}', '{"reason": "NOT"}', '{"port": "0"}', '{"port": "65536"}', '{"port": "x"}', '{"type": "x"}',
                    '{"since": "yesterday"}', '{"since": "5"}', '{"until": "-5m"}', '{"limit": "0"}', '{"limit": "1001"}', '{"cursor": "x"}', '{"more": "1"}', '{"follow": "yes"}']) q;
SELECT throws_ok($$ SELECT pg_temp.get('nobody') $$, 'TG404', NULL, 'of a tenant that there is not');

-- pages: all once, newest first, also where many have one time
TRUNCATE tiergate.flows;
SELECT tiergate.record_flows('node-all', jsonb_build_object('boot', 'pages', 'sequence', 1, 'flows',
    (SELECT jsonb_agg(pg_temp.flow('0', (pg_temp.ms() - n / 100)::text, '7', n::text, '8', CASE n % 3 WHEN 0 THEN '"globex"' ELSE '"acme"' END)) FROM generate_series(1, 1000) n)));
CREATE TEMP TABLE pages AS
    WITH RECURSIVE p AS (
        SELECT 1 AS n, pg_temp.get('acme', '{"limit": "170"}') AS body
        UNION ALL SELECT n + 1, pg_temp.get('acme', jsonb_build_object('limit', '170', 'cursor', body->>'next')) FROM p WHERE body ? 'next')
    SELECT n, i.ordinality AS at, i.value AS item FROM p, jsonb_array_elements(body->'items') WITH ORDINALITY i;
SELECT is((SELECT count(DISTINCT item->'id') FROM pages), 1000::bigint, 'pages have each record');
SELECT is((SELECT count(*) FROM pages), 1000::bigint, 'once');
SELECT is((SELECT bool_and((item->>'time')::bigint <= before) FROM (SELECT item, lag((item->>'time')::bigint) OVER (ORDER BY n, at) AS before FROM pages) x), true, 'newest first');
SELECT is(pg_temp.seen('globex', '{"limit": "1000"}'), 333, 'also as destination');

-- clocks
TRUNCATE tiergate.flows;
SELECT pg_temp.report('node-a', pg_temp.flow('0', pg_temp.ms('1 minute')::text), pg_temp.flow('0', pg_temp.ms('1 day')::text), pg_temp.flow('0', pg_temp.ms('-1 day')::text), pg_temp.flow('0', 'null'), pg_temp.flow('0', '0'));
SELECT is((SELECT count(*) FROM tiergate.flows WHERE at < now() - interval '50 seconds'), 1::bigint, 'a clock that is near ours says when');
SELECT is((SELECT count(*) FROM tiergate.flows WHERE at BETWEEN now() - interval '5 seconds' AND now() + interval '6 seconds'), 4::bigint, 'others do not');

-- sums: a call counts where it began, or where it arrived from outside
TRUNCATE tiergate.flows, tiergate.mesh_edges;
SELECT pg_temp.report('node-all',
    pg_temp.flow(), pg_temp.flow('1', '"accept"', '2', '"destination"'),
    pg_temp.flow('1', '"close"', '17', '100', '18', '2000', '19', '150', '20', '1'), pg_temp.flow('1', '"close"', '2', '"destination"', '17', '2000', '18', '100', '19', '90'),
    pg_temp.flow('1', '"accept"', '2', '"destination"', '4', 'null', '5', 'null'), pg_temp.flow('1', '"close"', '2', '"destination"', '4', 'null', '5', 'null', '17', '9', '18', '1'),
    pg_temp.flow('1', '"denied"', '2', '"destination"', '14', '67', '4', 'null', '5', 'null'), pg_temp.flow('1', '"denied"', '14', '65'), pg_temp.flow('1', '"failed"'));
SELECT results_eq($$ SELECT source_tenant COLLATE "default", source_service COLLATE "default", connections, failed, denied, bytes_sent, bytes_received, rtt_us, rtt_count, retransmits FROM tiergate.mesh_edges ORDER BY 1 $$,
    $$ VALUES ('', '', 1::bigint, 0::bigint, 1::bigint, 1::bigint, 9::bigint, 0::bigint, 0::bigint, 0::bigint), ('acme', 'web', 1, 1, 1, 100, 2000, 150, 1, 1) $$, 'sums');
SELECT is((m #> '{edges,0}') - 'last', '{"source": {"tenant": "acme", "service": "web"}, "destination": {"tenant": "acme", "service": "db"}, "connections": 1, "failed": 1, "denied": 1,
    "bytes_sent": 100, "bytes_received": 2000, "rtt_us": 150, "retransmits": 1}', 'the map')
  FROM (SELECT (tiergate_api.get_servicemap('{acme}', '{}', NULL)).body::jsonb AS m) x;
SELECT is(row(jsonb_array_length(m->'nodes'), jsonb_array_length(m->'edges'), m->'truncated')::text, '(3,2,false)', 'has nodes and edges, all of them')
  FROM (SELECT tiergate.service_map('acme', now() - interval '1 hour') AS m) x;
SELECT is(row(m->'truncated', jsonb_array_length(m->'edges'))::text, '(true,1)', 'or the busiest, and says so')
  FROM (SELECT tiergate.service_map('acme', now() - interval '1 hour', 1) AS m) x;
SELECT is(tiergate.service_map('initech', now() - interval '1 hour') - '{since,lost}'::text[], '{"tenant": "initech", "nodes": [], "edges": [], "truncated": false}', 'of nothing');
UPDATE tiergate.settings SET value = '100' WHERE name = 'flows.max_edges';
SELECT tiergate.record_flows('node-all', jsonb_build_object('boot', 'edges', 'sequence', 1, 'flows', (SELECT jsonb_agg(pg_temp.flow('5', to_json('s' || n)::text)) FROM generate_series(1, 150) n)));
SELECT is((SELECT count(*) FROM tiergate.mesh_edges), 100::bigint, 'there are not more pairs than the setting says');
SELECT is(pg_temp.lost('edges', 'acme'), 52::bigint, 'the others are counted');
SELECT is((SELECT count(*) FROM tiergate.flows WHERE source_service LIKE 's%'), 150::bigint, 'and recorded');

-- those who follow
SELECT is((SELECT count(*) FROM tiergate.flows_reported(ARRAY[0], ARRAY[9223372036854775807], '{all}', '{acme,globex}', 100000)), 159::bigint, 'each record once for each who has part');
SELECT is((SELECT count(*) FROM tiergate.flows_reported(ARRAY[0], ARRAY[9223372036854775807], '{b}', '{acme,globex}', 100000)), 0::bigint, 'of the nodes asked for');
SELECT is((SELECT count(*) FROM tiergate.flows_reported(ARRAY[0], ARRAY[9223372036854775807], '{all}', '{acme}', 10)), 10::bigint, 'not more than asked for');

-- the ring
TRUNCATE tiergate.flows;
UPDATE tiergate.settings SET value = '1200' WHERE name = 'flows.max_rows';
SELECT tiergate.record_flows('node-all', jsonb_build_object('boot', 'ring', 'sequence', n, 'flows', (SELECT jsonb_agg(pg_temp.flow()) FROM generate_series(1, 100)))) FROM generate_series(1, 50) n;
SELECT cmp_ok((SELECT count(*) FROM tiergate.flows), '<=', 1300::bigint, 'there are not more rows than the setting says');
SELECT cmp_ok((SELECT count(*) FROM tiergate.flows), '>=', 1000::bigint, 'nor far fewer');
SELECT is((SELECT max(id) FROM tiergate.flows), (SELECT last_value FROM tiergate.flow_id), 'the newest are there');
UPDATE tiergate.settings SET value = '"1 second"' WHERE name = 'flows.retention';
UPDATE tiergate.flow_ring SET since = now() - interval '1 minute';
SELECT slot AS before FROM tiergate.flow_ring \gset
SELECT tiergate.housekeeping();
SELECT is((SELECT slot::integer FROM tiergate.flow_ring), (:before + 1) % 12, 'it turns by time as well');
SELECT throws_ok(format('UPDATE tiergate.settings SET value = %L WHERE name = %L', v, n), 'TG422', NULL, n || ' ' || v)
  FROM (VALUES ('flows.retention', '"8 days"'), ('flows.retention', '5'), ('flows.retention', '"soon"'), ('flows.max_rows', '99'), ('flows.max_rows', '"many"'), ('flows.max_edges', '1.5'), ('flows.edge_retention', '"1 minute"')) v (n, v);
UPDATE tiergate.mesh_edges SET start = now() - interval '8 days';
SELECT tiergate.housekeeping();
SELECT is((SELECT count(*) FROM tiergate.mesh_edges), 0::bigint, 'old sums go');

-- psql, and roles of tenants
TRUNCATE tiergate.flows;
SELECT pg_temp.report('node-all', pg_temp.flow('1', '"denied"', '14', '64', '16', '"p"', '8', '"globex"'), pg_temp.flow('4', '"globex"', '8', '"globex"'));
SELECT is(row(source, destination, verdict, reason, policy)::text, '("acme/web 10.0.0.1:40000","globex/db 240.64.0.1:5432",denied,DENY_RULE,p)', 'recent_flows') FROM tiergate.recent_flows WHERE type = 'denied';
CREATE ROLE flow_reader; SELECT tiergate.grant_tenant_role('flow_reader', 'acme');
GRANT USAGE ON SCHEMA tiergate TO flow_reader;
SET ROLE flow_reader;
SELECT is((SELECT count(id) FROM tiergate.flows), 1::bigint, 'a tenant''s role sees what its tenant has part in');
SELECT throws_ok('SELECT node FROM tiergate.flows', '42501', NULL, 'and not where');
SELECT throws_ok('SELECT * FROM tiergate.flows_0', '42501', NULL, 'not past the rules');
SELECT is((SELECT count(*) FROM tiergate.mesh_edges WHERE source_tenant <> 'acme' AND destination_tenant <> 'acme'), 0::bigint, 'the same of the sums');
RESET ROLE;
DROP OWNED BY flow_reader; DROP ROLE flow_reader;

SELECT * FROM finish();
