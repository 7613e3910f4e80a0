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


-- Schemas and parameters.  What a schema may say is less than JSON Schema does:
-- enough to describe arguments of directives, and nothing that takes long to judge.

CREATE FUNCTION tiergate.variables_problem(value text, names jsonb)
RETURNS text
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
AS $$
DECLARE
    used text;
BEGIN
    IF strpos(regexp_replace(value, '\$(\{[A-Za-z0-9_]+\}|[A-Za-z0-9_]+)', '', 'g'), '$') > 0 THEN
        RETURN 'has a $ that begins no variable';
    END IF;
    IF names IS NOT NULL THEN
        SELECT v[1] INTO used FROM regexp_matches(value, '\$\{?([A-Za-z0-9_]+)', 'g') v WHERE NOT names ? v[1] LIMIT 1;
        IF FOUND THEN
            RETURN format('has variable $%s, which it may not have', left(used, 100));
        END IF;
    END IF;
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION tiergate.variables_problem(text, jsonb) IS
    'What is wrong with nginx variables in a parameter, or null; names is an array of those that it may have, or null for any';


CREATE FUNCTION tiergate.parameter_problem(property jsonb, value jsonb, OUT pointer text, OUT slug text, OUT detail text)
LANGUAGE plpgsql IMMUTABLE
AS $$
DECLARE
    kind text := property->>'type';
    told text := value #>> '{}';
    item record;
BEGIN
    pointer := '';
    IF jsonb_typeof(value) <> (CASE kind WHEN 'integer' THEN 'number' ELSE kind END)
       OR kind = 'integer' AND told !~ '^-?[0-9]+$' THEN
        slug := 'wrong-type';
        detail := format('must be of type %s', kind);
    ELSIF kind = 'string' AND told ~ '[\x01-\x1f\x7f-\x9f\u2028\u2029]' THEN
        slug := 'invalid-text';
        detail := 'has control characters';
    ELSIF kind = 'string' AND strpos(told, '$') > 0 AND property->'variables' IS DISTINCT FROM 'true' THEN
        slug := 'variable-refused';
        detail := 'has a $, which nginx would take for a variable';
    ELSIF kind = 'string' AND tiergate.variables_problem(told, property->'variable_names') IS NOT NULL THEN
        slug := 'variable-refused';
        detail := tiergate.variables_problem(told, property->'variable_names');
    ELSIF kind = 'string' AND (octet_length(told) > 2000
              OR length(told) NOT BETWEEN coalesce((property->>'minLength')::integer, 0)
                                      AND coalesce((property->>'maxLength')::integer, 2000)) THEN
        slug := 'wrong-length';
        detail := format('must have from %s to %s characters', coalesce(property->>'minLength', '0'),
                         coalesce(property->>'maxLength', '2000'));
    ELSIF kind IN ('integer', 'number')
          AND (told::numeric NOT BETWEEN coalesce((property->>'minimum')::numeric, -1e15)
                                     AND coalesce((property->>'maximum')::numeric, 1e15)
               OR abs(told::numeric) >= 1e15) THEN
        slug := 'out-of-range';
        detail := format('must lie between %s and %s', coalesce(property->>'minimum', '-10^15'),
                         coalesce(property->>'maximum', '10^15'));
    ELSIF kind = 'array' AND jsonb_array_length(value) NOT BETWEEN coalesce((property->>'minItems')::integer, 1)
                                                               AND coalesce((property->>'maxItems')::integer, 100) THEN
        slug := 'wrong-length';
        detail := format('must have from %s to %s elements', coalesce(property->>'minItems', '1'),
                         coalesce(property->>'maxItems', '100'));
    ELSIF value NOT IN (SELECT jsonb_array_elements(coalesce(property->'enum', jsonb_build_array(value)))) THEN
        slug := 'unknown-value';
        detail := format('must be one of: %s', (SELECT string_agg(e #>> '{}', ', ') FROM jsonb_array_elements(property->'enum') e));
    ELSIF kind = 'string' AND told !~ (property->>'pattern') THEN
        slug := 'pattern-mismatch';
        detail := format('does not match %s', property->>'pattern');
    ELSIF kind = 'array' THEN
        FOR item IN SELECT a.ordinality - 1 AS nth, p.* FROM jsonb_array_elements(value) WITH ORDINALITY a,
                           LATERAL tiergate.parameter_problem(property->'items', a.value) p LOOP
            IF item.slug IS NOT NULL THEN
                pointer := '/' || item.nth || item.pointer;
                slug := item.slug;
                detail := item.detail;
                EXIT;
            END IF;
        END LOOP;
    END IF;
END
$$;

COMMENT ON FUNCTION tiergate.parameter_problem(jsonb, jsonb) IS
    'What a property of a plugin''s schema has against a value: JSON pointer within it, problem type, sentence; nulls if nothing';


CREATE FUNCTION tiergate.pointer_token(name text)
RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT '/' || replace(replace(left(name, 64), '~', '~0'), '/', '~1')
$$;

COMMENT ON FUNCTION tiergate.pointer_token(text) IS 'A member''s name as the next part of a JSON pointer';


CREATE FUNCTION tiergate.check_parameters(plugin text, schema jsonb, parameters jsonb, base text DEFAULT '/parameters')
RETURNS void
LANGUAGE plpgsql IMMUTABLE
AS $$
DECLARE
    known jsonb := coalesce(schema->'properties', '{}');
    m     record;
    p     record;
BEGIN
    IF jsonb_typeof(parameters) <> 'object' THEN
        PERFORM tiergate.refuse(422, 'wrong-type', base, format('parameters of plugin "%s" are no object', plugin));
    END IF;
    IF octet_length(parameters::text) > 32768 THEN
        PERFORM tiergate.refuse(422, 'wrong-length', base, format('parameters of plugin "%s" have more than 32768 bytes', plugin));
    END IF;

    FOR m IN SELECT r.value #>> '{}' AS name FROM jsonb_array_elements(coalesce(schema->'required', '[]')) r LOOP
        IF NOT parameters ? m.name THEN
            PERFORM tiergate.refuse(422, 'missing-field', base || tiergate.pointer_token(m.name),
                                    format('plugin "%s" needs parameter %s', plugin, m.name));
        END IF;
    END LOOP;

    FOR m IN SELECT e.key, e.value FROM jsonb_each(parameters) e ORDER BY e.key LOOP
        IF NOT known ? m.key THEN
            PERFORM tiergate.refuse(422, 'unknown-field', base || tiergate.pointer_token(m.key),
                format('plugin "%s" has no parameter "%s"', plugin, left(m.key, 64)),
                'its parameters are: ' || coalesce((SELECT string_agg(k, ', ' ORDER BY k) FROM jsonb_object_keys(known) k), 'none'));
        END IF;
        p := tiergate.parameter_problem(known->m.key, m.value);
        IF p.slug IS NOT NULL THEN
            PERFORM tiergate.refuse(422, p.slug, base || tiergate.pointer_token(m.key) || p.pointer,
                                    format('parameter %s%s of plugin "%s" %s', m.key, p.pointer, plugin, p.detail));
        END IF;
    END LOOP;
END
$$;

COMMENT ON FUNCTION tiergate.check_parameters(text, jsonb, jsonb, text) IS
    'Refuses parameters that a plugin''s schema does not allow, with the JSON pointer of the first';


CREATE FUNCTION tiergate.property_problem(property jsonb, of_array boolean DEFAULT false)
RETURNS text
LANGUAGE plpgsql IMMUTABLE
AS $$
DECLARE
    kind text := property->>'type';
    k    text;
    p    record;
BEGIN
    IF jsonb_typeof(property) <> 'object' OR jsonb_typeof(property->'type') IS DISTINCT FROM 'string'
       OR kind <> ALL (CASE WHEN of_array THEN '{string,integer}' ELSE '{string,integer,number,boolean,array}' END::text[]) THEN
        RETURN CASE WHEN of_array THEN 'has items of another type than string or integer'
                    ELSE 'has no type of string, integer, number, boolean or array' END;
    END IF;
    SELECT o INTO k FROM jsonb_object_keys(property) o
     WHERE o <> ALL ('{type,description,default,enum}'::text[]
                     || CASE kind WHEN 'string'  THEN '{minLength,maxLength,pattern,variables,variable_names}'
                                  WHEN 'array'   THEN '{items,minItems,maxItems}'
                                  WHEN 'boolean' THEN '{}'
                                  ELSE '{minimum,maximum}' END::text[]) LIMIT 1;
    IF FOUND THEN
        RETURN format('has "%s", which one of type %s cannot have', left(k, 64), kind);
    END IF;
    SELECT o.key INTO k FROM jsonb_each(property) o
     WHERE o.key IN ('minLength', 'maxLength', 'minItems', 'maxItems')
               AND (jsonb_typeof(o.value) <> 'number' OR o.value #>> '{}' !~ '^[0-9]{1,6}$')
        OR o.key IN ('minimum', 'maximum') AND jsonb_typeof(o.value) <> 'number'
        OR o.key = 'variables' AND jsonb_typeof(o.value) <> 'boolean'
        OR o.key IN ('pattern', 'description') AND jsonb_typeof(o.value) <> 'string'
        OR o.key IN ('enum', 'variable_names') AND (jsonb_typeof(o.value) <> 'array' OR o.value = '[]') LIMIT 1;
    IF FOUND THEN
        RETURN format('has a %s of a wrong type', k);
    END IF;
    BEGIN
        PERFORM '' ~ (property->>'pattern');
    EXCEPTION WHEN invalid_regular_expression THEN
        RETURN 'has a pattern that is no regular expression';
    END;
    IF kind = 'array' THEN
        k := coalesce(tiergate.property_problem(property->'items', true), CASE WHEN NOT property ? 'items' THEN 'has no items' END);
        IF k IS NOT NULL THEN
            RETURN k;
        END IF;
    END IF;
    IF property ? 'default' THEN
        p := tiergate.parameter_problem(property, property->'default');
        IF p.slug IS NOT NULL THEN
            RETURN format('has a default that %s', p.detail);
        END IF;
    END IF;
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION tiergate.property_problem(jsonb, boolean) IS
    'What is wrong with a property of a plugin''s schema, or null';


CREATE FUNCTION tiergate.check_schema(plugin text, schema jsonb)
RETURNS void
LANGUAGE plpgsql IMMUTABLE
AS $$
DECLARE
    m       record;
    problem text;
BEGIN
    IF jsonb_typeof(schema) <> 'object' OR schema->>'type' IS DISTINCT FROM 'object'
       OR schema - '{type,properties,required,additionalProperties,description,title,$schema}'::text[] <> '{}'
       OR jsonb_typeof(coalesce(schema->'properties', '{}')) <> 'object'
       OR jsonb_typeof(coalesce(schema->'required', '[]')) <> 'array'
       OR coalesce(schema->'additionalProperties', 'false') <> 'false'
       OR octet_length(schema::text) > 65536 THEN
        PERFORM tiergate.refuse(422, 'invalid-schema', '/schema',
            format('the schema of plugin "%s" is not that of an object with properties', plugin),
            'docs/reference/plugins.md says what a schema may be');
    END IF;
    FOR m IN SELECT p.key, p.value FROM jsonb_each(coalesce(schema->'properties', '{}')) p ORDER BY p.key LOOP
        problem := CASE WHEN m.key !~ '^[a-z][a-z0-9_]{0,62}$' THEN 'has a name other than 1 to 63 lower-case letters, digits and _'
                        ELSE tiergate.property_problem(m.value) END;
        IF problem IS NOT NULL THEN
            PERFORM tiergate.refuse(422, 'invalid-schema', '/schema/properties' || tiergate.pointer_token(m.key),
                format('property "%s" of plugin "%s" %s', left(m.key, 64), plugin, problem),
                'docs/reference/plugins.md says what a schema may be');
        END IF;
    END LOOP;
    FOR m IN SELECT r.value FROM jsonb_array_elements(coalesce(schema->'required', '[]')) r LOOP
        IF jsonb_typeof(m.value) <> 'string' OR NOT coalesce(schema->'properties' ? (m.value #>> '{}'), false) THEN
            PERFORM tiergate.refuse(422, 'invalid-schema', '/schema/required',
                format('the schema of plugin "%s" requires %s, which is none of its properties', plugin, left(m.value::text, 64)));
        END IF;
    END LOOP;
END
$$;

COMMENT ON FUNCTION tiergate.check_schema(text, jsonb) IS
    'Refuses a schema of a plugin that says more than docs/reference/plugins.md allows';


CREATE FUNCTION tiergate.check_template(plugin text, context text, template text, schema jsonb)
RETURNS void
LANGUAGE plpgsql IMMUTABLE
AS $$
DECLARE
    place   text;
    problem text;
BEGIN
    IF octet_length(template) > 16384 OR template ~ '[\x01-\x08\x0b-\x1f\x7f]' THEN
        PERFORM tiergate.refuse(422, 'invalid-template', '/snippets/' || context,
            format('template %s of plugin "%s" has control characters, or more than 16384 bytes', context, plugin));
    END IF;
    FOR place IN SELECT m[1] FROM regexp_matches(template, '\{\{(.*?)(?:\}\}|$)', 'gn') m LOOP
        problem := CASE
            WHEN NOT coalesce(schema->'properties' ? place, false) THEN 'is none of its properties'
            WHEN NOT schema->'properties'->place ? 'default' AND NOT coalesce(schema->'required' ? place, false)
                THEN 'is neither required nor has a default' END;
        IF problem IS NOT NULL THEN
            PERFORM tiergate.refuse(422, 'invalid-template', '/snippets/' || context,
                format('template %s of plugin "%s" has {{%s}}, which %s', context, plugin, left(place, 64), problem),
                'describe it in the schema');
        END IF;
    END LOOP;
END
$$;

COMMENT ON FUNCTION tiergate.check_template(text, text, text, jsonb) IS
    'Refuses a template whose places are no parameters, or may have no value; tenantd reads it further, as nginx does';


CREATE FUNCTION tiergate.check_plugin()
RETURNS trigger
LANGUAGE plpgsql
AS $$
DECLARE
    broken text := CASE
        WHEN NOT tiergate.is_name(NEW.name)       THEN 'plugins_name'
        WHEN octet_length(NEW.description) > 1000 THEN 'plugins_description'
        WHEN cardinality(NEW.modules) > 16
             OR EXISTS (SELECT FROM unnest(NEW.modules) m
                         WHERE m IS NULL OR m !~ '^[A-Za-z0-9_][A-Za-z0-9_.-]{0,100}\.so$') THEN 'plugins_modules'
        END;
BEGIN
    IF broken IS NOT NULL THEN
        PERFORM tiergate.refuse_row(broken, NEW.name);
    END IF;
    PERFORM tiergate.check_schema(NEW.name, NEW.schema);
    PERFORM tiergate.check_template(NEW.name, t.context, t.template, NEW.schema)
       FROM (VALUES ('main', NEW.main), ('http', NEW.http), ('server', NEW.server), ('location', NEW.location)) t (context, template)
      WHERE t.template IS NOT NULL;
    RETURN NEW;
END
$$;

COMMENT ON FUNCTION tiergate.check_plugin() IS 'Trigger: what a plugin may be';

CREATE TRIGGER plugins_check BEFORE INSERT OR UPDATE ON tiergate.plugins
    FOR EACH ROW EXECUTE FUNCTION tiergate.check_plugin();


CREATE FUNCTION tiergate.check_plugin_use()
RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    r record;
BEGIN
    FOR r IN SELECT x.parameters FROM tiergate.tier_plugins x WHERE x.plugin = NEW.name
             UNION ALL SELECT x.parameters FROM tiergate.tenant_plugins x WHERE x.plugin = NEW.name LOOP
        BEGIN
            PERFORM tiergate.check_parameters(NEW.name, NEW.schema, r.parameters);
        EXCEPTION WHEN SQLSTATE 'TG422' THEN
            PERFORM tiergate.refuse(409, 'plugin-in-use', '/schema',
                format('a tier or tenant has parameters that this schema of plugin "%s" does not allow: %s', NEW.name, SQLERRM),
                'change them first, or add a plugin of another name');
        END;
    END LOOP;
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION tiergate.check_plugin_use() IS 'Trigger: parameters that were given for a plugin pass its new schema';

CREATE TRIGGER plugins_check_use AFTER UPDATE OF schema ON tiergate.plugins
    FOR EACH ROW WHEN (OLD.schema <> NEW.schema) EXECUTE FUNCTION tiergate.check_plugin_use();


CREATE FUNCTION tiergate.check_plugin_choice()
RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    p tiergate.plugins;
BEGIN
    -- who changes the schema waits, or is waited for
    SELECT * INTO p FROM tiergate.plugins x WHERE x.name = NEW.plugin FOR SHARE;
    IF NOT FOUND THEN
        PERFORM tiergate.refuse_row('plugins_unknown', NEW.plugin);
    END IF;
    PERFORM tiergate.check_parameters(p.name, p.schema, NEW.parameters);
    IF TG_TABLE_NAME = 'tenant_plugins' THEN
        PERFORM FROM tiergate.tier_plugins s JOIN tiergate.tenants t ON t.tier = s.tier
          WHERE t.name = NEW.tenant AND s.plugin = NEW.plugin AND s.mandatory;
        IF FOUND THEN
            PERFORM tiergate.refuse_row('tenant_plugins_mandatory', NEW.plugin);
        END IF;
    END IF;
    RETURN NEW;
END
$$;

COMMENT ON FUNCTION tiergate.check_plugin_choice() IS
    'Trigger: a tier or tenant picks from the catalogue, with parameters that the plugin''s schema allows';

CREATE TRIGGER tier_plugins_check BEFORE INSERT OR UPDATE ON tiergate.tier_plugins
    FOR EACH ROW EXECUTE FUNCTION tiergate.check_plugin_choice();
CREATE TRIGGER tenant_plugins_check BEFORE INSERT OR UPDATE ON tiergate.tenant_plugins
    FOR EACH ROW EXECUTE FUNCTION tiergate.check_plugin_choice();


INSERT INTO tiergate.refusals (name, status, slug, pointer, detail, hint) VALUES
    ('plugins_name',               422, 'invalid-name',     '/name',        'plugin name "%s" is no name', 'use lower-case letters, digits and inner -._, at most 63'),
    ('plugins_description',        422, 'wrong-length',     '/description', 'description of plugin "%s" has more than 1000 bytes', ''),
    ('plugins_modules',            422, 'invalid-module',   '/modules',     'modules of plugin "%s" are not at most 16 file names that end in .so', 'give names without a folder, as in ngx_http_brotli_filter_module.so'),
    ('plugins_unknown',            422, 'unknown-plugin',   '',             'there is no plugin "%s"', 'list them with GET /v1/plugins'),
    ('tenant_plugins_mandatory',   409, 'plugin-mandatory', '',             'plugin "%s" is set by the tier, for all of its tenants alike', ''),
    ('tier_plugins_plugin_fkey',   409, 'plugin-in-use',    '',             'a tier has this plugin', 'take it from the tier first'),
    ('tenant_plugins_plugin_fkey', 409, 'plugin-in-use',    '',             'a tenant has this plugin', 'it has to go there first'),
    ('tier_plugins_tier_fkey',     422, 'unknown-tier',     '/tier',        'there is no tier of this name', 'list the tiers with GET /v1/tiers'),
    ('tenant_plugins_tenant_fkey', 422, 'unknown-tenant',   '/tenant',      'there is no tenant of this name', '');


-- Audit, and the revision of a tenant, of which its plugins are a part

CREATE FUNCTION tiergate.tenant_plugins_inserted()
RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
SET jit = off
AS $$
BEGIN
    INSERT INTO tiergate.changes (kind, object_id, name)
    SELECT 'tenant', t.id, t.name FROM (SELECT DISTINCT n.tenant FROM new_rows n) o
      JOIN tiergate.tenants t ON t.name = o.tenant
        ON CONFLICT DO NOTHING;
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION tiergate.tenant_plugins_inserted() IS 'Trigger: tenants that got plugins have changed';

CREATE TRIGGER tenant_plugins_inserted AFTER INSERT ON tiergate.tenant_plugins REFERENCING NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION tiergate.tenant_plugins_inserted();
CREATE TRIGGER tenant_plugins_mark_update AFTER UPDATE ON tiergate.tenant_plugins
    FOR EACH ROW WHEN (OLD.* IS DISTINCT FROM NEW.*) EXECUTE FUNCTION tiergate.mark_changed();
CREATE TRIGGER tenant_plugins_mark_delete AFTER DELETE ON tiergate.tenant_plugins
    FOR EACH ROW EXECUTE FUNCTION tiergate.mark_changed();

DO $$
DECLARE
    t record;
BEGIN
    FOR t IN
        SELECT * FROM (VALUES
            ('plugins',        '',       '{name}'),
            ('tier_plugins',   '',       '{tier,plugin}'),
            ('tenant_plugins', 'tenant', '{plugin}')
        ) AS v (tab, tenant, label)
    LOOP
        EXECUTE format('CREATE TRIGGER %1$s_audit_insert AFTER INSERT ON tiergate.%1$s REFERENCING NEW TABLE AS new_rows
                            FOR EACH STATEMENT EXECUTE FUNCTION tiergate.audit_inserted(%2$L, %3$s)', t.tab, t.tenant,
                       (SELECT string_agg(quote_literal(l), ', ') FROM unnest(t.label::text[]) l));
        EXECUTE format('CREATE TRIGGER %1$s_audit_update AFTER UPDATE ON tiergate.%1$s
                            FOR EACH ROW WHEN (OLD.* IS DISTINCT FROM NEW.*)
                            EXECUTE FUNCTION tiergate.audit_changed(%2$L, %3$s)', t.tab, t.tenant,
                       (SELECT string_agg(quote_literal(l), ', ') FROM unnest(t.label::text[]) l));
        EXECUTE format('CREATE TRIGGER %1$s_audit_delete AFTER DELETE ON tiergate.%1$s
                            FOR EACH ROW EXECUTE FUNCTION tiergate.audit_changed(%2$L, %3$s)', t.tab, t.tenant,
                       (SELECT string_agg(quote_literal(l), ', ') FROM unnest(t.label::text[]) l));
        EXECUTE format('CREATE TRIGGER %1$s_keep BEFORE TRUNCATE ON tiergate.%1$s
                            FOR EACH STATEMENT EXECUTE FUNCTION tiergate.keep_rows()', t.tab);
    END LOOP;
END
$$;


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


-- What operators call

CREATE FUNCTION tiergate.allow_plugin(name text, modules text[] DEFAULT NULL, schema jsonb DEFAULT NULL,
                                      main text DEFAULT NULL, http text DEFAULT NULL, server text DEFAULT NULL,
                                      location text DEFAULT NULL, description text DEFAULT NULL)
RETURNS void
LANGUAGE sql
AS $$
    INSERT INTO tiergate.plugins AS p (name, modules, schema, main, http, server, location, description)
    VALUES (allow_plugin.name, coalesce(allow_plugin.modules, '{}'),
            coalesce(allow_plugin.schema, '{"type": "object", "additionalProperties": false}'),
            allow_plugin.main, allow_plugin.http, allow_plugin.server, allow_plugin.location,
            coalesce(allow_plugin.description, ''))
        ON CONFLICT (name) DO UPDATE SET
           modules = EXCLUDED.modules, schema = EXCLUDED.schema, main = EXCLUDED.main, http = EXCLUDED.http,
           server = EXCLUDED.server, location = EXCLUDED.location, description = EXCLUDED.description
$$;

COMMENT ON FUNCTION tiergate.allow_plugin(text, text[], jsonb, text, text, text, text, text) IS
    'Adds a plugin to the catalogue, or replaces it: allow_plugin(''no-buffering'', location => ''proxy_buffering off;'')';


CREATE FUNCTION tiergate.set_plugin(tenant text, plugin text, parameters jsonb DEFAULT '{}', enabled boolean DEFAULT true)
RETURNS void
LANGUAGE plpgsql
AS $$
BEGIN
    PERFORM tiergate.find_tenant(tenant);
    INSERT INTO tiergate.tenant_plugins (tenant, plugin, parameters, enabled)
    VALUES (set_plugin.tenant, set_plugin.plugin, coalesce(set_plugin.parameters, '{}'), coalesce(set_plugin.enabled, true))
        ON CONFLICT ON CONSTRAINT tenant_plugins_pkey DO UPDATE SET
           parameters = EXCLUDED.parameters, enabled = EXCLUDED.enabled;
END
$$;

COMMENT ON FUNCTION tiergate.set_plugin(text, text, jsonb, boolean) IS
    'Gives the gateway of a tenant a plugin of the catalogue: set_plugin(''acme'', ''brotli'', ''{"level": 5}''); with enabled => false it goes without a plugin of its tier';


CREATE FUNCTION tiergate.drop_plugin(tenant text, plugin text)
RETURNS void
LANGUAGE plpgsql
AS $$
BEGIN
    PERFORM tiergate.find_tenant(tenant);
    DELETE FROM tiergate.tenant_plugins x WHERE x.tenant = drop_plugin.tenant AND x.plugin = drop_plugin.plugin;
    IF NOT FOUND THEN
        PERFORM tiergate.refuse(404, 'unknown-plugin', '', format('tenant "%s" has no plugin "%s" of its own', tenant, plugin),
                                'one of its tier is turned off with enabled false');
    END IF;
END
$$;

COMMENT ON FUNCTION tiergate.drop_plugin(text, text) IS
    'Takes back what a tenant has set of a plugin; one of its tier has the tier''s parameters again';


CREATE FUNCTION tiergate.set_tier_plugin(tier text, plugin text, parameters jsonb DEFAULT '{}', mandatory boolean DEFAULT false)
RETURNS void
LANGUAGE plpgsql
AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM tiergate.tiers s WHERE s.name = set_tier_plugin.tier) THEN
        PERFORM tiergate.refuse(404, 'unknown-tier', '', format('there is no tier "%s"', tier));
    END IF;
    INSERT INTO tiergate.tier_plugins (tier, plugin, parameters, mandatory)
    VALUES (set_tier_plugin.tier, set_tier_plugin.plugin, coalesce(set_tier_plugin.parameters, '{}'),
            coalesce(set_tier_plugin.mandatory, false))
        ON CONFLICT ON CONSTRAINT tier_plugins_pkey DO UPDATE SET
           parameters = EXCLUDED.parameters, mandatory = EXCLUDED.mandatory;
END
$$;

COMMENT ON FUNCTION tiergate.set_tier_plugin(text, text, jsonb, boolean) IS
    'Gives all gateways of a tier a plugin; mandatory: tenants can neither turn it off nor change it';


CREATE FUNCTION tiergate.drop_tier_plugin(tier text, plugin text)
RETURNS void
LANGUAGE plpgsql
AS $$
BEGIN
    DELETE FROM tiergate.tier_plugins x WHERE x.tier = drop_tier_plugin.tier AND x.plugin = drop_tier_plugin.plugin;
    IF NOT FOUND THEN
        PERFORM tiergate.refuse(404, 'unknown-plugin', '', format('tier "%s" has no plugin "%s"', tier, plugin));
    END IF;
END
$$;

COMMENT ON FUNCTION tiergate.drop_tier_plugin(text, text) IS 'Takes a plugin from a tier; tenants that have picked it keep it';


-- REST

CREATE FUNCTION tiergate.check_members(body jsonb, known jsonb, base text DEFAULT '')
RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE
AS $$
DECLARE
    given jsonb := coalesce(body, '{}');
    m     record;
BEGIN
    IF jsonb_typeof(given) <> 'object' THEN
        PERFORM tiergate.refuse(422, 'wrong-type', base, coalesce(nullif(base, ''), 'the body') || ' is no object');
    END IF;
    SELECT e.key, e.value, known->>e.key AS type INTO m FROM jsonb_each(given) e
     WHERE e.value <> 'null' AND known->>e.key IS DISTINCT FROM jsonb_typeof(e.value)
     ORDER BY e.key LIMIT 1;
    IF FOUND THEN
        PERFORM tiergate.refuse(422, CASE WHEN m.type IS NULL THEN 'unknown-field' ELSE 'wrong-type' END,
            base || tiergate.pointer_token(m.key),
            CASE WHEN m.type IS NULL THEN format('%s is not known here', base || tiergate.pointer_token(m.key))
                 ELSE format('%s is of type %s, but must be of type %s', base || tiergate.pointer_token(m.key),
                             jsonb_typeof(m.value), m.type) END,
            'GET /v1/openapi.yaml describes the body');
    END IF;
    RETURN given;
END
$$;

COMMENT ON FUNCTION tiergate.check_members(jsonb, jsonb, text) IS
    'A JSON body, an absent one as an empty object; refuses members that are not known, or of another type; null members count as absent';


CREATE FUNCTION tiergate.plugin_json(p tiergate.plugins)
RETURNS jsonb
LANGUAGE plpgsql STABLE
AS $$
BEGIN
    RETURN jsonb_build_object(
        'name', p.name, 'description', p.description, 'modules', to_jsonb(p.modules), 'schema', p.schema,
        'snippets', jsonb_strip_nulls(jsonb_build_object('main', p.main, 'http', p.http, 'server', p.server,
                                                         'location', p.location)),
        'created_at', p.created_at);
END
$$;

COMMENT ON FUNCTION tiergate.plugin_json(tiergate.plugins) IS 'A plugin of the catalogue as the REST API shows it';


CREATE FUNCTION tiergate.tenant_plugins_json(tenant text, tier text)
RETURNS TABLE (plugin text, item jsonb)
LANGUAGE plpgsql STABLE
AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    SELECT p.name, jsonb_build_object(
               'name', p.name, 'description', p.description,
               'source', CASE WHEN o.plugin IS NULL OR s.mandatory THEN 'tier' ELSE 'tenant' END,
               'enabled', coalesce(s.mandatory, false) OR coalesce(o.enabled, true),
               'mandatory', coalesce(s.mandatory, false),
               'parameters', CASE WHEN o.plugin IS NULL OR s.mandatory THEN s.parameters ELSE o.parameters END)
      FROM (SELECT * FROM tiergate.tier_plugins x WHERE x.tier = tenant_plugins_json.tier) s
      FULL JOIN (SELECT * FROM tiergate.tenant_plugins x WHERE x.tenant = tenant_plugins_json.tenant) o
             ON o.plugin = s.plugin
      JOIN tiergate.plugins p ON p.name = coalesce(o.plugin, s.plugin);
END
$$;

COMMENT ON FUNCTION tiergate.tenant_plugins_json(text, text) IS
    'Plugins of a tenant''s gateway as the REST API shows them, with those that it has turned off';


CREATE FUNCTION tiergate.put_plugin(name text, body jsonb)
RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
    given jsonb := tiergate.check_members(body, '{"name": "string", "description": "string", "modules": "array", "schema": "object",
                                                  "snippets": "object", "created_at": "string"}');
    texts jsonb := tiergate.check_members(given->'snippets', '{"main": "string", "http": "string", "server": "string",
                                                               "location": "string"}', '/snippets');
BEGIN
    IF given->>'name' <> name THEN
        PERFORM tiergate.refuse(422, 'name-mismatch', '/name',
            format('the body names "%s", but the path "%s"', given->>'name', name), 'leave name out of the body');
    END IF;
    PERFORM tiergate.allow_plugin(name,
        (SELECT array_agg(m.value #>> '{}' ORDER BY m.ordinality)
           FROM jsonb_array_elements(nullif(given->'modules', 'null')) WITH ORDINALITY m),
        nullif(given->'schema', 'null'), texts->>'main', texts->>'http', texts->>'server', texts->>'location',
        given->>'description');
END
$$;

COMMENT ON FUNCTION tiergate.put_plugin(text, jsonb) IS
    'Adds a plugin to the catalogue, or replaces it, from its JSON body';


CREATE FUNCTION tiergate_api.list_plugins(path text[], query jsonb, body jsonb)
RETURNS tiergate_api.response
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    most  integer := tiergate_api.page_limit(query);
    after text    := coalesce(tiergate_api.page_after(query), '');
    p     record;
BEGIN
    PERFORM tiergate_api.check_query(query, 'limit', 'cursor');
    SELECT array_agg(x.item) AS items, array_agg(x.name) AS keys INTO p
      FROM (SELECT o.name, tiergate.plugin_json(o) AS item FROM tiergate.plugins o
             WHERE o.name > after ORDER BY o.name LIMIT most + 1) x;
    RETURN tiergate_api.page(p.items, p.keys, most);
END
$$;

COMMENT ON FUNCTION tiergate_api.list_plugins(text[], jsonb, jsonb) IS 'GET /v1/plugins';


CREATE FUNCTION tiergate_api.find_plugin(name text)
RETURNS tiergate.plugins
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    p tiergate.plugins;
BEGIN
    SELECT * INTO p FROM tiergate.plugins x WHERE x.name = find_plugin.name;
    IF NOT FOUND THEN
        PERFORM tiergate.refuse(404, 'unknown-plugin', '', format('there is no plugin "%s"', name),
                                'list them with GET /v1/plugins');
    END IF;
    RETURN p;
END
$$;

COMMENT ON FUNCTION tiergate_api.find_plugin(text) IS 'The plugin of this name; refuses with 404';


CREATE FUNCTION tiergate_api.get_plugin(path text[], query jsonb, body jsonb)
RETURNS tiergate_api.response
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM tiergate_api.check_query(query);
    RETURN tiergate_api.ok(tiergate.plugin_json(tiergate_api.find_plugin(path[1])));
END
$$;

COMMENT ON FUNCTION tiergate_api.get_plugin(text[], jsonb, jsonb) IS 'GET /v1/plugins/{plugin}';


CREATE FUNCTION tiergate_api.put_plugin(path text[], query jsonb, body jsonb)
RETURNS tiergate_api.response
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    is_new boolean := NOT EXISTS (SELECT FROM tiergate.plugins p WHERE p.name = path[1]);
BEGIN
    PERFORM tiergate_api.check_query(query);
    PERFORM tiergate.put_plugin(path[1], body);
    RETURN tiergate_api.ok(tiergate.plugin_json(tiergate_api.find_plugin(path[1])), NULL,
                           CASE WHEN is_new THEN 201 ELSE 200 END);
END
$$;

COMMENT ON FUNCTION tiergate_api.put_plugin(text[], jsonb, jsonb) IS 'PUT /v1/plugins/{plugin}';


CREATE FUNCTION tiergate_api.delete_plugin(path text[], query jsonb, body jsonb)
RETURNS tiergate_api.response
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    p tiergate.plugins := tiergate_api.find_plugin(path[1]);
    v tiergate.violation;
BEGIN
    PERFORM tiergate_api.check_query(query);
    DELETE FROM tiergate.plugins x WHERE x.name = p.name;
    RETURN tiergate_api.no_content();
EXCEPTION WHEN integrity_constraint_violation THEN
    GET STACKED DIAGNOSTICS v.state = RETURNED_SQLSTATE, v.message = MESSAGE_TEXT,
                            v.constraint_name = CONSTRAINT_NAME, v.table_name = TABLE_NAME;
    PERFORM tiergate.refuse_violation(v);
END
$$;

COMMENT ON FUNCTION tiergate_api.delete_plugin(text[], jsonb, jsonb) IS 'DELETE /v1/plugins/{plugin}';


CREATE FUNCTION tiergate_api.put_tier_plugin(path text[], query jsonb, body jsonb)
RETURNS tiergate_api.response
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    given  jsonb   := tiergate.check_members(body, '{"parameters": "object", "mandatory": "boolean"}');
    is_new boolean := NOT EXISTS (SELECT FROM tiergate.tier_plugins x WHERE x.tier = path[1] AND x.plugin = path[2]);
BEGIN
    PERFORM tiergate_api.check_query(query);
    PERFORM tiergate_api.find_plugin(path[2]);
    PERFORM tiergate.set_tier_plugin(path[1], path[2], nullif(given->'parameters', 'null'), (given->>'mandatory')::boolean);
    RETURN tiergate_api.ok((SELECT jsonb_build_object('name', x.plugin, 'parameters', x.parameters, 'mandatory', x.mandatory)
                              FROM tiergate.tier_plugins x WHERE x.tier = path[1] AND x.plugin = path[2]),
                           NULL, CASE WHEN is_new THEN 201 ELSE 200 END);
END
$$;

COMMENT ON FUNCTION tiergate_api.put_tier_plugin(text[], jsonb, jsonb) IS 'PUT /v1/tiers/{tier}/plugins/{plugin}';


CREATE FUNCTION tiergate_api.delete_tier_plugin(path text[], query jsonb, body jsonb)
RETURNS tiergate_api.response
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM tiergate_api.check_query(query);
    PERFORM tiergate.drop_tier_plugin(path[1], path[2]);
    RETURN tiergate_api.no_content();
END
$$;

COMMENT ON FUNCTION tiergate_api.delete_tier_plugin(text[], jsonb, jsonb) IS 'DELETE /v1/tiers/{tier}/plugins/{plugin}';


CREATE OR REPLACE FUNCTION tiergate_api.list_tiers(path text[], query jsonb, body jsonb)
RETURNS tiergate_api.response
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM tiergate_api.check_query(query);
    RETURN tiergate_api.ok(jsonb_build_object('items',
        (SELECT coalesce(jsonb_agg(to_jsonb(t) || jsonb_build_object('plugins',
                    (SELECT coalesce(jsonb_agg(jsonb_build_object('name', x.plugin, 'parameters', x.parameters,
                                                                  'mandatory', x.mandatory) ORDER BY x.plugin), '[]')
                       FROM tiergate.tier_plugins x WHERE x.tier = t.name)) ORDER BY t.name), '[]')
           FROM tiergate.tiers t)));
END
$$;


CREATE FUNCTION tiergate_api.list_tenant_plugins(path text[], query jsonb, body jsonb)
RETURNS tiergate_api.response
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    t     tiergate.tenants := tiergate.find_tenant(path[1]);
    most  integer := tiergate_api.page_limit(query);
    after text    := coalesce(tiergate_api.page_after(query), '');
    p     record;
BEGIN
    PERFORM tiergate_api.check_query(query, 'limit', 'cursor');
    SELECT array_agg(x.item) AS items, array_agg(x.plugin) AS keys INTO p
      FROM (SELECT s.* FROM tiergate.tenant_plugins_json(t.name, t.tier) s
             WHERE s.plugin > after ORDER BY s.plugin LIMIT most + 1) x;
    RETURN tiergate_api.page(p.items, p.keys, most);
END
$$;

COMMENT ON FUNCTION tiergate_api.list_tenant_plugins(text[], jsonb, jsonb) IS 'GET /v1/tenants/{tenant}/plugins';


CREATE FUNCTION tiergate_api.shown_tenant_plugin(t tiergate.tenants, name text)
RETURNS jsonb
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    item jsonb;
BEGIN
    SELECT s.item INTO item FROM tiergate.tenant_plugins_json(t.name, t.tier) s WHERE s.plugin = shown_tenant_plugin.name;
    IF NOT FOUND THEN
        PERFORM tiergate.refuse(404, 'unknown-plugin', '', format('tenant "%s" has no plugin "%s"', t.name, name));
    END IF;
    RETURN item;
END
$$;

COMMENT ON FUNCTION tiergate_api.shown_tenant_plugin(tiergate.tenants, text) IS
    'A plugin of a tenant''s gateway as the REST API shows it; refuses with 404';


CREATE FUNCTION tiergate_api.get_tenant_plugin(path text[], query jsonb, body jsonb)
RETURNS tiergate_api.response
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    t tiergate.tenants := tiergate.find_tenant(path[1]);
BEGIN
    PERFORM tiergate_api.check_query(query);
    RETURN tiergate_api.ok(tiergate_api.shown_tenant_plugin(t, path[2]), tiergate.revision_of('tenant', t.id));
END
$$;

COMMENT ON FUNCTION tiergate_api.get_tenant_plugin(text[], jsonb, jsonb) IS 'GET /v1/tenants/{tenant}/plugins/{plugin}';


CREATE FUNCTION tiergate_api.put_tenant_plugin(path text[], query jsonb, body jsonb)
RETURNS tiergate_api.response
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    t      tiergate.tenants := tiergate.find_tenant(path[1]);
    given  jsonb   := tiergate.check_members(body, '{"parameters": "object", "enabled": "boolean"}');
    is_new boolean := NOT EXISTS (SELECT FROM tiergate.tenant_plugins x WHERE x.tenant = t.name AND x.plugin = path[2]);
BEGIN
    PERFORM tiergate_api.check_query(query);
    PERFORM tiergate_api.find_plugin(path[2]);
    PERFORM tiergate.set_plugin(t.name, path[2], nullif(given->'parameters', 'null'), (given->>'enabled')::boolean);
    RETURN tiergate_api.ok(tiergate_api.shown_tenant_plugin(t, path[2]), tiergate_api.settle('tenant', t.id),
                           CASE WHEN is_new THEN 201 ELSE 200 END);
END
$$;

COMMENT ON FUNCTION tiergate_api.put_tenant_plugin(text[], jsonb, jsonb) IS 'PUT /v1/tenants/{tenant}/plugins/{plugin}';


CREATE FUNCTION tiergate_api.delete_tenant_plugin(path text[], query jsonb, body jsonb)
RETURNS tiergate_api.response
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    t tiergate.tenants := tiergate.find_tenant(path[1]);
BEGIN
    PERFORM tiergate_api.check_query(query);
    PERFORM tiergate.drop_plugin(t.name, path[2]);
    PERFORM tiergate_api.settle('tenant', t.id);
    RETURN tiergate_api.no_content();
END
$$;

COMMENT ON FUNCTION tiergate_api.delete_tenant_plugin(text[], jsonb, jsonb) IS 'DELETE /v1/tenants/{tenant}/plugins/{plugin}';


-- The catalogue to begin with.  Files of modules are called as in the packages
-- libnginx-mod-* of Debian 12; a gateway whose node lacks one says so in its
-- conditions, and goes on as it was.

INSERT INTO tiergate.plugins (name, description, modules, schema, http, location) VALUES
    ('gzip', 'Compresses responses with gzip', '{}',
     $${"type": "object", "additionalProperties": false, "properties": {
        "level":      {"type": "integer", "minimum": 1, "maximum": 9, "default": 5, "description": "1 is fastest, 9 smallest"},
        "min_length": {"type": "integer", "minimum": 0, "maximum": 1073741824, "default": 1024, "description": "Bytes from which on it pays"},
        "types":      {"type": "array", "minItems": 1, "maxItems": 32, "description": "Media types beside text/html",
                       "items": {"type": "string", "maxLength": 100, "pattern": "^[a-z0-9][a-z0-9.+-]*/[a-z0-9.+-]+$"},
                       "default": ["text/plain", "text/css", "application/json", "application/problem+json", "application/javascript", "application/xml", "image/svg+xml"]}}}$$,
     $$gzip            on;
gzip_proxied    any;
gzip_vary       on;
gzip_comp_level {{level}};
gzip_min_length {{min_length}};
gzip_types      {{types}};
$$, NULL),
    ('brotli', 'Compresses responses with Brotli (package libnginx-mod-http-brotli-filter)', '{ngx_http_brotli_filter_module.so}',
     $${"type": "object", "additionalProperties": false, "properties": {
        "level":      {"type": "integer", "minimum": 0, "maximum": 11, "default": 5, "description": "0 is fastest, 11 smallest"},
        "min_length": {"type": "integer", "minimum": 0, "maximum": 1073741824, "default": 1024, "description": "Bytes from which on it pays"},
        "types":      {"type": "array", "minItems": 1, "maxItems": 32, "description": "Media types beside text/html",
                       "items": {"type": "string", "maxLength": 100, "pattern": "^[a-z0-9][a-z0-9.+-]*/[a-z0-9.+-]+$"},
                       "default": ["text/plain", "text/css", "application/json", "application/problem+json", "application/javascript", "application/xml", "image/svg+xml"]}}}$$,
     $$brotli            on;
brotli_comp_level {{level}};
brotli_min_length {{min_length}};
brotli_types      {{types}};
$$, NULL),
    ('security-headers', 'Response headers by which browsers protect users', '{}',
     $${"type": "object", "additionalProperties": false, "properties": {
        "strict_transport_security": {"type": "string", "maxLength": 200, "pattern": "^[A-Za-z0-9=; -]*$", "default": "max-age=31536000", "description": "Empty: not sent"},
        "content_security_policy":   {"type": "string", "maxLength": 2000, "pattern": "^[ -~]*$", "default": "", "description": "Empty: not sent"},
        "frame_options":             {"type": "string", "enum": ["DENY", "SAMEORIGIN", ""], "default": "SAMEORIGIN", "description": "Empty: not sent"},
        "referrer_policy":           {"type": "string", "default": "strict-origin-when-cross-origin", "description": "Empty: not sent",
                                      "enum": ["no-referrer", "no-referrer-when-downgrade", "origin", "origin-when-cross-origin", "same-origin",
                                               "strict-origin", "strict-origin-when-cross-origin", "unsafe-url", ""]}}}$$,
     NULL,
     $$add_header X-Content-Type-Options    nosniff always;
add_header Strict-Transport-Security {{strict_transport_security}} always;
add_header Content-Security-Policy   {{content_security_policy}} always;
add_header X-Frame-Options           {{frame_options}} always;
add_header Referrer-Policy           {{referrer_policy}} always;
$$),
    ('request-header', 'A header that is added to requests on their way to the tenant', '{}',
     $${"type": "object", "additionalProperties": false, "required": ["name", "value"], "properties": {
        "name":  {"type": "string", "maxLength": 63, "pattern": "^X-[A-Za-z0-9-]*[A-Za-z0-9]$", "description": "Name of the header, which begins with X-"},
        "value": {"type": "string", "maxLength": 1000, "pattern": "^[ -~]*$", "variables": true, "description": "May hold variables",
                  "variable_names": ["request_id", "host", "scheme", "remote_addr", "remote_port", "request_method", "request_length", "connection",
                                     "server_protocol", "ssl_protocol", "ssl_cipher", "msec", "time_iso8601", "uri", "request_uri", "args",
                                     "tenant_name", "tenant_route", "tenant_consumer", "tenant_auth_method"]}}}$$,
     NULL,
     $$proxy_set_header {{name}} {{value}};
$$),
    ('response-header', 'A header that is added to responses', '{}',
     $${"type": "object", "additionalProperties": false, "required": ["name", "value"], "properties": {
        "name":  {"type": "string", "maxLength": 63, "pattern": "^[A-Za-z][A-Za-z0-9-]*[A-Za-z0-9]$", "description": "Name of the header"},
        "value": {"type": "string", "maxLength": 1000, "pattern": "^[ -~]*$", "variables": true, "description": "May hold variables",
                  "variable_names": ["request_id", "host", "scheme", "request_method", "connection", "server_protocol", "msec", "time_iso8601",
                                     "status", "request_time", "upstream_response_time", "tenant_name", "tenant_route"]}}}$$,
     NULL,
     $$add_header {{name}} {{value}} always;
$$),
    ('headers-more', 'Sets and removes response headers, also those of the upstream (package libnginx-mod-http-headers-more-filter)',
     '{ngx_http_headers_more_filter_module.so}',
     $${"type": "object", "additionalProperties": false, "properties": {
        "set":   {"type": "array", "minItems": 1, "maxItems": 16, "default": ["Server: gateway"], "description": "Headers to set, as Name: value",
                  "items": {"type": "string", "maxLength": 500, "pattern": "^[A-Za-z][A-Za-z0-9-]*: [ -~]*$"}},
        "clear": {"type": "array", "minItems": 1, "maxItems": 16, "default": ["X-Powered-By"], "description": "Names of headers to remove",
                  "items": {"type": "string", "maxLength": 100, "pattern": "^[A-Za-z][A-Za-z0-9-]*$"}}}}$$,
     NULL,
     $$more_set_headers   {{set}};
more_clear_headers {{clear}};
$$),
    ('njs', 'Response headers by a script that the operator has put into /etc/tiergate/njs (package libnginx-mod-http-js); it exports header_filter',
     '{ngx_http_js_module.so}',
     $${"type": "object", "additionalProperties": false, "required": ["script"], "properties": {
        "script": {"type": "string", "maxLength": 64, "pattern": "^[a-z0-9][a-z0-9_-]*\\.js$", "description": "Name of the script's file"}}}$$,
     $$js_path   /etc/tiergate/njs;
js_import tiergate_plugin from {{script}};
$$,
     $$js_header_filter tiergate_plugin.header_filter;
$$),
    ('modsecurity', 'Web application firewall with the OWASP core rule set (packages libnginx-mod-http-modsecurity, modsecurity-crs)',
     '{ngx_http_modsecurity_module.so}',
     $${"type": "object", "additionalProperties": false, "properties": {
        "engine": {"type": "string", "enum": ["SecRuleEngine On", "SecRuleEngine DetectionOnly"], "default": "SecRuleEngine On",
                   "description": "DetectionOnly logs what it would refuse"}}}$$,
     NULL,
     $$modsecurity            on;
modsecurity_rules_file /etc/nginx/modsecurity_includes.conf;
modsecurity_rules      {{engine}};
$$),
    ('access-log-json', 'Access log as one JSON object a line, logs/access.json in the gateway''s prefix', '{}',
     '{"type": "object", "additionalProperties": false}',
     $$log_format tiergate_json escape=json
    '{"time":"$time_iso8601","request_id":"$request_id","client":"$remote_addr","tenant":"$tenant_name",'
    '"route":"$tenant_route","consumer":"$tenant_consumer","method":"$request_method","uri":"$uri",'
    '"status":$status,"refusal":"$tenant_refusal","bytes":$bytes_sent,"seconds":$request_time,'
    '"upstream":"$tenant_endpoint","agent":"$http_user_agent"}';
$$,
     $$access_log logs/access.json tiergate_json buffer=64k flush=1s;
$$),
    ('client-limits', 'How much and how long a client may send', '{}',
     $${"type": "object", "additionalProperties": false, "properties": {
        "body_size":    {"type": "integer", "minimum": 0, "maximum": 1099511627776, "default": 1048576, "description": "Bytes of a request body; 0: any"},
        "body_timeout": {"type": "integer", "minimum": 1, "maximum": 3600, "default": 60, "description": "Seconds between two reads of a body"},
        "send_timeout": {"type": "integer", "minimum": 1, "maximum": 3600, "default": 60, "description": "Seconds between two writes to a client"}}}$$,
     NULL,
     $$client_max_body_size {{body_size}};
client_body_timeout  {{body_timeout}};
send_timeout         {{send_timeout}};
$$),
    ('buffering', 'Whether requests and responses are buffered: off for streams', '{}',
     $${"type": "object", "additionalProperties": false, "properties": {
        "responses": {"type": "boolean", "default": true, "description": "Responses"},
        "requests":  {"type": "boolean", "default": true, "description": "Request bodies"}}}$$,
     NULL,
     $$proxy_buffering         {{responses}};
proxy_request_buffering {{requests}};
$$);

INSERT INTO tiergate.tier_plugins (tier, plugin) VALUES ('dedicated', 'gzip');


-- Who may do what, see 0013_security

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA tiergate, tiergate_api FROM PUBLIC;

GRANT SELECT ON tiergate.plugins, tiergate.tier_plugins, tiergate.tenant_plugins
   TO tiergate_admin, tiergate_reader, tiergate_tenant;
GRANT INSERT, UPDATE, DELETE ON tiergate.plugins, tiergate.tier_plugins, tiergate.tenant_plugins TO tiergate_admin;
GRANT EXECUTE ON FUNCTION tiergate.plugin_set(text, text) TO tiergate_admin, tiergate_reader, tiergate_tenant;
GRANT EXECUTE ON FUNCTION
    tiergate.allow_plugin(text, text[], jsonb, text, text, text, text, text), tiergate.put_plugin(text, jsonb),
    tiergate.set_plugin(text, text, jsonb, boolean), tiergate.drop_plugin(text, text),
    tiergate.set_tier_plugin(text, text, jsonb, boolean), tiergate.drop_tier_plugin(text, text),
    tiergate.check_members(jsonb, jsonb, text), tiergate.pointer_token(text),
    tiergate.check_schema(text, jsonb), tiergate.check_template(text, text, text, jsonb),
    tiergate.property_problem(jsonb, boolean), tiergate.parameter_problem(jsonb, jsonb),
    tiergate.variables_problem(text, jsonb), tiergate.check_parameters(text, jsonb, jsonb, text)
    TO tiergate_admin;
GRANT EXECUTE ON FUNCTION
    tiergate_api.list_plugins(text[], jsonb, jsonb), tiergate_api.get_plugin(text[], jsonb, jsonb),
    tiergate_api.put_plugin(text[], jsonb, jsonb), tiergate_api.delete_plugin(text[], jsonb, jsonb),
    tiergate_api.put_tier_plugin(text[], jsonb, jsonb), tiergate_api.delete_tier_plugin(text[], jsonb, jsonb),
    tiergate_api.list_tenant_plugins(text[], jsonb, jsonb), tiergate_api.get_tenant_plugin(text[], jsonb, jsonb),
    tiergate_api.put_tenant_plugin(text[], jsonb, jsonb), tiergate_api.delete_tenant_plugin(text[], jsonb, jsonb)
    TO tiergate_daemon;

ALTER TABLE tiergate.tenant_plugins ENABLE ROW LEVEL SECURITY;
CREATE POLICY operators ON tiergate.tenant_plugins TO tiergate_admin, tiergate_quota_admin, tiergate_reader
    USING (true) WITH CHECK (true);
COMMENT ON POLICY operators ON tiergate.tenant_plugins IS 'Operators see every tenant';
CREATE POLICY own ON tiergate.tenant_plugins FOR SELECT TO tiergate_tenant
    USING (tenant IN (SELECT r.tenant FROM tiergate.tenant_roles r));
COMMENT ON POLICY own ON tiergate.tenant_plugins IS 'A tenant''s role sees its tenants';

COMMIT;
