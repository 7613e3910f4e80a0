-- SPDX-License-Identifier: BSD-2-Clause
--
-- REST says of a silent agent what the view mesh_agents says.

BEGIN;

INSERT INTO tiergate.schema_migrations (version, name) VALUES (40, 'node_away');


CREATE OR REPLACE FUNCTION tiergate.mesh_node_json(n tiergate.mesh_nodes)
RETURNS jsonb
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    patience interval := (tiergate.setting('mesh.node_timeout') #>> '{}')::interval;
BEGIN
    RETURN jsonb_strip_nulls(jsonb_build_object(
        'id', n.id, 'name', n.name, 'addresses', ARRAY(SELECT host(a) FROM unnest(n.addresses) a),
        'workload_nets', n.workload_nets, 'tenants', n.tenants, 'created_at', n.created_at, 'gateway', 'node-' || n.name,
        'agent', (SELECT jsonb_build_object('state', CASE WHEN g.last_seen < now() - patience THEN 'away' ELSE g.state END,
                                            'observedRevision', g.revision, 'last_seen', g.last_seen)
                    FROM tiergate.gateways g WHERE g.name = 'node-' || n.name)));
END
$$;

COMMIT;
