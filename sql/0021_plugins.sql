-- SPDX-License-Identifier: BSD-2-Clause
--
-- Plugins of dedicated gateways: which nginx modules and pieces of configuration
-- the operator allows, which of them a tier has, and which a tenant has picked.
--
-- A tenant never writes configuration.  It gives parameters, which are judged by
-- the plugin's schema here, and which tenantd puts into the operator's template
-- as nginx's own quoted strings.  docs/reference/plugins.md describes both halves.
--
-- Invariant: what is in tenant_plugins and tier_plugins has passed the schema
-- that its plugin has now; changing a schema judges them again.

BEGIN;

INSERT INTO tiergate.schema_migrations (version, name) VALUES (21, 'plugins');

CREATE TABLE tiergate.plugins (
    name        text        PRIMARY KEY COLLATE "C",
    description text        NOT NULL DEFAULT '',
    modules     text[]      NOT NULL DEFAULT '{}',
    schema      jsonb       NOT NULL DEFAULT '{"type": "object", "additionalProperties": false}',
    main        text,
    http        text,
    server      text,
    location    text,
    created_at  timestamptz NOT NULL DEFAULT now()
);

COMMENT ON TABLE  tiergate.plugins             IS 'Catalogue: what dedicated gateways may be given';
COMMENT ON COLUMN tiergate.plugins.name        IS 'Name of the plugin';
COMMENT ON COLUMN tiergate.plugins.description IS 'What it does, for whoever picks';
COMMENT ON COLUMN tiergate.plugins.modules     IS 'nginx modules that it needs, as file names in tenantd''s plugin_modules folder';
COMMENT ON COLUMN tiergate.plugins.schema      IS 'JSON schema of its parameters; docs/reference/plugins.md says which part of JSON Schema may be used';
COMMENT ON COLUMN tiergate.plugins.main        IS 'Template for nginx''s main context';
COMMENT ON COLUMN tiergate.plugins.http        IS 'Template for context http';
COMMENT ON COLUMN tiergate.plugins.server      IS 'Template for context server';
COMMENT ON COLUMN tiergate.plugins.location    IS 'Template for the location that serves the tenant';
COMMENT ON COLUMN tiergate.plugins.created_at  IS 'When it was added';


CREATE TABLE tiergate.tier_plugins (
    tier       text    NOT NULL COLLATE "C" REFERENCES tiergate.tiers ON UPDATE CASCADE ON DELETE CASCADE,
    plugin     text    NOT NULL COLLATE "C" REFERENCES tiergate.plugins,
    parameters jsonb   NOT NULL DEFAULT '{}',
    mandatory  boolean NOT NULL DEFAULT false,
    PRIMARY KEY (tier, plugin)
);

CREATE INDEX tier_plugins_plugin ON tiergate.tier_plugins (plugin);

COMMENT ON TABLE  tiergate.tier_plugins            IS 'Plugins that each gateway of a tier has';
COMMENT ON COLUMN tiergate.tier_plugins.tier       IS 'Tier';
COMMENT ON COLUMN tiergate.tier_plugins.plugin     IS 'Plugin';
COMMENT ON COLUMN tiergate.tier_plugins.parameters IS 'Its parameters, unless the tenant sets its own';
COMMENT ON COLUMN tiergate.tier_plugins.mandatory  IS 'Whether tenants may neither turn it off nor set other parameters';


CREATE TABLE tiergate.tenant_plugins (
    tenant     text    NOT NULL COLLATE "C" REFERENCES tiergate.tenants ON DELETE CASCADE,
    plugin     text    NOT NULL COLLATE "C" REFERENCES tiergate.plugins,
    parameters jsonb   NOT NULL DEFAULT '{}',
    enabled    boolean NOT NULL DEFAULT true,
    PRIMARY KEY (tenant, plugin)
);

CREATE INDEX tenant_plugins_plugin ON tiergate.tenant_plugins (plugin);

COMMENT ON TABLE  tiergate.tenant_plugins            IS 'Plugins that a tenant has picked for its gateway; they count while it is of a dedicated tier';
COMMENT ON COLUMN tiergate.tenant_plugins.tenant     IS 'Tenant';
COMMENT ON COLUMN tiergate.tenant_plugins.plugin     IS 'Plugin';
COMMENT ON COLUMN tiergate.tenant_plugins.parameters IS 'Its parameters';
COMMENT ON COLUMN tiergate.tenant_plugins.enabled    IS 'False turns off a plugin of the tier';


CREATE FUNCTION tiergate.plugin_set(tenant text, tier text)
RETURNS TABLE (plugin text, source text, parameters jsonb)
LANGUAGE plpgsql STABLE
AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    SELECT coalesce(o.plugin, s.plugin),
           CASE WHEN o.plugin IS NULL OR s.mandatory THEN 'tier' ELSE 'tenant' END,
           CASE WHEN o.plugin IS NULL OR s.mandatory THEN s.parameters ELSE o.parameters END
      FROM (SELECT * FROM tiergate.tier_plugins x WHERE x.tier = plugin_set.tier) s
      FULL JOIN (SELECT * FROM tiergate.tenant_plugins x WHERE x.tenant = plugin_set.tenant) o
             ON o.plugin = s.plugin
     WHERE o.enabled IS NOT FALSE OR s.mandatory
     ORDER BY 1;
END
$$;

COMMENT ON FUNCTION tiergate.plugin_set(text, text) IS
    'Plugins that the gateway of a tenant of this tier has: the tier''s, with the tenant''s own in place of them or beside';


-- Who may do what, see 0013_security

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA tiergate, tiergate_api FROM PUBLIC;

GRANT SELECT ON tiergate.plugins, tiergate.tier_plugins, tiergate.tenant_plugins
   TO tiergate_admin, tiergate_reader, tiergate_tenant;
GRANT INSERT, UPDATE, DELETE ON tiergate.plugins, tiergate.tier_plugins, tiergate.tenant_plugins TO tiergate_admin;
GRANT EXECUTE ON FUNCTION tiergate.plugin_set(text, text) TO tiergate_admin, tiergate_reader, tiergate_tenant;

ALTER TABLE tiergate.tenant_plugins ENABLE ROW LEVEL SECURITY;
CREATE POLICY operators ON tiergate.tenant_plugins TO tiergate_admin, tiergate_quota_admin, tiergate_reader
    USING (true) WITH CHECK (true);
COMMENT ON POLICY operators ON tiergate.tenant_plugins IS 'Operators see every tenant';
CREATE POLICY own ON tiergate.tenant_plugins FOR SELECT TO tiergate_tenant
    USING (tenant IN (SELECT r.tenant FROM tiergate.tenant_roles r));
COMMENT ON POLICY own ON tiergate.tenant_plugins IS 'A tenant''s role sees its tenants';

COMMIT;
