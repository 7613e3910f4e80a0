-- SPDX-License-Identifier: BSD-2-Clause
--
-- What operators call from psql.  Each refuses an unknown tenant, is audited by
-- the tables' triggers, and reaches the gateways at commit.

BEGIN;

INSERT INTO tiergate.schema_migrations (version, name) VALUES (8, 'operators');

CREATE FUNCTION tiergate.find_tenant(tenant text)
RETURNS tiergate.tenants
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    t tiergate.tenants;
BEGIN
    SELECT * INTO t FROM tiergate.tenants x WHERE x.name = tenant;
    IF NOT FOUND THEN
        PERFORM tiergate.refuse(404, 'unknown-tenant', '', format('there is no tenant "%s"', tenant),
                                'SELECT name FROM tiergate.tenants lists them');
    END IF;
    RETURN t;
END
$$;

COMMENT ON FUNCTION tiergate.find_tenant(text) IS 'The tenant of this name; refuses with 404 if there is none';


-- Tenants

CREATE FUNCTION tiergate.create_tenant(name text, hosts text[] DEFAULT '{}', tier text DEFAULT 'vcluster',
                                       display_name text DEFAULT NULL)
RETURNS bigint
LANGUAGE plpgsql
AS $$
BEGIN
    PERFORM tiergate.onboard(jsonb_build_object('name', create_tenant.name, 'hosts', create_tenant.hosts,
                                                'tier', create_tenant.tier,
                                                'display_name', create_tenant.display_name));
    RETURN (SELECT t.id FROM tiergate.tenants t WHERE t.name = create_tenant.name);
END
$$;

COMMENT ON FUNCTION tiergate.create_tenant(text, text[], text, text) IS
    'Creates a tenant: create_tenant(''acme'', hosts => ''{acme.example.com}''); tiergate.onboard takes routes, keys and the rest as well';


CREATE FUNCTION tiergate.delete_tenant(tenant text)
RETURNS void
LANGUAGE plpgsql
AS $$
BEGIN
    PERFORM tiergate.find_tenant(tenant);
    DELETE FROM tiergate.tenants t WHERE t.name = delete_tenant.tenant;
END
$$;

COMMENT ON FUNCTION tiergate.delete_tenant(text) IS 'Deletes a tenant and all that it owns; audit and usage stay';


CREATE FUNCTION tiergate.suspend(tenant text, reason text DEFAULT NULL)
RETURNS void
LANGUAGE plpgsql
AS $$
BEGIN
    PERFORM tiergate.find_tenant(tenant);
    UPDATE tiergate.tenants t SET state = 'suspended', reason = suspend.reason WHERE t.name = suspend.tenant;
END
$$;

COMMENT ON FUNCTION tiergate.suspend(text, text) IS
    'Suspends a tenant: its requests are refused and those in flight end; the reason is shown to its clients';


CREATE FUNCTION tiergate.resume(tenant text)
RETURNS void
LANGUAGE plpgsql
AS $$
BEGIN
    PERFORM tiergate.find_tenant(tenant);
    UPDATE tiergate.tenants t SET state = 'active', reason = NULL WHERE t.name = resume.tenant;
END
$$;

COMMENT ON FUNCTION tiergate.resume(text) IS 'Ends the suspension of a tenant';


-- Quotas.  These four are all that tiergate_quota_admin may do, so they act with
-- the rights of their owner.

CREATE FUNCTION tiergate.quota_phrase(q tiergate.quotas)
RETURNS text
LANGUAGE sql STABLE
AS $$
    SELECT format('%s: %s%s%s%s (quota %s)', q.tenant,
        CASE q.metric
            WHEN 'requests'    THEN format('%s requests per %s', q.requests,
                                           CASE tiergate.quota_window(q.per) WHEN '1s' THEN 'second' WHEN '60s' THEN 'minute'
                                                WHEN '3600s' THEN 'hour' ELSE tiergate.quota_window(q.per) END)
            WHEN 'concurrency' THEN format('%s requests at a time', q.concurrency)
            ELSE                    format('%s bytes of request body', q.body_size) END,
        CASE WHEN q.consumer = '*' THEN ' for each consumer'
             WHEN q.consumer IS NOT NULL THEN format(' for consumer %s', q.consumer) END,
        CASE WHEN q.route IS NOT NULL THEN format(' on route %s', q.route) END,
        CASE WHEN q.dry_run THEN ', counted only' END,
        q.name)
$$;

COMMENT ON FUNCTION tiergate.quota_phrase(tiergate.quotas) IS 'A quota in words';


CREATE FUNCTION tiergate.set_quota(tenant text, requests bigint DEFAULT NULL, per interval DEFAULT '1 minute',
                                   burst bigint DEFAULT NULL, route text DEFAULT NULL,
                                   consumer text DEFAULT NULL, concurrency bigint DEFAULT NULL,
                                   body_size bigint DEFAULT NULL, dry_run boolean DEFAULT false,
                                   name text DEFAULT NULL)
RETURNS text
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    counted text;
    q       tiergate.quotas;
    v       tiergate.violation;
BEGIN
    PERFORM tiergate.find_tenant(tenant);
    IF num_nonnulls(requests, concurrency, body_size) <> 1 THEN
        PERFORM tiergate.refuse(422, 'invalid-quota', '', 'give one of requests, concurrency and body_size',
                                'set_quota(''acme'', requests => 5000, per => ''1 minute'')');
    END IF;
    counted := CASE WHEN requests IS NOT NULL THEN 'requests'
                    WHEN concurrency IS NOT NULL THEN 'concurrency' ELSE 'body_size' END;
    IF counted <> 'requests' THEN
        per := NULL;
    END IF;

    -- by its name if there is one, else by what it counts
    UPDATE tiergate.quotas x
       SET requests = set_quota.requests, per = set_quota.per, burst = set_quota.burst,
           concurrency = set_quota.concurrency, body_size = set_quota.body_size, metric = counted,
           route = set_quota.route, consumer = set_quota.consumer, dry_run = set_quota.dry_run
     WHERE x.tenant = set_quota.tenant AND x.name = set_quota.name
    RETURNING * INTO q;
    IF NOT FOUND THEN
        INSERT INTO tiergate.quotas AS x
            (tenant, name, route, consumer, metric, requests, per, burst, concurrency, body_size, dry_run)
        VALUES (set_quota.tenant, set_quota.name, set_quota.route, set_quota.consumer, counted,
                set_quota.requests, set_quota.per, set_quota.burst, set_quota.concurrency,
                set_quota.body_size, set_quota.dry_run)
            ON CONFLICT ON CONSTRAINT quotas_same DO UPDATE SET
               requests = EXCLUDED.requests, burst = EXCLUDED.burst, concurrency = EXCLUDED.concurrency,
               body_size = EXCLUDED.body_size, dry_run = EXCLUDED.dry_run
        RETURNING * INTO q;
    END IF;
    RETURN tiergate.quota_phrase(q);
EXCEPTION WHEN integrity_constraint_violation THEN
    GET STACKED DIAGNOSTICS v.state = RETURNED_SQLSTATE, v.message = MESSAGE_TEXT,
                            v.constraint_name = CONSTRAINT_NAME, v.table_name = TABLE_NAME;
    PERFORM tiergate.refuse_violation(v);
END
$$;

COMMENT ON FUNCTION tiergate.set_quota(text, bigint, interval, bigint, text, text, bigint, bigint, boolean, text) IS
    'Sets a quota of a tenant: requests per time with burst, or concurrency, or body_size; on one route, for one consumer, or for each (consumer => ''*''). A quota that counts the same is replaced';


CREATE FUNCTION tiergate.drop_quota(tenant text, name text)
RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM tiergate.find_tenant(tenant);
    DELETE FROM tiergate.quotas q WHERE q.tenant = drop_quota.tenant AND q.name = drop_quota.name;
    IF NOT FOUND THEN
        PERFORM tiergate.refuse(404, 'unknown-quota', '',
                                format('tenant "%s" has no quota "%s"', tenant, drop_quota.name),
                                'SELECT * FROM tiergate.quota_status lists them');
    END IF;
END
$$;

COMMENT ON FUNCTION tiergate.drop_quota(text, text) IS 'Removes a quota of a tenant';


CREATE FUNCTION tiergate.grant_boost(tenant text, factor numeric, until timestamptz)
RETURNS text
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM tiergate.find_tenant(tenant);
    IF factor IS NULL OR factor NOT BETWEEN 0.001 AND 1000 THEN
        PERFORM tiergate.refuse(422, 'out-of-range', '/factor',
                                format('boost factor %s does not lie between 0.001 and 1000', factor));
    END IF;
    IF until IS NULL OR until <= now() OR until > now() + interval '10 years' THEN
        PERFORM tiergate.refuse(422, 'out-of-range', '/until',
                                format('boost end %s does not lie in the next ten years', until),
                                'until => now() + ''2 hours''');
    END IF;
    UPDATE tiergate.tenants t SET boost_factor = factor, boost_until = until WHERE t.name = grant_boost.tenant;
    RETURN format('%s: rates and request limits times %s until %s', tenant, factor, until);
END
$$;

COMMENT ON FUNCTION tiergate.grant_boost(text, numeric, timestamptz) IS
    'Multiplies the request quotas of a tenant until a time: grant_boost(''acme'', factor => 3, until => now() + ''2 hours'')';


CREATE FUNCTION tiergate.revoke_boost(tenant text)
RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM tiergate.find_tenant(tenant);
    UPDATE tiergate.tenants t SET boost_factor = NULL, boost_until = NULL WHERE t.name = revoke_boost.tenant;
END
$$;

COMMENT ON FUNCTION tiergate.revoke_boost(text) IS 'Ends the boost of a tenant';


-- API keys

CREATE FUNCTION tiergate.create_api_key(tenant text, consumer text, scopes text[] DEFAULT NULL,
                                        expires timestamptz DEFAULT NULL)
RETURNS text
LANGUAGE plpgsql
AS $$
DECLARE
    key text := tiergate.new_secret('tgk_');
BEGIN
    PERFORM tiergate.find_tenant(tenant);
    INSERT INTO tiergate.api_keys (tenant, consumer, hint, scopes, expires_at, sha256)
    VALUES (create_api_key.tenant, create_api_key.consumer, left(key, 8), create_api_key.scopes, expires,
            sha256(key::bytea));
    RETURN key;
END
$$;

COMMENT ON FUNCTION tiergate.create_api_key(text, text, text[], timestamptz) IS
    'Makes an API key for a consumer of a tenant and returns it, the only time that it is seen';


CREATE FUNCTION tiergate.rotate_api_key(id bigint, grace interval DEFAULT '0', OUT new_id bigint, OUT key text)
LANGUAGE plpgsql
AS $$
#variable_conflict use_column
DECLARE
    old tiergate.api_keys;
BEGIN
    SELECT * INTO old FROM tiergate.api_keys k WHERE k.id = rotate_api_key.id FOR UPDATE;
    IF NOT FOUND OR old.expires_at <= now() THEN
        PERFORM tiergate.refuse(404, 'unknown-key', '', format('there is no valid API key %s', rotate_api_key.id));
    END IF;
    IF old.rotated_to IS NOT NULL THEN
        PERFORM tiergate.refuse(409, 'key-rotated', '',
                                format('API key %s has been rotated to key %s already', old.id, old.rotated_to),
                                'rotate that one');
    END IF;
    IF grace < interval '0' OR grace > interval '366 days' THEN
        PERFORM tiergate.refuse(422, 'out-of-range', '/grace', 'grace does not lie between 0 and a year');
    END IF;

    key := tiergate.new_secret('tgk_');
    INSERT INTO tiergate.api_keys AS k (tenant, consumer, hint, scopes, expires_at, sha256)
    VALUES (old.tenant, old.consumer, left(key, 8), old.scopes, old.expires_at, sha256(key::bytea))
    RETURNING k.id INTO new_id;

    UPDATE tiergate.api_keys k
       SET expires_at = least(k.expires_at, now() + grace), rotated_to = new_id
     WHERE k.id = old.id;
END
$$;

COMMENT ON FUNCTION tiergate.rotate_api_key(bigint, interval) IS
    'Makes a key that replaces another, and returns it; the old one ends after the grace: rotate_api_key(11, grace => ''1 day'')';


CREATE FUNCTION tiergate.revoke_api_key(id bigint)
RETURNS void
LANGUAGE plpgsql
AS $$
BEGIN
    DELETE FROM tiergate.api_keys k WHERE k.id = revoke_api_key.id;
    IF NOT FOUND THEN
        PERFORM tiergate.refuse(404, 'unknown-key', '', format('there is no API key %s', revoke_api_key.id));
    END IF;
END
$$;

COMMENT ON FUNCTION tiergate.revoke_api_key(bigint) IS 'Revokes an API key at once; the audit keeps the record';


-- Canary

CREATE FUNCTION tiergate.set_weights(tenant text, route text, weights jsonb)
RETURNS jsonb
LANGUAGE plpgsql
AS $$
DECLARE
    result jsonb;
BEGIN
    PERFORM tiergate.find_tenant(tenant);
    UPDATE tiergate.routes r
       SET backends = (SELECT jsonb_agg(jsonb_build_object('upstream', w.key, 'weight', w.value) ORDER BY w.key)
                         FROM jsonb_each(weights) w)
     WHERE r.tenant = set_weights.tenant AND r.name = set_weights.route
    RETURNING backends INTO result;
    IF NOT FOUND THEN
        PERFORM tiergate.refuse(404, 'unknown-route', '', format('tenant "%s" has no route "%s"', tenant, route));
    END IF;
    RETURN result;
END
$$;

COMMENT ON FUNCTION tiergate.set_weights(text, text, jsonb) IS
    'Splits a route between upstreams: set_weights(''acme'', ''orders'', ''{"orders-v1": 95, "orders-v2": 5}'')';


-- Tenant-scoped database roles

CREATE TABLE tiergate.tenant_roles (
    role   name NOT NULL,
    tenant text NOT NULL COLLATE "C" REFERENCES tiergate.tenants ON DELETE CASCADE,
    PRIMARY KEY (role, tenant)
);

COMMENT ON TABLE  tiergate.tenant_roles        IS 'Database roles that may read what belongs to a tenant, and nothing else';
COMMENT ON COLUMN tiergate.tenant_roles.role   IS 'Database role';
COMMENT ON COLUMN tiergate.tenant_roles.tenant IS 'Tenant that it may read';


CREATE FUNCTION tiergate.grant_tenant_role(role name, tenant text)
RETURNS void
LANGUAGE plpgsql
AS $$
BEGIN
    PERFORM tiergate.find_tenant(tenant);
    EXECUTE format('GRANT tiergate_tenant TO %I', role);
    INSERT INTO tiergate.tenant_roles VALUES (role, tenant) ON CONFLICT DO NOTHING;
END
$$;

COMMENT ON FUNCTION tiergate.grant_tenant_role(name, text) IS
    'Lets a database role read what belongs to a tenant; row-level security keeps it to that';

COMMIT;
