-- SPDX-License-Identifier: BSD-2-Clause
--
-- A tenant that has the name of a deleted one is shown nothing of it.

\set QUIET 1
SELECT * FROM no_plan();

CREATE FUNCTION pg_temp.used(at timestamptz, requests bigint) RETURNS void LANGUAGE sql AS $$
    SELECT tiergate.record_usage('g1', jsonb_build_object('boot', 'b', 'time', floor(extract(epoch FROM at) * 1000),
        'counters', jsonb_build_array(jsonb_build_object('tenant', 'acme', 'route', 'all', 'requests', requests))))
$$;
CREATE FUNCTION pg_temp.flowed(at timestamptz, source text, destination text) RETURNS void LANGUAGE sql AS $$
    INSERT INTO tiergate.flows (slot, id, at, tenant, type, side, source_tenant, source_address, destination_tenant, destination_address, reason, node, lost)
    VALUES (0, nextval('tiergate.flow_id'), at, source, 'open', 'source', source, '10.0.0.1', destination, '10.0.0.2', 1, 'a', 0);
    INSERT INTO tiergate.mesh_edges
    VALUES (tiergate.ten_minutes(at), source, 's', destination, 'd', 1, 0, 0, 1, 1, 1, 1, 0, at);
    INSERT INTO tiergate.flow_losses VALUES (tiergate.ten_minutes(at), source, 'node-a', 'sampled', 1) ON CONFLICT DO NOTHING;
$$;
CREATE FUNCTION pg_temp.get(call text, tenant text DEFAULT 'acme', query jsonb DEFAULT '{}') RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    answer jsonb;
BEGIN
    EXECUTE format('SELECT (tiergate_api.%I($1, $2, NULL)).body::jsonb', call) INTO answer USING ARRAY[tenant], query;
    RETURN answer;
END
$$;

-- who had the name first
SELECT tiergate.create_tenant(t) FROM unnest('{acme,beta}'::text[]) t;
SELECT tiergate.set_tier('acme', 'dedicated');
SELECT count(*) FROM tiergate.instances_claim('n1', 'process', 9, 20000, 20009, '127.0.0.1');
SELECT tiergate.instance_ready(name) FROM tiergate.instances;
SELECT pg_temp.used(now() - interval '30 minutes', 7);
SELECT pg_temp.flowed(now() - interval '30 minutes', s, d) FROM (VALUES ('acme', 'beta'), ('beta', 'acme')) v (s, d);
UPDATE tiergate.tenants SET created_at = now() - interval '40 minutes' WHERE name IN ('acme', 'beta');
SELECT is(pg_temp.get('get_usage') #> '{items,0,requests}', '7', 'it is shown its usage');
SELECT is(jsonb_array_length(pg_temp.get('get_flows')->'items'), 2, 'its flows');
SELECT is(jsonb_array_length(pg_temp.get('get_servicemap')->'edges'), 2, 'its map');
SELECT isnt(pg_temp.get('get_tenant_audit')->'items', '[]', 'and its audit');

SELECT tiergate.delete_tenant('acme');
SELECT tiergate.create_tenant('acme');

-- who has it now, over REST
SELECT is(pg_temp.get('get_usage', 'acme', '{"from": "2020-01-01T00:00:00Z"}')->'items', '[]', 'a successor is not shown the usage');
SELECT is(pg_temp.get('get_flows')->'items', '[]', 'nor the flows');
SELECT is(pg_temp.get('get_flows')->'lost', '0', 'nor how many are lost');
SELECT is(pg_temp.get('get_servicemap', 'acme', '{"since": "1h"}')->'edges', '[]', 'nor the map');
SELECT is(jsonb_path_query_array(pg_temp.get('get_tenant_audit'), '$.items[*].action'), '["insert"]', 'the audit begins with it');
SELECT is(jsonb_array_length(pg_temp.get('get_flows', 'beta')->'items'), 2, 'the other side keeps what it had part in');
SELECT is(jsonb_array_length(pg_temp.get('get_servicemap', 'beta')->'edges'), 2, 'on the map, too');

-- and in a role of its own
DO $$ BEGIN CREATE ROLE tap_successor; EXCEPTION WHEN duplicate_object THEN NULL; END $$;
SELECT tiergate.grant_tenant_role('tap_successor', 'acme');
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA public TO PUBLIC;
SELECT count(*) AS handovers FROM tiergate.handovers WHERE tenant = 'acme' \gset
SELECT count(*) AS events FROM tiergate.gateway_events WHERE tenant = 'acme' \gset
SELECT cmp_ok(least(:handovers, :events), '>', 0, 'there are moves and events');
SET ROLE tap_successor;
SELECT is((SELECT count(*) FROM tiergate.usage), 0::bigint, 'its role does not see the usage');
SELECT is((SELECT count(*) FROM tiergate.usage_by_hour), 0::bigint, 'in no view');
SELECT is((SELECT count(id) FROM tiergate.flows), 0::bigint, 'nor the flows');
SELECT is((SELECT count(*) FROM tiergate.mesh_edges), 0::bigint, 'nor their sums');
SELECT is((SELECT count(*) FROM tiergate.flow_losses), 0::bigint, 'nor losses');
SELECT is((SELECT count(*) FROM tiergate.gateway_log), 0::bigint, 'nor what happened to the gateway');
SELECT is((SELECT count(id) FROM tiergate.handovers), 0::bigint, 'nor moves');
SELECT is((SELECT array_agg(action || ' ' || object) FROM tiergate.audit), '{insert tenants}', 'and of the audit its own');
RESET ROLE;

-- its own
SELECT pg_temp.used(now(), 10);
SELECT pg_temp.flowed(now(), 'acme', 'beta');
SELECT is(pg_temp.get('get_usage') #> '{items,0,requests}', '3', 'its own usage counts');
SELECT is(jsonb_array_length(pg_temp.get('get_flows')->'items'), 1, 'its flows');
SELECT is(jsonb_array_length(pg_temp.get('get_servicemap')->'edges'), 1, 'its map');
SET ROLE tap_successor;
SELECT is((SELECT sum(requests) FROM tiergate.usage), 3::numeric, 'for its role, too');
SELECT is((SELECT count(id) FROM tiergate.flows) + (SELECT count(*) FROM tiergate.mesh_edges) + (SELECT count(*) FROM tiergate.flow_losses), 3::bigint,
          'all of it');
RESET ROLE;
SELECT is((SELECT sum(requests) FROM tiergate.usage), 10::numeric, 'operators see both');

DROP OWNED BY tap_successor; DROP ROLE tap_successor;

SELECT * FROM finish();
