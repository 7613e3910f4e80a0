-- SPDX-License-Identifier: BSD-2-Clause
--
-- \df+ tiergate.* prints every function, and in PostgreSQL 15 its source as well.
-- The view tiergate.manual has those that people call, by subject.

BEGIN;

INSERT INTO tiergate.schema_migrations (version, name) VALUES (36, 'manual');


-- docs/reference/sql.md, "Functions for operators", has the same ones
CREATE VIEW tiergate.manual AS
SELECT o.about,
       p.proname::text                                AS function,
       pg_get_function_arguments(p.oid)               AS arguments,
       coalesce(pg_get_function_result(p.oid), 'CALL') AS returns,
       obj_description(p.oid, 'pg_proc')              AS does
  FROM (VALUES
        ('tenants',  '{create_tenant,onboard,import_tenants,patch_tenant,suspend,resume,delete_tenant,put_object,tenant_document}'::text[]),
        ('quotas',   '{set_quota,drop_quota,grant_boost,revoke_boost}'),
        ('routes',   '{set_weights}'),
        ('keys',     '{create_api_key,rotate_api_key,revoke_api_key,create_token,revoke_token,grant_tenant_role}'),
        ('gateways', '{set_tier,set_forwarding,restart_gateway,evacuate_node}'),
        ('plugins',  '{set_plugin,drop_plugin,set_tier_plugin,drop_tier_plugin,allow_plugin}'),
        ('mesh',     '{mesh_enable,mesh_put_node,mesh_drop_node,mesh_put_service,mesh_drop_service,mesh_set_endpoint,mesh_drop_endpoint,'
                     'mesh_set_limit,mesh_allow,mesh_deny,mesh_drop_policy,mesh_set_default,put_mesh_object,patch_mesh,delete_mesh}'),
        ('registry', '{registry_state,prune_audit}')) o (about, functions)
  JOIN pg_proc p ON p.pronamespace = 'tiergate'::regnamespace AND p.proname = ANY (o.functions)
   AND p.oid <> 'tiergate.tenant_document(tiergate.tenants)'::regprocedure
 WHERE has_function_privilege(p.oid, 'EXECUTE')
 ORDER BY array_position('{tenants,quotas,routes,keys,gateways,plugins,mesh,registry}', o.about),
          array_position(o.functions, p.proname::text);

COMMENT ON VIEW tiergate.manual IS 'The functions that people call, with what they do: those that you may call';
COMMENT ON COLUMN tiergate.manual.about     IS 'Subject: tenants, quotas, routes, keys, gateways, plugins, mesh, registry';
COMMENT ON COLUMN tiergate.manual.function  IS 'Name; arguments can be given by name, as set_quota(''acme'', requests => 5)';
COMMENT ON COLUMN tiergate.manual.arguments IS 'Arguments; those with DEFAULT can be left out';
COMMENT ON COLUMN tiergate.manual.returns   IS 'What it returns; CALL: a procedure';
COMMENT ON COLUMN tiergate.manual.does      IS 'What it does';

GRANT SELECT ON tiergate.manual TO tiergate_admin, tiergate_quota_admin;


-- What the columns of views are, as \d+ prints it

COMMENT ON COLUMN tiergate.usage_by_minute.tenant    IS 'Tenant';
COMMENT ON COLUMN tiergate.usage_by_minute.minute    IS 'Minute in which it was reported';
COMMENT ON COLUMN tiergate.usage_by_minute.requests  IS 'Requests, upgraded connections (101) included when they have ended';
COMMENT ON COLUMN tiergate.usage_by_minute.ok        IS 'Responses of classes 2xx and 3xx';
COMMENT ON COLUMN tiergate.usage_by_minute."4xx"     IS 'Responses of class 4xx, refusals included';
COMMENT ON COLUMN tiergate.usage_by_minute."5xx"     IS 'Responses of class 5xx';
COMMENT ON COLUMN tiergate.usage_by_minute.denied    IS 'Requests refused for their credentials';
COMMENT ON COLUMN tiergate.usage_by_minute.throttled IS 'Requests refused by a quota';
COMMENT ON COLUMN tiergate.usage_by_minute.p50_ms    IS 'Half of the requests took no longer, in milliseconds; upper bound';
COMMENT ON COLUMN tiergate.usage_by_minute.p99_ms    IS '99 of 100 requests took no longer, in milliseconds; upper bound';

COMMENT ON COLUMN tiergate.usage_by_hour.tenant      IS 'Tenant';
COMMENT ON COLUMN tiergate.usage_by_hour.hour        IS 'Hour in which it was reported';
COMMENT ON COLUMN tiergate.usage_by_hour.requests    IS 'Requests, upgraded connections (101) included when they have ended';
COMMENT ON COLUMN tiergate.usage_by_hour.ok          IS 'Responses of classes 2xx and 3xx';
COMMENT ON COLUMN tiergate.usage_by_hour."4xx"       IS 'Responses of class 4xx, refusals included';
COMMENT ON COLUMN tiergate.usage_by_hour."5xx"       IS 'Responses of class 5xx';
COMMENT ON COLUMN tiergate.usage_by_hour.denied      IS 'Requests refused for their credentials';
COMMENT ON COLUMN tiergate.usage_by_hour.throttled   IS 'Requests refused by a quota';
COMMENT ON COLUMN tiergate.usage_by_hour.received    IS 'Bytes received from clients';
COMMENT ON COLUMN tiergate.usage_by_hour.sent        IS 'Bytes sent to clients';
COMMENT ON COLUMN tiergate.usage_by_hour.p50_ms      IS 'Half of the requests took no longer, in milliseconds; upper bound';
COMMENT ON COLUMN tiergate.usage_by_hour.p99_ms      IS '99 of 100 requests took no longer, in milliseconds; upper bound';

COMMENT ON COLUMN tiergate.usage_summary.tenant      IS 'Tenant';
COMMENT ON COLUMN tiergate.usage_summary.route       IS 'Route; empty for requests that matched none';
COMMENT ON COLUMN tiergate.usage_summary.requests    IS 'Requests, upgraded connections (101) included when they have ended';
COMMENT ON COLUMN tiergate.usage_summary.ok          IS 'Responses of classes 2xx and 3xx';
COMMENT ON COLUMN tiergate.usage_summary."4xx"       IS 'Responses of class 4xx, refusals included';
COMMENT ON COLUMN tiergate.usage_summary."5xx"       IS 'Responses of class 5xx';
COMMENT ON COLUMN tiergate.usage_summary.denied      IS 'Requests refused for their credentials';
COMMENT ON COLUMN tiergate.usage_summary.throttled   IS 'Requests refused by a quota';
COMMENT ON COLUMN tiergate.usage_summary.sent        IS 'Bytes sent to clients, with their unit';
COMMENT ON COLUMN tiergate.usage_summary.mean_ms     IS 'Mean time of a request, in milliseconds';
COMMENT ON COLUMN tiergate.usage_summary.p99_ms      IS '99 of 100 requests took no longer, in milliseconds; upper bound';

COMMENT ON COLUMN tiergate.quota_status.used IS
    'Used, of all gateways together; windows in seconds drain evenly, so what was used a while ago counts less';

COMMIT;
