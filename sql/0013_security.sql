-- SPDX-License-Identifier: BSD-2-Clause
--
-- Who may do what.
--
--   tiergate_admin        everything an operator does, but not the audit and the
--                         revisions, which only triggers write
--   tiergate_quota_admin  four functions, and the views to see what they do
--   tiergate_reader       reads all but secrets
--   tiergate_tenant       reads what belongs to its tenants, see grant_tenant_role
--   tiergate_daemon       tenantd: calls functions, touches no table
--
-- Give them to login roles: GRANT tiergate_admin TO alice.  A later migration
-- that adds functions must revoke them from PUBLIC as is done here.

BEGIN;

INSERT INTO tiergate.schema_migrations (version, name) VALUES (13, 'security');

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA tiergate, tiergate_api FROM PUBLIC;
REVOKE ALL ON ALL PROCEDURES IN SCHEMA tiergate FROM PUBLIC;

GRANT USAGE ON SCHEMA tiergate
   TO tiergate_admin, tiergate_quota_admin, tiergate_reader, tiergate_tenant, tiergate_daemon;
GRANT USAGE ON SCHEMA tiergate_api TO tiergate_daemon;


-- Admin.  Refusals, body_fields and the like belong to the migrations.

GRANT SELECT ON ALL TABLES IN SCHEMA tiergate TO tiergate_admin;
REVOKE SELECT ON tiergate.api_tokens, tiergate.idempotency_keys FROM tiergate_admin;
GRANT SELECT (id, name, scope, tenant, gateway, certificate_sha256, certificate_subject, created_at,
              expires_at, revoked_at)
   ON tiergate.api_tokens TO tiergate_admin;
GRANT INSERT, UPDATE, DELETE
   ON tiergate.tenants, tiergate.hosts, tiergate.issuers, tiergate.consumers, tiergate.api_keys,
      tiergate.upstreams, tiergate.endpoints, tiergate.routes, tiergate.quotas, tiergate.gateways,
      tiergate.api_tokens
   TO tiergate_admin;
GRANT UPDATE ON tiergate.settings, tiergate.limits, tiergate.tiers TO tiergate_admin;
GRANT USAGE ON ALL SEQUENCES IN SCHEMA tiergate TO tiergate_admin;
REVOKE ALL ON SEQUENCE tiergate.revision FROM tiergate_admin;

GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA tiergate TO tiergate_admin;
REVOKE EXECUTE ON FUNCTION
    tiergate.ensure_usage_partition(date), tiergate.prune_changes(), tiergate.drop_old_usage(),
    tiergate.drop_old_audit(), tiergate.check_setting(),
    tiergate.housekeeping(), tiergate.record_usage(text, jsonb),
    tiergate.gateway_ack(text, text, bigint, jsonb),
    tiergate.grant_tenant_role(name, text)
    FROM tiergate_admin;


-- Quota administrators

GRANT EXECUTE ON FUNCTION
    tiergate.set_quota(text, bigint, interval, bigint, text, text, bigint, bigint, boolean, text),
    tiergate.drop_quota(text, text),
    tiergate.grant_boost(text, numeric, timestamptz),
    tiergate.revoke_boost(text)
    TO tiergate_quota_admin;
GRANT SELECT ON tiergate.quotas, tiergate.quota_usage, tiergate.quota_status TO tiergate_quota_admin;
GRANT SELECT (name, tier, state, boost_factor, boost_until) ON tiergate.tenants TO tiergate_quota_admin;
GRANT SELECT (name, last_seen) ON tiergate.gateways TO tiergate_quota_admin, tiergate_tenant;


-- Readers, of everything or of a tenant

GRANT SELECT
   ON tiergate.tiers, tiergate.tenants, tiergate.hosts, tiergate.issuers, tiergate.consumers,
      tiergate.upstreams, tiergate.endpoints, tiergate.routes, tiergate.quotas, tiergate.usage,
      tiergate.quota_usage, tiergate.audit, tiergate.quota_status, tiergate.usage_by_minute,
      tiergate.usage_by_hour, tiergate.usage_summary, tiergate.limits
   TO tiergate_reader, tiergate_tenant;
GRANT SELECT (id, tenant, consumer, hint, scopes, expires_at, created_at, rotated_to)
   ON tiergate.api_keys TO tiergate_reader, tiergate_tenant;
GRANT SELECT ON tiergate.gateways, tiergate.changes, tiergate.registry, tiergate.settings, tiergate.jwks_state,
      tiergate.schema_migrations
   TO tiergate_reader;
GRANT SELECT (id, name, scope, tenant, gateway, created_at, expires_at, revoked_at)
   ON tiergate.api_tokens TO tiergate_reader;
GRANT SELECT ON tiergate.tenant_roles TO tiergate_tenant;
GRANT EXECUTE ON FUNCTION
    tiergate.quota_window(interval), tiergate.latency_quantile(bigint[], double precision),
    tiergate.total(bigint[], bigint[]), tiergate.total(bigint[]), tiergate.unix_time(timestamptz)
    TO tiergate_reader, tiergate_tenant, tiergate_quota_admin;
GRANT EXECUTE ON FUNCTION tiergate.revision_of(text, bigint) TO tiergate_reader;


-- tenantd

GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA tiergate_api TO tiergate_daemon;
GRANT EXECUTE ON FUNCTION
    tiergate.registry_state(), tiergate.watch_list(text), tiergate.watch_since(bigint, integer),
    tiergate.gateway_ack(text, text, bigint, jsonb), tiergate.record_usage(text, jsonb),
    tiergate.due_jwks(integer), tiergate.store_jwks(bigint, jsonb), tiergate.jwks_failed(bigint, text),
    tiergate.housekeeping(), tiergate.import_tenants(jsonb)
    TO tiergate_daemon;
GRANT SELECT ON tiergate.schema_migrations TO tiergate_daemon;


-- Rows.  The owner of the tables, with whose rights the functions of tenantd
-- act, sees all; so do the operators' roles; a tenant's role sees its own.

DO $$
DECLARE
    t record;
BEGIN
    FOR t IN
        SELECT * FROM (VALUES
            ('tenants', 'name'), ('hosts', 'tenant'), ('issuers', 'tenant'), ('consumers', 'tenant'),
            ('api_keys', 'tenant'), ('upstreams', 'tenant'), ('endpoints', 'tenant'), ('routes', 'tenant'),
            ('quotas', 'tenant'), ('usage', 'tenant'), ('quota_usage', 'tenant'), ('audit', 'tenant')
        ) AS v (tab, col)
    LOOP
        EXECUTE format('ALTER TABLE tiergate.%I ENABLE ROW LEVEL SECURITY', t.tab);
        EXECUTE format('CREATE POLICY operators ON tiergate.%I
                            TO tiergate_admin, tiergate_quota_admin, tiergate_reader
                            USING (true) WITH CHECK (true)', t.tab);
        EXECUTE format('COMMENT ON POLICY operators ON tiergate.%I IS ''Operators see every tenant''', t.tab);
        EXECUTE format('CREATE POLICY own ON tiergate.%I FOR SELECT TO tiergate_tenant
                            USING (%I IN (SELECT r.tenant FROM tiergate.tenant_roles r))', t.tab, t.col);
        EXECUTE format('COMMENT ON POLICY own ON tiergate.%I IS ''A tenant''''s role sees its tenants''', t.tab);
    END LOOP;
END
$$;

ALTER TABLE tiergate.tenant_roles ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON tiergate.tenant_roles FOR SELECT TO tiergate_tenant
    USING (pg_has_role(current_user, role, 'USAGE'));
COMMENT ON POLICY own ON tiergate.tenant_roles IS 'A tenant''s role sees which tenants it may read';
CREATE POLICY operators ON tiergate.tenant_roles TO tiergate_admin USING (true) WITH CHECK (true);
COMMENT ON POLICY operators ON tiergate.tenant_roles IS 'Operators see all';

COMMIT;
