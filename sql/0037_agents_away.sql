-- SPDX-License-Identifier: BSD-2-Clause
--
-- An agent that is silent is not live, whatever it said last.

BEGIN;

INSERT INTO tiergate.schema_migrations (version, name) VALUES (37, 'agents_away');


CREATE OR REPLACE VIEW tiergate.mesh_agents WITH (security_invoker = true) AS
    SELECT n.name AS node, n.tenants,
           CASE WHEN g.last_seen < now() - (tiergate.setting('mesh.node_timeout') #>> '{}')::interval THEN 'away'
                ELSE g.state END AS state,
           g.revision, g.last_seen AS seen,
           (g.mesh->>'workloads')::bigint AS workloads,
           (SELECT string_agg(format('%s %s%%', f.value->>'map', round(100.0 * (f.value->>'used')::numeric / (f.value->>'size')::numeric)), ', '
                              ORDER BY (f.value->>'used')::numeric / (f.value->>'size')::numeric DESC)
              FROM jsonb_array_elements(g.mesh->'fill') f
             WHERE (f.value->>'size')::numeric > 0 AND (f.value->>'used')::numeric / (f.value->>'size')::numeric >= 0.01) AS fill,
           (SELECT sum((f.value->>'refused')::numeric) FROM jsonb_array_elements(g.mesh->'fill') f)::bigint AS refused,
           (SELECT sum(c.value::numeric) FROM jsonb_each_text(g.mesh->'counters') c
             WHERE c.key LIKE 'DENY\_%')::bigint AS denied,
           (SELECT jsonb_object_agg(c.key, c.value) FROM jsonb_each(g.mesh->'counters') c WHERE c.value <> '0') AS counters,
           nullif(jsonb_array_length(g.rejected), 0) AS rejected
      FROM tiergate.mesh_nodes n
      JOIN tiergate.gateways g ON g.name = 'node-' || n.name;

COMMENT ON COLUMN tiergate.mesh_agents.state     IS 'unknown, loading, snapshot (it does not reach tenantd), live, or away: silent for setting mesh.node_timeout';

COMMIT;
