-- SPDX-License-Identifier: BSD-2-Clause
--
-- The mesh in the registry: what may be written, who learns of it, what stays.
-- What takes several sessions is in test_mesh.py.

\set QUIET 1
SELECT * FROM no_plan();

CREATE FUNCTION pg_temp.outcome(statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    v tiergate.violation;
BEGIN
    EXECUTE statement;
    RETURN 'ok';
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS v.state = RETURNED_SQLSTATE, v.detail = PG_EXCEPTION_DETAIL, v.pointer = COLUMN_NAME, v.message = MESSAGE_TEXT;
    RETURN rtrim(concat_ws(' ', v.state, CASE WHEN v.state LIKE 'TG%' THEN v.detail || ' ' || v.pointer ELSE v.message END));
END
$$;
-- a REST call, as a token of the tenant or as admin
CREATE FUNCTION pg_temp.call(function text, path text[], body jsonb DEFAULT NULL, scope text DEFAULT 'admin') RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    r tiergate_api.response;
    v tiergate.violation;
BEGIN
    PERFORM set_config('tiergate.scope', scope, true);
    EXECUTE format('SELECT (r).* FROM tiergate_api.%I($1, ''{}'', $2) r', function) INTO r USING path, body;
    PERFORM set_config('tiergate.scope', '', true);
    RETURN r.status;
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS v.state = RETURNED_SQLSTATE, v.detail = PG_EXCEPTION_DETAIL, v.pointer = COLUMN_NAME, v.message = MESSAGE_TEXT;
    RETURN rtrim(concat_ws(' ', v.state, CASE WHEN v.state LIKE 'TG%' THEN v.detail || ' ' || v.pointer ELSE v.message END));
END
$$;
CREATE FUNCTION pg_temp.shown(function text, path text[]) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    r text;
BEGIN
    EXECUTE format('SELECT (r).body FROM tiergate_api.%I($1, ''{}'', NULL) r', function) INTO r USING path;
    RETURN r;
END
$$;
CREATE FUNCTION pg_temp.document(kind text, name text) RETURNS jsonb LANGUAGE sql AS $$
    SELECT w.document::jsonb FROM tiergate.watch_list('node-all') w WHERE w.kind = $1 AND w.name = $2
$$;
-- kinds and names that changed since the last call
CREATE TEMP TABLE seen (revision bigint);
INSERT INTO seen SELECT revision FROM tiergate.registry_state();
CREATE FUNCTION pg_temp.news() RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    told text;
BEGIN
    SELECT string_agg(CASE WHEN w.document IS NULL THEN '-' ELSE '' END || replace(w.kind, 'mesh_', '') || ':' || w.name, ' ' ORDER BY w.kind, w.name)
      INTO told FROM seen s, tiergate.watch_since(s.revision, 1000, tiergate.mesh_kinds()) w;
    UPDATE seen SET revision = (SELECT r.revision FROM tiergate.registry_state() r);
    RETURN told;
END
$$;

-- who is in the mesh
SELECT tiergate.create_tenant('acme', tier => 'dedicated');
SELECT tiergate.create_tenant('beta');
SELECT tiergate.create_tenant('gamma');
SELECT results_eq($$ SELECT tenant, name FROM tiergate.mesh_services $$, $$ VALUES ('acme' COLLATE "C", 'gateway' COLLATE "C") $$, 'a dedicated tenant is in the mesh, as service gateway');
SELECT is(pg_temp.news(), 'service:acme/gateway tenant:acme', 'which is news');
SELECT is((SELECT (ipv4, ipv6, ports)::text FROM tiergate.mesh_services WHERE name = 'gateway'), '(,,[])', 'without an address');
SELECT tiergate.set_tier('beta', 'dedicated');
SELECT is(pg_temp.news(), 'service:beta/gateway tenant:beta', 'one that becomes dedicated is, too');
SELECT tiergate.set_tier('beta', 'vcluster');
SELECT is((SELECT count(*) FROM tiergate.mesh_tenants), 2::bigint, 'and stays when it goes back');

-- nodes
SELECT is(pg_temp.outcome(s), expected, s) FROM (VALUES
    ($$ SELECT tiergate.mesh_put_node('a', '{10.9.0.1}', '{acme}', '{10.10.1.0/24}') $$, 'ok'),
    ($$ SELECT tiergate.mesh_put_node('all', '{10.9.0.3,fd00::3}', '{*}') $$, 'ok'),
    ($$ SELECT tiergate.mesh_put_node('b', '{10.9.0.1}', '{acme}') $$, '23505 duplicate key value violates unique constraint "mesh_hosts_pkey"'),
    ($$ SELECT tiergate.mesh_put_node('b', '{10.9.0.2}', '{acme,acme}') $$, 'TG422 unknown-tenant /tenants'),
    ($$ SELECT tiergate.mesh_put_node('b', '{10.9.0.2}', '{nobody}') $$, 'TG422 unknown-tenant /tenants'),
    ($$ SELECT tiergate.mesh_put_node('b', '{10.9.0.2}', '{*,acme}') $$, 'TG422 unknown-tenant /tenants'),
    ($$ SELECT tiergate.mesh_put_node('b', '{::ffff:10.9.0.1}') $$, 'TG422 invalid-address /addresses'),
    ($$ SELECT tiergate.mesh_put_node('b', '{10.9.0.0/24}') $$, 'TG422 invalid-address /addresses'),
    ($$ SELECT tiergate.mesh_put_node('b', '{10.9.0.2,10.9.0.2}') $$, 'TG422 invalid-address /addresses'),
    ($$ SELECT tiergate.mesh_put_node('b', '{240.64.0.1}') $$, 'TG422 invalid-address /addresses'),
    ($$ SELECT tiergate.mesh_put_node('b', '{224.0.0.1}') $$, 'TG422 invalid-address /addresses'),
    ($$ SELECT tiergate.mesh_put_node('b', workload_nets => '{10.10.0.0/16}') $$, 'TG409 network-taken /workload_nets'),
    ($$ SELECT tiergate.mesh_put_node('b', workload_nets => '{240.0.0.0/4}') $$, 'TG422 invalid-network /workload_nets'),
    ($$ SELECT tiergate.mesh_put_node('b', workload_nets => '{127.0.0.0/24}') $$, 'TG422 invalid-network /workload_nets'),
    ($$ SELECT tiergate.mesh_put_node('B') $$, 'TG422 invalid-name /name'),
    ($$ SELECT tiergate.mesh_put_node(repeat('b', 59)) $$, 'TG422 invalid-name /name'),
    ($$ UPDATE tiergate.mesh_nodes SET name = 'c' WHERE name = 'a' $$, 'TG422 name-immutable /name'),
    ($$ INSERT INTO tiergate.gateways (name) VALUES ('node-x') $$, 'TG422 reserved-name /name'),
    ($$ INSERT INTO tiergate.gateways (name, kind) VALUES ('x', 'agent') $$, 'TG422 invalid-gateway /kind'),
    ($$ SELECT tiergate.gateway_ack('node-x', 'b', 1, '{"state": "live"}') $$, 'TG422 reserved-name /name'),
    ($$ DELETE FROM tiergate.gateways WHERE name = 'node-a' $$, 'TG409 gateway-managed'),
    ($$ UPDATE tiergate.gateways SET kind = 'shared' WHERE name = 'node-a' $$, 'TG409 gateway-managed'),
    ($$ SELECT tiergate.mesh_drop_node('zz') $$, 'TG404 unknown-node')) v (s, expected);
SELECT is(pg_temp.news(), 'agent:node-a agent:node-all node:a node:all', 'nodes and their agents are news');
SELECT is((SELECT kind FROM tiergate.gateways WHERE name = 'node-a'), 'agent', 'an agent is a gateway');
SELECT is(tiergate.live_shared_gateways(), '{}', 'which is no shared one');

-- services
SELECT is(pg_temp.outcome(s), expected, s) FROM (VALUES
    ($$ SELECT * FROM tiergate.mesh_put_service('acme', 'orders', 80) $$, 'ok'),
    ($$ SELECT * FROM tiergate.mesh_put_service('acme', 'orders', 53, 'udp') $$, 'ok'),
    ($$ SELECT * FROM tiergate.mesh_put_service('acme', 'orders', 80) $$, 'TG422 invalid-ports /ports'),
    ($$ SELECT * FROM tiergate.mesh_put_service('acme', 'orders', 70000) $$, 'TG422 invalid-ports /ports'),
    ($$ SELECT * FROM tiergate.mesh_put_service('acme', 'orders', 81, 'sctp') $$, 'TG422 invalid-ports /ports'),
    ($$ SELECT * FROM tiergate.mesh_put_service('acme', 'Orders', 80) $$, 'TG422 invalid-label /name'),
    ($$ SELECT * FROM tiergate.mesh_put_service('acme', 'gateway', 80) $$, 'TG422 reserved-name /name'),
    ($$ SELECT * FROM tiergate.mesh_put_service('nobody', 'orders', 80) $$, 'TG404 unknown-tenant'),
    ($$ SELECT * FROM tiergate.mesh_put_service('gamma', 'web', 80) $$, 'ok'),
    ($$ SELECT tiergate.mesh_set_limit('acme', 'orders', burst => 5) $$, 'TG422 invalid-limits /limits'),
    ($$ SELECT tiergate.mesh_set_limit('acme', 'orders', 0) $$, 'TG422 invalid-limits /limits'),
    ($$ SELECT tiergate.mesh_set_limit('acme', 'orders', 10, 5, 7) $$, 'ok'),
    ($$ UPDATE tiergate.mesh_services SET health = '{"type": "http"}' WHERE name = 'orders' $$, 'TG422 invalid-health /health'),
    ($$ UPDATE tiergate.mesh_services SET health = '{"type": "tcp", "path": "/x"}' WHERE name = 'orders' $$, 'TG422 invalid-health /health'),
    ($$ UPDATE tiergate.mesh_services SET health = '{"type": "tcp", "rise": 0}' WHERE name = 'orders' $$, 'TG422 invalid-health /health'),
    ($$ UPDATE tiergate.mesh_services SET health = '{"type": "http", "path": "/a b"}' WHERE name = 'orders' $$, 'TG422 invalid-health /health'),
    ($$ UPDATE tiergate.mesh_services SET health = '{"type": "http", "path": "/healthz"}' WHERE name = 'orders' $$, 'ok'),
    ($$ UPDATE tiergate.mesh_services SET ipv4 = '240.64.0.77' WHERE name = 'orders' $$, 'TG422 address-observed /addresses'),
    ($$ UPDATE tiergate.mesh_services SET number = DEFAULT WHERE name = 'orders' $$, 'TG422 name-immutable /name'),
    ($$ INSERT INTO tiergate.mesh_services (tenant, name, ipv4) VALUES ('acme', 'x', '240.64.0.1') $$, 'TG422 address-observed /addresses'),
    ($$ TRUNCATE tiergate.mesh_services CASCADE $$, 'TG403 truncate-refused'),
    ($$ SELECT tiergate.mesh_drop_service('acme', 'gateway') $$, 'TG409 service-in-use')) v (s, expected);
SELECT is(pg_temp.document('mesh_service', 'acme/orders') - '{id,revision,number,tenant_number}'::text[], '{"name": "acme/orders", "tenant": "acme",
    "addresses": ["240.64.0.1", "fd74:6765::1"], "ports": [{"port": 80, "protocol": "tcp"}, {"port": 53, "protocol": "udp"}],
    "limits": {"connections_per_second": 10, "burst": 5, "open_connections": 7}, "endpoints": [],
    "health": {"type": "http", "path": "/healthz", "interval_ms": 1000, "timeout_ms": 500, "rise": 2, "fall": 3}}', 'what agents get of a service');
SELECT pg_temp.news();

-- endpoints
SELECT is(pg_temp.outcome(s), expected, s) FROM (VALUES
    ($$ SELECT tiergate.mesh_set_endpoint('acme', 'orders', '10.2.0.1', 8080) $$, 'ok'),
    ($$ SELECT tiergate.mesh_set_endpoint('acme', 'orders', '10.2.0.1', 8080, weight => 10) $$, 'ok'),
    ($$ SELECT tiergate.mesh_set_endpoint('acme', 'orders', '10.2.0.1', 5353, service_port => 53, node => 'a') $$, 'ok'),
    ($$ SELECT tiergate.mesh_set_endpoint('gamma', 'web', '10.2.0.1', 8080) $$, '23505 duplicate key value violates unique constraint "mesh_endpoints_tcp"'),
    ($$ SELECT tiergate.mesh_set_endpoint('gamma', 'web', '10.2.0.1', 5353) $$, 'ok'),
    ($$ SELECT tiergate.mesh_set_endpoint('gamma', 'web', '10.2.0.2', 80, node => 'a') $$, 'TG422 tenant-not-assigned /node'),
    ($$ SELECT tiergate.mesh_set_endpoint('gamma', 'web', '10.2.0.2', 80, node => 'zz') $$, '23503 insert or update on table "mesh_endpoints" violates foreign key constraint "mesh_endpoints_node_fkey"'),
    ($$ SELECT tiergate.mesh_set_endpoint('acme', 'orders', '10.2.0.2', 0) $$, 'TG422 out-of-range /port'),
    ($$ SELECT tiergate.mesh_set_endpoint('acme', 'orders', '10.2.0.2', 80, weight => 1001) $$, 'TG422 out-of-range /weight'),
    ($$ SELECT tiergate.mesh_set_endpoint('acme', 'orders', '10.2.0.2', 80, service_port => 81) $$, 'TG422 unknown-port /service_port'),
    ($$ SELECT tiergate.mesh_set_endpoint('acme', 'gateway', '10.2.0.2', 80) $$, 'TG422 unknown-port /service_port'),
    ($$ SELECT tiergate.mesh_set_endpoint('acme', 'orders', '::ffff:10.2.0.1', 8080) $$, 'TG422 invalid-address /address'),
    ($$ SELECT tiergate.mesh_set_endpoint('acme', 'orders', '10.2.0.0/24', 8080) $$, 'TG422 invalid-address /address'),
    ($$ SELECT tiergate.mesh_set_endpoint('acme', 'orders', '0.0.0.0', 8080) $$, 'TG422 invalid-address /address'),
    ($$ SELECT tiergate.mesh_set_endpoint('acme', 'orders', '240.64.0.1', 8080) $$, 'TG422 invalid-address /address'),
    ($$ SELECT tiergate.mesh_set_endpoint('acme', 'orders', 'fe80::1', 8080) $$, 'TG422 invalid-address /address'),
    ($$ SELECT tiergate.mesh_set_endpoint('acme', 'nope', '10.2.0.2', 80) $$, 'TG404 unknown-service'),
    ($$ UPDATE tiergate.mesh_endpoints SET address = '10.2.0.9' $$, 'TG422 name-immutable /name'),
    ($$ UPDATE tiergate.mesh_services SET ports = '[{"port": 80, "protocol": "tcp"}]' WHERE name = 'orders' $$, 'TG409 port-in-use /ports'),
    ($$ UPDATE tiergate.mesh_services SET ports = '[{"port": 80, "protocol": "tcp"}, {"port": 80, "protocol": "udp"}]' WHERE name = 'web' $$,
     '23505 duplicate key value violates unique constraint "mesh_endpoints_udp"'),
    ($$ SELECT tiergate.mesh_drop_endpoint('acme', 'orders', '10.2.0.7', 80) $$, 'TG404 unknown-endpoint')) v (s, expected);
SELECT is(pg_temp.news(), 'service:acme/orders service:gamma/web', 'endpoints are news of their service');
SELECT is(pg_temp.document('mesh_service', 'acme/orders') #- '{endpoints,0,id}' #- '{endpoints,1,id}' -> 'endpoints', '[
    {"address": "10.2.0.1", "port": 8080, "service_port": 80, "weight": 10, "healthy": true},
    {"address": "10.2.0.1", "port": 5353, "service_port": 53, "weight": 100, "healthy": true, "node": "a"}]', 'and of what agents get');
SELECT is((SELECT count(*) FROM tiergate.audit WHERE object = 'mesh_endpoints' AND name = 'orders/10.2.0.1/8080' AND action = 'update' AND new = '{"weight": 10}'),
          1::bigint, 'a change is audited');

-- workloads
SELECT is(pg_temp.outcome(s), expected, s) FROM (VALUES
    ($$ INSERT INTO tiergate.mesh_workloads (tenant, name, service, node, cgroup) VALUES ('acme', 'w1', 'orders', 'a', '/x/y') $$, 'ok'),
    ($$ INSERT INTO tiergate.mesh_workloads (tenant, name, service, node, cgroup) VALUES ('acme', 'w2', 'orders', 'a', 'x/y') $$, '23505 duplicate key value violates unique constraint "mesh_workloads_cgroup"'),
    ($$ INSERT INTO tiergate.mesh_workloads (tenant, name, service, node, addresses) VALUES ('acme', 'w2', 'orders', 'a', '{10.2.0.1}') $$, 'ok'),
    ($$ INSERT INTO tiergate.mesh_workloads (tenant, name, service, node, addresses) VALUES ('gamma', 'w2', 'web', 'all', '{10.2.0.1}') $$, '23505 duplicate key value violates unique constraint "mesh_hosts_pkey"'),
    ($$ INSERT INTO tiergate.mesh_workloads (tenant, name, service, node, addresses) VALUES ('gamma', 'w2', 'web', 'all', '{10.9.0.1}') $$, '23505 duplicate key value violates unique constraint "mesh_hosts_pkey"'),
    ($$ INSERT INTO tiergate.mesh_workloads (tenant, name, service, node, cgroup) VALUES ('gamma', 'w3', 'web', 'a', 'x/z') $$, 'TG422 tenant-not-assigned /node'),
    ($$ INSERT INTO tiergate.mesh_workloads (tenant, name, service, node, cgroup) VALUES ('gamma', 'w3', 'web', 'all', 'x/y') $$, 'ok'),
    ($$ INSERT INTO tiergate.mesh_workloads (tenant, name, service, node, cgroup) VALUES ('acme', 'w4', 'nope', 'a', 'x/4') $$, '23503 insert or update on table "mesh_workloads" violates foreign key constraint "mesh_workloads_service_fkey"'),
    ($$ INSERT INTO tiergate.mesh_workloads (tenant, name, service, node, cgroup) VALUES ('acme', 'w4', 'orders', 'a', '../x') $$, 'TG422 invalid-path /cgroup'),
    ($$ INSERT INTO tiergate.mesh_workloads (tenant, name, service, node, cgroup) VALUES ('acme', 'w4', 'orders', 'a', 'x/../y') $$, 'TG422 invalid-path /cgroup'),
    ($$ INSERT INTO tiergate.mesh_workloads (tenant, name, service, node, cgroup) VALUES ('acme', 'w4', 'orders', 'a', 'x//y') $$, 'TG422 invalid-path /cgroup'),
    ($$ INSERT INTO tiergate.mesh_workloads (tenant, name, service, node, cgroup) VALUES ('acme', 'w4', 'orders', 'a', '/') $$, 'TG422 invalid-path /cgroup'),
    ($$ INSERT INTO tiergate.mesh_workloads (tenant, name, service, node) VALUES ('acme', 'w4', 'orders', 'a') $$, 'TG422 invalid-workload /cgroup'),
    ($$ INSERT INTO tiergate.mesh_workloads (tenant, name, service, node, cgroup, pod_uid) VALUES ('acme', 'w4', 'orders', 'a', 'x', gen_random_uuid()) $$, 'TG422 invalid-workload /pod_uid'),
    ($$ SELECT tiergate.mesh_drop_service('acme', 'orders') $$, 'TG409 service-in-use'),
    ($$ SELECT tiergate.mesh_put_node('a', tenants => '{beta}') $$, 'TG409 node-in-use /tenants')) v (s, expected);
SELECT is(pg_temp.news(), 'workload:acme/w1 workload:acme/w2 workload:gamma/w3', 'workloads are news');

-- policies
SELECT is(pg_temp.outcome(s), expected, s) FROM (VALUES
    ($$ SELECT tiergate.mesh_allow('acme', 'p1', from_service => 'gateway', to_service => 'orders') $$, 'ok'),
    ($$ SELECT tiergate.mesh_allow('acme', 'p2', from_tenant => 'gamma', from_service => 'web', to_service => 'orders', protocol => 'tcp', ports => '{8080,80}', precedence => 5) $$, 'ok'),
    ($$ SELECT tiergate.mesh_deny('acme', 'p3', from_tenant => 'gamma', from_service => 'later') $$, 'ok'),
    ($$ SELECT tiergate.mesh_deny('acme', 'p4', to_cidr => '169.254.0.0/16', from_tenant => 'acme') $$, 'ok'),
    ($$ SELECT tiergate.mesh_allow('acme', 'p5', from_tenant => 'acme', from_service => 'gateway', to_tenant => 'beta') $$, 'ok'),
    ($$ SELECT tiergate.mesh_allow('acme', 'x', from_service => 'nope') $$, 'TG422 unknown-service /from/service'),
    ($$ SELECT tiergate.mesh_allow('acme', 'x', to_service => 'nope') $$, 'TG422 unknown-service /to/service'),
    ($$ SELECT tiergate.mesh_allow('acme', 'x', from_tenant => 'nobody') $$, 'TG422 unknown-tenant /from/tenant'),
    ($$ SELECT tiergate.mesh_allow('acme', 'x', to_tenant => 'nobody', to_service => 'a') $$, 'TG422 unknown-tenant /to/tenant'),
    ($$ SELECT tiergate.mesh_allow('acme', 'x', from_tenant => 'beta', to_tenant => 'gamma') $$, 'TG422 invalid-side /to'),
    ($$ SELECT tiergate.mesh_allow('acme', 'x', from_cidr => '10.0.0.0/8', to_cidr => '10.0.0.0/8') $$, 'TG422 invalid-side /to'),
    ($$ SELECT tiergate.mesh_allow('acme', 'x', from_cidr => '10.0.0.0/8', from_tenant => 'acme') $$, 'TG422 invalid-side /from'),
    ($$ SELECT tiergate.mesh_allow('acme', 'x', from_cidr => '10.0.0.1/8') $$, 'TG422 invalid-network /from/cidr'),
    ($$ SELECT tiergate.mesh_allow('acme', 'x', from_cidr => '::ffff:10.0.0.0/104') $$, 'TG422 invalid-network /from/cidr'),
    ($$ SELECT tiergate.mesh_allow('acme', 'x', protocol => 'icmp') $$, 'TG422 unknown-value /protocol'),
    ($$ SELECT tiergate.mesh_allow('acme', 'x', ports => '{1,1}') $$, 'TG422 duplicate-item /ports/1'),
    ($$ SELECT tiergate.mesh_allow('acme', 'x', ports => '{0}') $$, 'TG422 out-of-range /ports/0'),
    ($$ SELECT tiergate.mesh_allow('acme', 'x', precedence => 1000001) $$, 'TG422 out-of-range /precedence'),
    ($$ SELECT tiergate.mesh_allow('acme', 'X') $$, 'TG422 invalid-name /name'),
    ($$ UPDATE tiergate.mesh_policies SET action = 'maybe' $$, 'TG422 unknown-value /action'),
    ($$ SELECT tiergate.mesh_drop_policy('acme', 'nope') $$, 'TG404 unknown-policy')) v (s, expected);
SELECT is(pg_temp.news(), 'tenant:acme', 'policies are news of their tenant');
SELECT is((SELECT jsonb_agg(p - '{number,precedence}'::text[] ORDER BY p->>'name') FROM jsonb_array_elements(pg_temp.document('mesh_tenant', 'acme')->'policies') p),
    replace(replace(replace('[{"name": "p1", "action": "allow", "from": {"service": G}, "to": {"service": O}, "own_from": true, "own_to": true, "ports": []},
      {"name": "p2", "action": "allow", "from": {"service": W}, "to": {"service": O}, "own_from": false, "own_to": true, "protocol": "tcp", "ports": [80, 8080]},
      {"name": "p4", "action": "deny", "from": {"tenant": 1}, "to": {"cidr": "169.254.0.0/16"}, "own_from": true, "own_to": false, "ports": []},
      {"name": "p5", "action": "allow", "from": {"service": G}, "to": {"tenant": 2}, "own_from": true, "own_to": false, "ports": []}]',
      'G', (SELECT number::text FROM tiergate.mesh_services WHERE tenant = 'acme' AND name = 'gateway')),
      'O', (SELECT number::text FROM tiergate.mesh_services WHERE name = 'orders')), 'W', (SELECT number::text FROM tiergate.mesh_services WHERE name = 'web'))::jsonb,
    'numbers for names; what names nobody is left out');
SELECT * FROM tiergate.mesh_put_service('gamma', 'later', 80);
SELECT is(pg_temp.news(), 'service:gamma/later tenant:acme', 'a service that is named is news to who names it');
SELECT is(jsonb_array_length(pg_temp.document('mesh_tenant', 'acme')->'policies'), 5, 'and the policy holds');
SELECT tiergate.mesh_drop_service('gamma', 'later');
SELECT is(pg_temp.news(), '-service:gamma/later tenant:acme', 'so is one that goes');
SELECT is(pg_temp.outcome($$ SELECT tiergate.mesh_set_default('acme', from_outside => true) $$), 'ok', 'a default');
SELECT is(pg_temp.news(), 'tenant:acme', 'is news');

-- virtual addresses
SELECT tiergate.patch_mesh('acme', '{"families": "ipv4"}');
SELECT is((SELECT (host(ipv4), host(ipv6))::text FROM tiergate.mesh_services WHERE name = 'orders'), '(240.64.0.1,)', 'an address is given back');
SELECT tiergate.patch_mesh('acme', '{"families": "dual"}');
SELECT isnt((SELECT host(ipv6) FROM tiergate.mesh_services WHERE name = 'orders'), 'fd74:6765::1', 'it is not given again');
UPDATE tiergate.settings SET value = '"10.250.0.0/28"' WHERE name = 'mesh.ipv4_pool';
SELECT is(pg_temp.outcome(format('SELECT tiergate.mesh_put_service(''beta'', ''s%s'', 80)', n)), CASE WHEN n <= 14 THEN 'ok' ELSE 'TG409 pool-full' END,
          'address ' || n || ' of a pool of 14') FROM generate_series(1, 15) n;
SELECT is((SELECT count(DISTINCT ipv4) FROM tiergate.mesh_services WHERE ipv4 << '10.250.0.0/28'), 14::bigint, 'each has its own');
SELECT tiergate.mesh_drop_service('beta', 's7');
SELECT is(pg_temp.outcome($$ SELECT tiergate.mesh_put_service('beta', 's15', 80) $$), 'TG409 pool-full', 'one that was given back waits');
UPDATE tiergate.settings SET value = '"0"' WHERE name = 'mesh.quarantine';
SELECT tiergate.gateway_ack('node-a', 'b', 1, '{"state": "live"}');
SELECT is(pg_temp.outcome($$ SELECT tiergate.mesh_put_service('beta', 's15', 80) $$), 'TG409 pool-full', 'for every agent that is behind');
SELECT tiergate.gateway_ack('node-a', 'b', (SELECT revision FROM tiergate.registry_state()), '{"state": "live"}');
SELECT is(pg_temp.outcome($$ SELECT tiergate.mesh_put_service('beta', 's15', 80) $$), 'ok', 'then it is given again');
SELECT cmp_ok((SELECT number FROM tiergate.mesh_services WHERE name = 's15'), '>', (SELECT max(number) FROM tiergate.mesh_services WHERE name <> 's15'),
              'to a service whose number nobody had');
SELECT is(pg_temp.outcome(format('UPDATE tiergate.settings SET value = %L WHERE name = %L', v.value, v.name)), 'TG422 invalid-setting /value', v.name || ' ' || v.value)
  FROM (VALUES ('mesh.ipv4_pool', '"10.0.0.0/30"'), ('mesh.ipv4_pool', '"fd00::/64"'), ('mesh.ipv4_pool', '"127.0.0.0/8"'), ('mesh.ipv6_pool', '"::ffff:0:0/96"'),
               ('mesh.quarantine', '"-1 s"'), ('mesh.node_timeout', '"0"'), ('mesh.trust_domain', '"a b"'), ('mesh.trust_domain', '7')) v (name, value);
UPDATE tiergate.settings SET value = '"240.64.0.0/12"' WHERE name = 'mesh.ipv4_pool';

-- REST: bodies
SELECT is(pg_temp.call(f, path, body), expected, f || ' ' || coalesce(body::text, '')) FROM (VALUES
    ('put_mesh_service', '{acme,web}'::text[], '{"ports": [{"port": 80}], "endpoints": [{"address": "10.3.0.1", "port": 80}, {"address": "fd00::1", "port": 80, "weight": 0}]}'::jsonb, '201'),
    ('put_mesh_service', '{acme,web}', '{"ports": [{"port": 80}], "endpoints": [{"address": "10.3.0.1", "port": 80, "weight": 3}]}', '200'),
    ('put_mesh_service', '{acme,web}', '{"ports": [{"port": "80"}]}', 'TG422 wrong-type /ports/0/port'),
    ('put_mesh_service', '{acme,web}', '{"ports": [{"port": 80.5}]}', 'TG422 wrong-type /ports/0/port'),
    ('put_mesh_service', '{acme,web}', '{"ports": [{"port": 0}]}', 'TG422 out-of-range /ports/0/port'),
    ('put_mesh_service', '{acme,web}', '{"ports": [{"port": 80}, {"port": 80, "protocol": "ucp"}]}', 'TG422 unknown-value /ports/1/protocol'),
    ('put_mesh_service', '{acme,web}', '{"ports": [{"port": 80}, {"port": 80}]}', 'TG422 invalid-ports /ports'),
    ('put_mesh_service', '{acme,web}', '{"port": []}', 'TG422 unknown-field /port'),
    ('put_mesh_service', '{acme,web}', '{"limits": {"burst": 5}}', 'TG422 invalid-limits /limits'),
    ('put_mesh_service', '{acme,web}', '{"limits": {"open_connections": -5}}', 'TG422 out-of-range /limits/open_connections'),
    ('put_mesh_service', '{acme,web}', '{"health": {"path": "/"}}', 'TG422 missing-field /health/type'),
    ('put_mesh_service', '{acme,web}', '{"health": {"type": "http", "path": "x"}}', 'TG422 invalid-health /health'),
    ('put_mesh_service', '{acme,web}', '{"health": {"type": "tcp", "fall": 101}}', 'TG422 out-of-range /health/fall'),
    ('put_mesh_service', '{acme,web}', '{"ports": [{"port": 80}], "endpoints": [{"address": "10.3.0.1", "port": 80}, {"address": "10.3.0.1", "port": 80}]}', 'TG422 duplicate-item /endpoints/1'),
    ('put_mesh_service', '{acme,web}', '{"ports": [{"port": 80}], "endpoints": [{"address": "10.3.0", "port": 80}]}', 'TG422 invalid-address /endpoints/0/address'),
    ('put_mesh_service', '{acme,web}', '{"name": "other"}', 'TG422 name-mismatch /name'),
    ('put_mesh_service', '{acme,web}', '[]', 'TG422 wrong-type'),
    ('put_mesh_service', '{acme,web.x}', '{}', 'TG422 invalid-label /name'),
    ('put_mesh_service', '{nobody,web}', '{}', 'TG404 unknown-tenant'),
    ('put_mesh_service', '{acme,gateway}', '{"ports": [{"port": 80}]}', 'TG422 reserved-name /name'),
    ('put_mesh_endpoint', '{acme,web,"10.3.0.2:80"}', '{"weight": 5}', '201'),
    ('put_mesh_endpoint', '{acme,web,"[fd00::7]:80"}', NULL, '201'),
    ('put_mesh_endpoint', '{acme,web,"10.3.0.2:80"}', '{"weight": 1001}', 'TG422 out-of-range /weight'),
    ('put_mesh_endpoint', '{acme,web,"10.3.0.2:80"}', '{"service_port": 81}', 'TG422 unknown-port /service_port'),
    ('put_mesh_endpoint', '{acme,web,"10.3.0.2:80"}', '{"node": "zz"}', 'TG422 unknown-node /node'),
    ('put_mesh_endpoint', '{acme,web,"10.2.0.1:8080"}', '{}', 'TG409 endpoint-taken /address'),
    ('put_mesh_endpoint', '{acme,nope,"10.2.0.1:8080"}', '{}', 'TG404 unknown-service'),
    ('delete_mesh_endpoint', '{acme,web,"10.3.0.9:80"}', NULL, 'TG404 unknown-endpoint'),
    ('put_mesh_workload', '{acme,w9}', '{"service": "web", "node": "a", "pod_uid": "0F0F"}', 'TG422 invalid-uuid /pod_uid'),
    ('put_mesh_workload', '{acme,w9}', '{"service": "web", "node": "a"}', 'TG422 invalid-workload /cgroup'),
    ('put_mesh_workload', '{acme,w9}', '{"service": "nope", "node": "a", "cgroup": "n"}', 'TG422 unknown-service /service'),
    ('put_mesh_workload', '{acme,w9}', '{"service": "web", "node": "zz", "cgroup": "n"}', 'TG422 unknown-node /node'),
    ('put_mesh_workload', '{acme,w9}', '{"service": "web", "node": "a", "cgroup": "x/y"}', 'TG409 cgroup-taken /cgroup'),
    ('put_mesh_workload', '{acme,w9}', '{"service": "web", "node": "a", "addresses": ["10.9.0.1"]}', 'TG409 address-taken /addresses'),
    ('put_mesh_workload', '{acme,w9}', '{"node": "a", "cgroup": "x"}', 'TG422 missing-field /service'),
    ('put_mesh_workload', '{acme,w9}', '{"service": "web", "node": "a", "cgroup": "n/n", "addresses": ["10.3.0.9"]}', '201'),
    ('put_mesh_workload', '{acme,w9}', '{"service": "web", "node": "a", "cgroup": "n/n", "addresses": ["10.3.0.9", "10.3.0.8"]}', '200'),
    ('put_mesh_policy', '{acme,p9}', '{"action": "allow", "from": {"service": "gateway"}, "to": {"service": "web"}}', '201'),
    ('put_mesh_policy', '{acme,p9}', '{"from": {}}', 'TG422 missing-field /action'),
    ('put_mesh_policy', '{acme,p9}', '{"action": "allow", "from": {"cidr": "10.0.0.0/33"}}', 'TG422 invalid-network /from/cidr'),
    ('put_mesh_policy', '{acme,p9}', '{"action": "allow", "to": {"who": "x"}}', 'TG422 unknown-field /to/who'),
    ('put_mesh_policy', '{acme,p9}', '{"action": "allow", "ports": ["x"]}', 'TG422 wrong-type /ports/0'),
    ('put_mesh_node', '{n}', '{"addresses": ["10.0.0.0/8"]}', 'TG422 invalid-address /addresses/0'),
    ('put_mesh_node', '{n}', '{"workload_nets": ["10.0.0.1/8"]}', 'TG422 invalid-network /workload_nets/0'),
    ('put_mesh_node', '{n}', '{"tenants": "*"}', 'TG422 wrong-type /tenants'),
    ('put_mesh_node', '{n}', '{"addresses": ["10.9.0.9"], "tenants": ["*"]}', '201'),
    ('delete_mesh_node', '{n}', NULL, '204'),
    ('patch_mesh', '{acme}', '{"defaults": {"from_same": "yes"}}', 'TG422 wrong-type /defaults/from_same'),
    ('patch_mesh', '{acme}', '{"families": "both"}', 'TG422 unknown-value /families'),
    ('patch_mesh', '{acme}', '{"endpoint_nets": ["240.64.0.0/16"]}', 'TG422 invalid-network /endpoint_nets'),
    ('delete_mesh', '{acme}', NULL, 'TG409 mesh-in-use'),
    ('delete_mesh_service', '{acme,web}', NULL, 'TG409 service-in-use'),
    ('get_mesh_service', '{acme,nope}', NULL, 'TG404 unknown-service'),
    ('get_mesh_policy', '{acme,nope}', NULL, 'TG404 unknown-policy'),
    ('get_mesh_workload', '{acme,nope}', NULL, 'TG404 unknown-workload'),
    ('get_mesh_node', '{nope}', NULL, 'TG404 unknown-node')) v (f, path, body, expected);
SELECT is(pg_temp.call(f, path, pg_temp.shown(replace(f, 'put', 'get'), path)), '200', f || ' what get shows')
  FROM (VALUES ('put_mesh_service', '{acme,web}'::text[]), ('put_mesh_workload', '{acme,w9}'), ('put_mesh_policy', '{acme,p9}'), ('put_mesh_node', '{a}')) v (f, path);
SELECT is(pg_temp.call('patch_mesh', '{acme}', pg_temp.shown('get_mesh', '{acme}')), '200', 'patch_mesh what get shows');
SELECT pg_temp.news();
SELECT is(pg_temp.call('put_mesh_service', '{acme,web}', pg_temp.shown('get_mesh_service', '{acme,web}')), '200', 'the same again');
SELECT is(pg_temp.news(), NULL, 'is no news');

-- REST: what a token of the tenant may name
SELECT tiergate.patch_mesh('acme', '{"endpoint_nets": ["10.3.1.0/24", "10.9.0.0/16", "10.2.0.0/16"]}');
INSERT INTO tiergate.mesh_workloads (tenant, name, service, node, addresses) VALUES ('gamma', 'other', 'web', 'all', '{10.3.1.66}');
SELECT is(pg_temp.call('put_mesh_endpoint', ARRAY['acme', 'web', e], NULL, 'tenant'), expected, e) FROM (VALUES
    ('10.3.0.9:81', '201'), ('10.3.1.5:80', '201'), ('10.3.2.5:80', 'TG403 address-forbidden /address'), ('10.3.1.66:80', 'TG403 address-forbidden /address'),
    ('127.0.0.1:80', 'TG403 address-forbidden /address'), ('[fd00::9]:80', 'TG403 address-forbidden /address')) v (e, expected);
SELECT is(pg_temp.call('put_mesh_service', '{acme,web}', '{"ports": [{"port": 80}], "endpoints": [{"address": "10.3.1.5", "port": 80}, {"address": "10.77.0.1", "port": 80}]}', 'tenant'),
          'TG403 address-forbidden /endpoints/1/address', 'not by the way of the service either');
SELECT is(pg_temp.call('patch_mesh', '{acme}', '{"endpoint_nets": ["0.0.0.0/0"]}', 'tenant'), 'TG403 forbidden /endpoint_nets', 'nor by widening its networks');
SELECT is(pg_temp.call('patch_mesh', '{acme}', '{"defaults": {"from_other": true}}', 'tenant'), '200', 'its defaults are its own');

-- what an agent reports
SELECT is(pg_temp.outcome(format('SELECT tiergate.mesh_report(%L, %L)', g, r)), expected, g || ' ' || r) FROM (VALUES
    ('node-zz', '{"boot": "b"}', 'TG404 unknown-node'), ('gw', '{"boot": "b"}', 'TG404 unknown-node'), ('node-a', '{}', 'TG422 invalid-report /boot'),
    ('node-a', '[]', 'TG422 invalid-report /boot'), ('node-a', '{"boot": "b", "workloads": {}}', 'TG422 invalid-report /workloads'),
    ('node-a', '{"boot": "b", "workloads": [{"name": "x"}]}', 'TG422 invalid-report /workloads/0'),
    ('node-a', '{"boot": "b", "workloads": [{"name": "x", "tenant": "acme", "service": "web", "cgroup": "q", "addresses": ["x"]}]}', 'TG422 invalid-report /workloads/0'),
    ('node-a', '{"boot": "b", "health": [{"endpoint": 1, "healthy": true}, {"endpoint": "x", "healthy": true}]}', 'TG422 invalid-report /health/1'),
    ('node-a', '{"boot": "b", "health": 5}', 'TG422 invalid-report /health')) v (g, r, expected);
SELECT is(jsonb_array_length(tiergate.mesh_report('node-a', '{"boot": "b", "workloads": [{"name": "e1", "tenant": "acme", "service": "web", "cgroup": "e/1", "addresses": ["10.10.1.1"]},
    {"name": "e2", "tenant": "gamma", "service": "web", "cgroup": "e/2"}, {"name": "w1", "tenant": "acme", "service": "web", "cgroup": "e/3"},
    {"name": "e4", "tenant": "acme", "service": "web", "cgroup": "x/y"}, {"name": "e5", "tenant": "acme", "service": "nope", "cgroup": "e/5"},
    {"name": "e6", "tenant": "acme", "service": "web", "cgroup": "e/6", "addresses": ["10.9.0.3"]}, {"name": "e7", "tenant": "acme", "service": "web", "cgroup": "e/7"}]}')), 5, 'what it cannot have does not stop the others');
SELECT is((SELECT array_agg(name ORDER BY name)::text FROM tiergate.mesh_workloads WHERE source = 'exec'), '{e1,e7}', 'which are taken');
SELECT pg_temp.news();
SELECT tiergate.mesh_report('node-a', '{"boot": "b", "workloads": [{"name": "e1", "tenant": "acme", "service": "web", "cgroup": "e/1", "addresses": ["10.10.1.1"]}]}');
SELECT is(pg_temp.news(), '-workload:acme/e7', 'the list is the whole list, and the same is no news');
SELECT is((SELECT (service, cgroup)::text FROM tiergate.mesh_workloads WHERE name = 'w1'), '(orders,x/y)', 'one of the API stays as it was');

SELECT id AS ours FROM tiergate.mesh_endpoints WHERE node = 'a' \gset
SELECT id AS others FROM tiergate.mesh_endpoints WHERE node IS NULL AND service = 'orders' LIMIT 1 \gset
SELECT tiergate.mesh_report('node-a', format('{"boot": "b", "health": [{"endpoint": %s, "healthy": false, "reason": "connection\nrefused"}, {"endpoint": %s, "healthy": false}]}', :'ours', :'others')::jsonb);
SELECT is(pg_temp.news(), 'service:acme/orders', 'health is news');
SELECT is((SELECT (healthy, health_reason)::text FROM tiergate.mesh_endpoints WHERE id = :ours), '(f,"connection refused")', 'of endpoints of its node');
SELECT is((SELECT healthy FROM tiergate.mesh_endpoints WHERE id = :others), true, 'and of no others');
SELECT is((SELECT down FROM tiergate.mesh_status WHERE service = 'orders' AND tenant = 'acme'), '10.2.0.1:5353: connection refused', 'the view says so');
SELECT is((SELECT count(*) FROM tiergate.audit WHERE object = 'mesh_endpoints' AND new ? 'healthy' AND action = 'update'), 0::bigint, 'the audit does not');
SELECT tiergate.mesh_report('node-a', format('{"boot": "b", "health": [{"endpoint": %s, "healthy": true}]}', :'ours')::jsonb);
SELECT is((SELECT (healthy, health_reason)::text FROM tiergate.mesh_endpoints WHERE id = :ours), '(t,)', 'and back');
UPDATE tiergate.gateways SET last_seen = now() - interval '40 seconds' WHERE name = 'node-a';
SELECT is(pg_temp.shown('get_mesh_node', '{a}') #>> '{agent,state}', (SELECT state FROM tiergate.mesh_agents WHERE node = 'a'), 'REST and psql agree about a silent agent');
SELECT is(pg_temp.shown('get_mesh_node', '{a}') #>> '{agent,state}', 'away', 'which is away');
SELECT is(tiergate.mesh_nodes_away(29000), 0::bigint, 'a tenantd that has just come waits');
SELECT is(tiergate.mesh_nodes_away(31000), 1::bigint, 'then the node is away');
SELECT is((SELECT health_reason FROM tiergate.mesh_endpoints WHERE id = :ours), 'node away', 'and its endpoints down');
SELECT is(tiergate.mesh_nodes_away(31000), 0::bigint, 'once');
SELECT tiergate.gateway_ack('node-a', 'b', 1, '{"state": "live", "mesh": {"counters": {"DENY_RULE": 4, "RULE": 9, "DENY_SPOOFED": 1}, "workloads": 3,
    "fill": [{"map": "tg_services", "used": 50, "size": 100, "refused": 2}, {"map": "tg_nets", "used": 0, "size": 100}]}}');
SELECT results_eq($$ SELECT workloads, fill, refused, denied, state FROM tiergate.mesh_agents WHERE node = 'a' $$, $$ VALUES (3::bigint, 'tg_services 50%', 2::bigint, 5::bigint, 'live') $$, 'an agent and its maps');
UPDATE tiergate.gateways SET last_seen = now() - interval '29 seconds' WHERE name = 'node-a';
SELECT is((SELECT state FROM tiergate.mesh_agents WHERE node = 'a'), 'live', 'a pause is no absence');
UPDATE tiergate.gateways SET last_seen = now() - interval '31 seconds' WHERE name = 'node-a';
SELECT is((SELECT state FROM tiergate.mesh_agents WHERE node = 'a'), 'away', 'a silent agent is not live');
UPDATE tiergate.gateways SET last_seen = now() WHERE name = 'node-a';
SELECT is(pg_temp.outcome(format('SELECT tiergate.gateway_ack(''node-a'', ''b'', 1, %L)', jsonb_build_object('state', 'live', 'mesh', m::jsonb))), 'TG422 invalid-report /mesh', m)
  FROM (VALUES ('5'), ('{"counters": {"x": -1}}'), ('{"counters": {"x": "1"}}'), ('{"fill": [{"map": "x"}]}'), ('{"fill": {}}'), ('{"workloads": "many"}')) v (m);
SELECT is(pg_temp.call(f, '{node-a}', '{"boot": "b", "handover": 1}'), 'TG403 forbidden', f || ' is for gateways') FROM (VALUES ('report_usage'), ('report_handover')) v (f);

-- a tenant's own gateway
SELECT tiergate.mesh_put_node('gw-1', '{10.9.1.1}', '{acme}');
SELECT count(*) FROM tiergate.instances_claim('gw-1', 'process', 10, 20000, 20999, '127.0.0.1');
SELECT name AS instance FROM tiergate.instances WHERE tenant = 'acme' \gset
SELECT is((SELECT count(*) FROM tiergate.mesh_workloads WHERE source = 'gateway'), 0::bigint, 'no workload without a cgroup');
SELECT tiergate.instance_observed(:'instance', 'starting', 1, NULL, 1, 0, NULL, 0, 'Starting', '', 'tiergate.instances/g-1');
SELECT results_eq($$ SELECT tenant, service, node, cgroup, source FROM tiergate.mesh_workloads WHERE source = 'gateway' $$,
                  $$ VALUES ('acme' COLLATE "C", 'gateway' COLLATE "C", 'gw-1' COLLATE "C", 'tiergate.instances/g-1', 'gateway') $$, 'a gateway is a workload of service gateway');
SELECT tiergate.instance_observed(:'instance', 'ready', 1, NULL, 1, 0, NULL, 0, 'Ready', '');
SELECT is((SELECT count(*) FROM tiergate.mesh_workloads WHERE source = 'gateway'), 1::bigint, 'and stays one');
SELECT is(pg_temp.call('delete_mesh_workload', ARRAY['acme', 'gateway-' || :'instance']), 'TG409 workload-managed', 'nobody takes it away');
SELECT tiergate.mesh_put_node('gw-1', tenants => '{gamma}');
SELECT is((SELECT count(*) FROM tiergate.mesh_workloads WHERE source = 'gateway'), 0::bigint, 'but it goes with the tenant''s assignment');
SELECT tiergate.mesh_put_node('gw-1', tenants => '{*}');
SELECT is((SELECT count(*) FROM tiergate.mesh_workloads WHERE source = 'gateway'), 1::bigint, 'and comes with it');

-- a tenant goes
SELECT tiergate.mesh_allow('gamma', 'from-acme', from_tenant => 'acme', to_service => 'web');
SELECT tiergate.mesh_deny('gamma', 'from-acme', from_tenant => 'acme', to_service => 'web');
SELECT pg_temp.news();
SELECT number AS number FROM tiergate.mesh_tenants WHERE tenant = 'acme' \gset
SELECT tiergate.delete_tenant('acme');
SELECT alike(pg_temp.news(), 'agent:node-a%-service:acme/gateway -service:acme/orders -service:acme/web -tenant:acme tenant:gamma %-workload:acme/w9%', 'everything of it goes');
SELECT is((SELECT tenants FROM tiergate.mesh_nodes WHERE name = 'a'), '{}', 'nodes do not run the next of its name');
SELECT is((SELECT count(*) FROM tiergate.mesh_policies WHERE tenant = 'gamma'), 0::bigint, 'policies do not mean the next of its name');
SELECT tiergate.create_tenant('acme', tier => 'dedicated');
SELECT cmp_ok((SELECT number FROM tiergate.mesh_tenants WHERE tenant = 'acme'), '>', :number, 'whose number is another');
SELECT is(pg_temp.outcome($$ SELECT tiergate.delete_mesh('beta') $$), 'ok', 'a tenant of another tier may leave the mesh');
SELECT is(pg_temp.outcome($$ SELECT tiergate.delete_mesh('beta') $$), 'TG404 unknown-tenant', 'once');

-- history
UPDATE tiergate.changes SET at = now() - interval '25 hours';
SELECT tiergate.prune_changes();
SELECT is((SELECT array_agg(DISTINCT c.kind ORDER BY c.kind)::text FROM tiergate.changes c WHERE c.kind LIKE 'mesh%'),
          '{mesh_agent,mesh_node,mesh_service,mesh_tenant,mesh_workload}', 'of what there is the newest change stays');
SELECT is((SELECT count(*) FROM tiergate.changes c WHERE c.kind = 'mesh_service' AND NOT EXISTS (SELECT FROM tiergate.mesh_services s WHERE s.id = c.object_id)),
          0::bigint, 'of what is gone nothing');

-- the audit: of each table, each kind of change
UPDATE tiergate.mesh_nodes SET addresses = '{10.9.0.3}' WHERE name = 'all';
SELECT tiergate.mesh_drop_node('all');
SELECT results_eq($$ SELECT a.object COLLATE "default", string_agg(DISTINCT a.action, ' ' ORDER BY a.action) FROM tiergate.audit a WHERE a.object LIKE 'mesh\_%' GROUP BY 1 ORDER BY 1 $$,
    $$ SELECT 'mesh_' || t, 'delete insert update' FROM unnest('{endpoints,nodes,policies,services,tenants,workloads}'::text[]) t $$, 'every change of the mesh is audited');

SELECT * FROM finish();
