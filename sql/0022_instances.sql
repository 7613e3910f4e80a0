-- SPDX-License-Identifier: BSD-2-Clause
--
-- Gateways that tenantd runs for one tenant each: what is wanted of them, and
-- what their driver reports.
--
-- 1. An instance is wanted by the row; nothing here starts a process.  It is made
--    in the transaction that gives its tenant a dedicated tier, and is called
--    dedicated-<id of the tenant>, a name that nobody else gets.
-- 2. generation rises whenever what is wanted changes.  The driver reports in
--    observed_generation up to which one it has come.
-- 3. A row has one owner, a node.  Who has none is taken with SKIP LOCKED, so that
--    several tenantd never take the same.
-- 4. A row outlives its tenant until the driver has removed everything: that is
--    why it keeps the tenant's name and id, and why the two are no foreign keys.
--    The id decides what the instance may see; a tenant of the same name that
--    comes later is not its tenant.
-- 5. Locks are taken in the order tenant, instance, gateway.
-- 6. What the driver reports is kept apart from the gateway's own row, which each
--    acknowledgement rewrites.

BEGIN;

INSERT INTO tiergate.schema_migrations (version, name) VALUES (22, 'instances');

CREATE FUNCTION tiergate.is_gateway_size(size jsonb)
RETURNS boolean
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
AS $$
DECLARE
    m record;
BEGIN
    IF jsonb_typeof(size) <> 'object' OR size - '{workers,connections,zone,limits}'::text[] <> '{}'
       OR jsonb_typeof(coalesce(size->'limits', '{}')) <> 'object'
       OR coalesce(size->'limits', '{}') - '{memory,pids,nofile,cpu}'::text[] <> '{}' THEN
        RETURN false;
    END IF;
    IF jsonb_typeof(coalesce(size->'zone', '"8m"')) <> 'string' OR size->>'zone' !~ '^[1-9][0-9]{0,4}[km]$' THEN
        RETURN false;
    END IF;
    FOR m IN
        SELECT b.low, b.high, v.value
          FROM (VALUES ('workers', 1, 256), ('connections', 16, 1000000)) b (name, low, high),
               LATERAL (SELECT size->b.name) v (value)
        UNION ALL
        SELECT b.low, b.high, v.value
          FROM (VALUES ('memory', 16777216, 1099511627776), ('pids', 8, 65536), ('nofile', 64, 1048576),
                       ('cpu', 10, 1024000)) b (name, low, high),
               LATERAL (SELECT nullif(size->'limits'->b.name, 'null')) v (value)
    LOOP
        IF m.value IS NOT NULL AND (jsonb_typeof(m.value) <> 'number' OR m.value #>> '{}' !~ '^[0-9]{1,15}$') THEN
            RETURN false;
        END IF;
        IF (m.value #>> '{}')::bigint NOT BETWEEN m.low AND m.high THEN
            RETURN false;
        END IF;
    END LOOP;
    RETURN true;
END
$$;

COMMENT ON FUNCTION tiergate.is_gateway_size(jsonb) IS
    'Whether this says how large a gateway is: {"workers", "connections", "zone", "limits": {"memory", "pids", "nofile", "cpu"}}, each of which may be missing';


ALTER TABLE tiergate.tiers ADD COLUMN gateway jsonb NOT NULL DEFAULT '{}',
    ADD CONSTRAINT tiers_gateway CHECK (tiergate.is_gateway_size(gateway)),
    ADD CONSTRAINT tiers_vcluster CHECK (name <> 'vcluster' OR gateway_kind = 'shared');

COMMENT ON COLUMN tiergate.tiers.gateway IS
    'How large gateways of the tier are: {"workers": 1, "connections": 1024, "zone": "8m", "limits": {"memory": bytes, "pids": 64, "nofile": 4096, "cpu": thousandths of a processor}}; what is missing is as shown, memory and cpu unlimited';
COMMENT ON CONSTRAINT tiers_gateway  ON tiergate.tiers IS
    'gateway is {"workers", "connections", "zone", "limits": {"memory", "pids", "nofile", "cpu"}} with sizes within reason';
COMMENT ON CONSTRAINT tiers_vcluster ON tiergate.tiers IS 'tier vcluster is served by shared gateways';


CREATE FUNCTION tiergate.gateway_size(size jsonb)
RETURNS jsonb
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT '{"workers": 1, "connections": 1024, "zone": "8m"}' || size
        || jsonb_build_object('limits', '{"memory": null, "pids": 64, "nofile": 4096, "cpu": null}'
                                        || coalesce(size->'limits', '{}'))
$$;

COMMENT ON FUNCTION tiergate.gateway_size(jsonb) IS 'How large a gateway is, with what tiers.gateway leaves out';


CREATE TABLE tiergate.instances (
    name                text        PRIMARY KEY COLLATE "C",
    tenant              text        NOT NULL COLLATE "C",
    tenant_id           bigint      NOT NULL UNIQUE,
    tier                text        NOT NULL COLLATE "C",
    desired             text        NOT NULL DEFAULT 'running',
    generation          bigint      NOT NULL DEFAULT 1,
    restart             bigint      NOT NULL DEFAULT 0,
    linger_until        timestamptz,
    observed_generation bigint      NOT NULL DEFAULT 0,
    phase               text        NOT NULL DEFAULT 'pending',
    since               timestamptz NOT NULL DEFAULT clock_timestamp(),
    reason              text        NOT NULL DEFAULT 'Unclaimed',
    message             text        NOT NULL DEFAULT 'no tenantd has taken it yet',
    conditions          jsonb       NOT NULL DEFAULT '[]',
    attempts            integer     NOT NULL DEFAULT 0,
    retry_at            timestamptz,
    node                text        COLLATE "C",
    driver              text,
    address             inet,
    port                integer,
    pid                 integer,
    started_at          timestamptz,
    restarts            integer     NOT NULL DEFAULT 0,
    ready_at            timestamptz,
    wanted_xid          xid8        NOT NULL DEFAULT pg_current_xact_id(),
    route_id            bigint      NOT NULL,
    upstream_id         bigint      NOT NULL,
    endpoint_id         bigint      NOT NULL,
    created_at          timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT instances_desired CHECK (desired IN ('running', 'absent')),
    CONSTRAINT instances_phase   CHECK (phase IN ('pending', 'starting', 'ready', 'rolling', 'failed', 'draining', 'stopped')),
    CONSTRAINT instances_port    CHECK (port BETWEEN 1 AND 65535)
) WITH (fillfactor = 50);

CREATE UNIQUE INDEX instances_node_port ON tiergate.instances (node, port) WHERE port IS NOT NULL;
CREATE INDEX instances_unclaimed ON tiergate.instances (tenant_id) WHERE node IS NULL;
CREATE INDEX instances_tenant ON tiergate.instances (tenant);
CREATE INDEX instances_lingering ON tiergate.instances (linger_until) WHERE linger_until IS NOT NULL;

COMMENT ON TABLE  tiergate.instances                     IS 'Gateways that tenantd runs for one tenant each: what is wanted, and what its driver last reported';
COMMENT ON COLUMN tiergate.instances.name                IS 'Name of the gateway: dedicated-<id of the tenant>';
COMMENT ON COLUMN tiergate.instances.tenant              IS 'Tenant; stays when the tenant is deleted';
COMMENT ON COLUMN tiergate.instances.tenant_id           IS 'Its id, by which it sees the tenant''s document and no other';
COMMENT ON COLUMN tiergate.instances.tier                IS 'Tier that it was made for';
COMMENT ON COLUMN tiergate.instances.desired             IS 'running, or absent: to be drained and removed';
COMMENT ON COLUMN tiergate.instances.generation          IS 'Rises whenever what is wanted changes';
COMMENT ON COLUMN tiergate.instances.restart             IS 'Rises when an operator wants a restart';
COMMENT ON COLUMN tiergate.instances.linger_until        IS 'When it becomes absent: its tenant has left it';
COMMENT ON COLUMN tiergate.instances.observed_generation IS 'Generation up to which its driver has come';
COMMENT ON COLUMN tiergate.instances.phase               IS 'pending, starting, ready, rolling (to another configuration), failed (waits for retry_at), draining, stopped';
COMMENT ON COLUMN tiergate.instances.since               IS 'Since when it is in this phase';
COMMENT ON COLUMN tiergate.instances.reason              IS 'Why, in one word';
COMMENT ON COLUMN tiergate.instances.message             IS 'Why, in a sentence';
COMMENT ON COLUMN tiergate.instances.conditions          IS '[{"type", "status", "reason", "message", "since"}], one of each type';
COMMENT ON COLUMN tiergate.instances.attempts            IS 'How often it has failed in a row';
COMMENT ON COLUMN tiergate.instances.retry_at            IS 'When it is tried again';
COMMENT ON COLUMN tiergate.instances.node                IS 'Where it runs; null while nobody has taken it';
COMMENT ON COLUMN tiergate.instances.driver              IS 'What runs it there';
COMMENT ON COLUMN tiergate.instances.address             IS 'Address at which it is reached';
COMMENT ON COLUMN tiergate.instances.port                IS 'and port';
COMMENT ON COLUMN tiergate.instances.pid                 IS 'Process id of its master on the node';
COMMENT ON COLUMN tiergate.instances.started_at          IS 'When that process was first reported';
COMMENT ON COLUMN tiergate.instances.restarts            IS 'How often it has ended by itself and was started again';
COMMENT ON COLUMN tiergate.instances.ready_at            IS 'When it was first ready; null if it has never served';
COMMENT ON COLUMN tiergate.instances.wanted_xid          IS 'Transaction that last made it wanted, as in changes';
COMMENT ON COLUMN tiergate.instances.route_id            IS 'Number of route tiergate-forward in the tenant''s document for shared gateways';
COMMENT ON COLUMN tiergate.instances.upstream_id         IS 'Number of upstream tiergate-forward there';
COMMENT ON COLUMN tiergate.instances.endpoint_id         IS 'Number of its endpoint';
COMMENT ON COLUMN tiergate.instances.created_at          IS 'When it was made';
COMMENT ON CONSTRAINT instances_desired ON tiergate.instances IS 'desired is running or absent';
COMMENT ON CONSTRAINT instances_phase   ON tiergate.instances IS 'phase is pending, starting, ready, rolling, failed, draining or stopped';
COMMENT ON CONSTRAINT instances_port    ON tiergate.instances IS 'a port lies between 1 and 65535';


CREATE TABLE tiergate.gateway_events (
    id      bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    gateway text        NOT NULL COLLATE "C",
    tenant  text        NOT NULL COLLATE "C",
    phase   text        NOT NULL,
    reason  text        NOT NULL,
    message text        NOT NULL
);

CREATE INDEX gateway_events_gateway ON tiergate.gateway_events (gateway, id);
CREATE INDEX gateway_events_at ON tiergate.gateway_events (at);

COMMENT ON TABLE  tiergate.gateway_events         IS 'What happened to instances: the newest 1000 of each, for 30 days';
COMMENT ON COLUMN tiergate.gateway_events.id      IS 'Number of the event';
COMMENT ON COLUMN tiergate.gateway_events.at      IS 'When';
COMMENT ON COLUMN tiergate.gateway_events.gateway IS 'Gateway';
COMMENT ON COLUMN tiergate.gateway_events.tenant  IS 'Its tenant';
COMMENT ON COLUMN tiergate.gateway_events.phase   IS 'Phase that it was in from then on';
COMMENT ON COLUMN tiergate.gateway_events.reason  IS 'Why, in one word';
COMMENT ON COLUMN tiergate.gateway_events.message IS 'Why, in a sentence';


CREATE FUNCTION tiergate.add_event(gateway text, tenant text, phase text, reason text, message text)
RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
    nth bigint;
BEGIN
    INSERT INTO tiergate.gateway_events (gateway, tenant, phase, reason, message)
    VALUES (gateway, tenant, phase, reason, left(message, 4000))
    RETURNING id INTO nth;
    -- now and then, so that a crash loop does not fill the table between two housekeepings
    IF nth % 100 = 0 THEN
        PERFORM tiergate.trim_events(gateway);
    END IF;
END
$$;

COMMENT ON FUNCTION tiergate.add_event(text, text, text, text, text) IS 'Writes an event of a gateway';


CREATE FUNCTION tiergate.trim_events(gateway text)
RETURNS void
LANGUAGE sql
AS $$
    DELETE FROM tiergate.gateway_events e
     WHERE e.gateway = trim_events.gateway
       AND e.id <= (SELECT x.id FROM tiergate.gateway_events x WHERE x.gateway = trim_events.gateway
                     ORDER BY x.id DESC OFFSET 1000 LIMIT 1)
$$;

COMMENT ON FUNCTION tiergate.trim_events(text) IS 'Drops all but the newest 1000 events of a gateway';


CREATE FUNCTION tiergate.notify_instances()
RETURNS void
LANGUAGE sql
AS $$
    SELECT pg_notify('tiergate_instances', '')
$$;

COMMENT ON FUNCTION tiergate.notify_instances() IS
    'Tells provisioners that what is wanted has changed; once a transaction, without payload';


CREATE FUNCTION tiergate.mark_tenant(tenant_id bigint)
RETURNS void
LANGUAGE sql
AS $$
    INSERT INTO tiergate.changes (kind, object_id, name)
    SELECT 'tenant', t.id, t.name FROM tiergate.tenants t WHERE t.id = mark_tenant.tenant_id
        ON CONFLICT DO NOTHING
$$;

COMMENT ON FUNCTION tiergate.mark_tenant(bigint) IS
    'Marks a tenant as changed, whose document depends on something other than its rows';


-- Conditions keep their age while their status stays.
CREATE FUNCTION tiergate.merge_conditions(present jsonb, reported jsonb)
RETURNS jsonb
LANGUAGE sql STABLE
AS $$
    SELECT coalesce(jsonb_agg(c.item ORDER BY c.type), '[]')
      FROM (SELECT r.value->>'type' AS type,
                   jsonb_build_object(
                       'type', r.value->>'type', 'status', coalesce(r.value->>'status', 'Unknown'),
                       'reason', coalesce(r.value->>'reason', ''), 'message', left(coalesce(r.value->>'message', ''), 4000),
                       'since', coalesce((SELECT p.value->>'since' FROM jsonb_array_elements(present) p
                                           WHERE p.value->>'type' = r.value->>'type'
                                             AND p.value->>'status' = coalesce(r.value->>'status', 'Unknown')),
                                         to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'))) AS item
              FROM jsonb_array_elements(reported) r
             WHERE r.value->>'type' <> ''
            UNION ALL
            SELECT p.value->>'type', p.value
              FROM jsonb_array_elements(present) p
             WHERE NOT EXISTS (SELECT FROM jsonb_array_elements(reported) r
                                WHERE r.value->>'type' = p.value->>'type')) c
$$;

COMMENT ON FUNCTION tiergate.merge_conditions(jsonb, jsonb) IS
    'Conditions with the reported ones in place of those of the same type; one whose status has not changed keeps its time';


CREATE FUNCTION tiergate.set_condition(name text, type text, status boolean, reason text, message text)
RETURNS void
LANGUAGE sql
AS $$
    UPDATE tiergate.instances i
       SET conditions = tiergate.merge_conditions(i.conditions, jsonb_build_array(jsonb_build_object(
               'type', set_condition.type, 'status', CASE WHEN set_condition.status THEN 'True' ELSE 'False' END,
               'reason', set_condition.reason, 'message', set_condition.message)))
     WHERE i.name = set_condition.name
$$;

COMMENT ON FUNCTION tiergate.set_condition(text, text, boolean, text, text) IS 'Sets one condition of an instance';


-- What is wanted

CREATE FUNCTION tiergate.want_instance(t tiergate.tenants)
RETURNS void
LANGUAGE plpgsql
AS $$
BEGIN
    INSERT INTO tiergate.instances AS i (name, tenant, tenant_id, tier, route_id, upstream_id, endpoint_id)
    VALUES ('dedicated-' || t.id, t.name, t.id, t.tier,
            nextval(pg_get_serial_sequence('tiergate.routes', 'id')),
            nextval(pg_get_serial_sequence('tiergate.upstreams', 'id')),
            nextval(pg_get_serial_sequence('tiergate.endpoints', 'id')))
        ON CONFLICT (name) DO UPDATE SET
           tier = EXCLUDED.tier, desired = 'running', linger_until = NULL,
           generation = i.generation + 1, wanted_xid = EXCLUDED.wanted_xid;
    INSERT INTO tiergate.gateways (name, kind, tenant)
    VALUES ('dedicated-' || t.id, 'dedicated', t.name)
        ON CONFLICT (name) DO NOTHING;
    PERFORM tiergate.add_event('dedicated-' || t.id, t.name, i.phase, 'Wanted', format('tenant is of tier "%s"', t.tier))
       FROM tiergate.instances i WHERE i.tenant_id = t.id;
    PERFORM tiergate.notify_instances();
END
$$;

COMMENT ON FUNCTION tiergate.want_instance(tiergate.tenants) IS
    'Makes the instance of a tenant, or wants it again';


-- Nobody is responsible for an instance that nobody has taken.
CREATE FUNCTION tiergate.retire_instance(tenant_id bigint, reason text, message text)
RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
    i tiergate.instances;
BEGIN
    SELECT * INTO i FROM tiergate.instances x WHERE x.tenant_id = retire_instance.tenant_id FOR UPDATE;
    IF NOT FOUND OR i.desired = 'absent' THEN
        RETURN;
    END IF;
    UPDATE tiergate.instances x
       SET desired = 'absent', linger_until = NULL, generation = x.generation + 1
     WHERE x.name = i.name;
    PERFORM tiergate.add_event(i.name, i.tenant, i.phase, retire_instance.reason, retire_instance.message);
    IF i.node IS NULL THEN
        PERFORM tiergate.instance_removed(i.name);
    END IF;
    PERFORM tiergate.notify_instances();
END
$$;

COMMENT ON FUNCTION tiergate.retire_instance(bigint, text, text) IS
    'Wants the instance of a tenant to be drained and removed';


CREATE FUNCTION tiergate.renew_instances(names text[])
RETURNS void
LANGUAGE plpgsql
AS $$
BEGIN
    IF names IS NULL THEN
        RETURN;
    END IF;
    -- in one order, so that two who renew many do not block each other
    PERFORM FROM tiergate.instances i WHERE i.name = ANY (names) ORDER BY i.name FOR UPDATE;
    UPDATE tiergate.instances i SET generation = i.generation + 1
     WHERE i.name = ANY (names) AND i.desired = 'running';
    IF FOUND THEN
        PERFORM tiergate.notify_instances();
    END IF;
END
$$;

COMMENT ON FUNCTION tiergate.renew_instances(text[]) IS 'Starts a new generation of instances: what is wanted of them has changed';


CREATE FUNCTION tiergate.tenant_plugins_renewed()
RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM tiergate.renew_instances((SELECT array_agg(i.name) FROM tiergate.instances i
                                       WHERE i.tenant IN (SELECT r.tenant FROM changed_rows r)));
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION tiergate.tenant_plugins_renewed() IS 'Trigger: tenants have other plugins, so their instances are renewed';

CREATE FUNCTION tiergate.tier_plugins_renewed()
RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM tiergate.renew_instances((SELECT array_agg(i.name) FROM tiergate.instances i
                                       WHERE i.tier IN (SELECT r.tier FROM changed_rows r)));
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION tiergate.tier_plugins_renewed() IS 'Trigger: tiers have other plugins, so their instances are renewed';

CREATE FUNCTION tiergate.plugins_renewed()
RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM tiergate.renew_instances((SELECT array_agg(i.name) FROM tiergate.instances i
                                       WHERE EXISTS (SELECT FROM tiergate.plugin_set(i.tenant, i.tier) s
                                                      WHERE s.plugin IN (SELECT r.name FROM changed_rows r))));
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION tiergate.plugins_renewed() IS 'Trigger: plugins are defined otherwise, so the instances that have them are renewed';

CREATE FUNCTION tiergate.tiers_renewed()
RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM tiergate.renew_instances((SELECT array_agg(i.name) FROM tiergate.instances i WHERE i.tier = NEW.name));
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION tiergate.tiers_renewed() IS 'Trigger: gateways of a tier have another size, so its instances are renewed';

DO $$
DECLARE
    t text;
BEGIN
    FOREACH t IN ARRAY '{tenant_plugins,tier_plugins}'::text[] LOOP
        EXECUTE format('CREATE TRIGGER %1$s_renew_insert AFTER INSERT ON tiergate.%1$s REFERENCING NEW TABLE AS changed_rows
                            FOR EACH STATEMENT EXECUTE FUNCTION tiergate.%1$s_renewed()', t);
        EXECUTE format('CREATE TRIGGER %1$s_renew_update AFTER UPDATE ON tiergate.%1$s REFERENCING NEW TABLE AS changed_rows
                            FOR EACH STATEMENT EXECUTE FUNCTION tiergate.%1$s_renewed()', t);
        EXECUTE format('CREATE TRIGGER %1$s_renew_delete AFTER DELETE ON tiergate.%1$s REFERENCING OLD TABLE AS changed_rows
                            FOR EACH STATEMENT EXECUTE FUNCTION tiergate.%1$s_renewed()', t);
    END LOOP;
END
$$;

CREATE TRIGGER plugins_renew AFTER UPDATE ON tiergate.plugins REFERENCING NEW TABLE AS changed_rows
    FOR EACH STATEMENT EXECUTE FUNCTION tiergate.plugins_renewed();
CREATE TRIGGER tiers_renew AFTER UPDATE ON tiergate.tiers
    FOR EACH ROW WHEN (OLD.gateway IS DISTINCT FROM NEW.gateway) EXECUTE FUNCTION tiergate.tiers_renewed();
CREATE TRIGGER tiers_keep_used_kind AFTER UPDATE OF gateway_kind ON tiergate.tiers
    FOR EACH ROW WHEN (OLD.gateway_kind <> NEW.gateway_kind) EXECUTE FUNCTION tiergate.keep_used_tier();


-- What tenantd gets to do

CREATE TYPE tiergate.instance_work AS (
    name                text,
    tenant              text,
    tenant_id           bigint,
    desired             text,
    generation          bigint,
    observed_generation bigint,
    phase               text,
    attempts            integer,
    retry_at            bigint,
    address             text,
    port                integer,
    placement           text,
    spec                jsonb,
    node                text,
    pid                 integer,
    restarts            integer
);

COMMENT ON TYPE tiergate.instance_work IS
    'An instance as its driver sees it; retry_at in milliseconds since 1970, placement null when the tenant is gone, spec as docs/reference/plugins.md describes';


CREATE FUNCTION tiergate.instance_spec(i tiergate.instances)
RETURNS jsonb
LANGUAGE plpgsql STABLE
AS $$
BEGIN
    RETURN tiergate.gateway_size((SELECT s.gateway FROM tiergate.tiers s WHERE s.name = i.tier))
        || jsonb_build_object('restart', i.restart, 'plugins',
               (SELECT coalesce(jsonb_agg(jsonb_build_object(
                           'name', p.name, 'modules', p.modules,
                           'snippets', jsonb_strip_nulls(jsonb_build_object(
                               'main', p.main, 'http', p.http, 'server', p.server, 'location', p.location)),
                           'parameters', s.parameters, 'schema', p.schema) ORDER BY p.name), '[]')
                  FROM tiergate.plugin_set(i.tenant, i.tier) s
                  JOIN tiergate.plugins p ON p.name = s.plugin));
END
$$;

COMMENT ON FUNCTION tiergate.instance_spec(tiergate.instances) IS
    'What is wanted of an instance: {"workers", "connections", "zone", "limits", "restart", "plugins"}';


CREATE FUNCTION tiergate.work_of(i tiergate.instances, complete boolean DEFAULT true)
RETURNS tiergate.instance_work
LANGUAGE plpgsql STABLE
AS $$
BEGIN
    RETURN ROW(i.name, i.tenant, i.tenant_id, i.desired, i.generation, i.observed_generation, i.phase, i.attempts,
               (extract(epoch FROM i.retry_at) * 1000)::bigint, host(i.address), i.port,
               (SELECT t.placement FROM tiergate.tenants t WHERE t.id = i.tenant_id),
               CASE WHEN i.desired = 'running' AND (complete OR i.generation <> i.observed_generation)
                    THEN tiergate.instance_spec(i) END,
               i.node, i.pid, i.restarts)::tiergate.instance_work;
END
$$;

COMMENT ON FUNCTION tiergate.work_of(tiergate.instances, boolean) IS
    'An instance as its driver sees it; not complete: without the spec if its driver has come up to it';


CREATE FUNCTION tiergate.free_port(node text, first_port integer, last_port integer)
RETURNS integer
LANGUAGE plpgsql
AS $$
DECLARE
    size integer := last_port - first_port + 1;
    -- anywhere, so that a port that was just freed, or that another program has, is not the next one tried
    low  integer := floor(random() * size);
    p    integer;
BEGIN
    IF first_port < 1 OR last_port > 65535 OR size < 1 THEN
        PERFORM tiergate.refuse(422, 'out-of-range', '', format('ports %s to %s are none', first_port, last_port));
    END IF;
    FOR n IN 0 .. size - 1 LOOP
        p := first_port + (low + n) % size;
        IF NOT EXISTS (SELECT FROM tiergate.instances i WHERE i.node = free_port.node AND i.port = p) THEN
            RETURN p;
        END IF;
    END LOOP;
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION tiergate.free_port(text, integer, integer) IS
    'A port of the range that no instance of the node has, or null';


CREATE FUNCTION tiergate.hold_ports(node text)
RETURNS void
LANGUAGE sql
AS $$
    SELECT pg_advisory_xact_lock(hashtextextended('tiergate.node/' || node, 0))
$$;

COMMENT ON FUNCTION tiergate.hold_ports(text) IS 'Waits for others who choose a port on the same node';


CREATE FUNCTION tiergate.instances_claim(node text, driver text, most integer, first_port integer, last_port integer,
                                         address text)
RETURNS SETOF tiergate.instance_work
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
    reached inet := tiergate.parse_address(address);
    chosen  integer;
    i       tiergate.instances;
BEGIN
    IF node IS NULL OR octet_length(node) NOT BETWEEN 1 AND 253 OR driver IS NULL OR reached IS NULL THEN
        PERFORM tiergate.refuse(422, 'invalid-report', '', 'a claim needs a node, a driver, and an address',
                                'the address is an IPv4 or IPv6 address');
    END IF;

    PERFORM tiergate.hold_ports(node);
    FOR i IN
        SELECT x.* FROM tiergate.instances x
         WHERE x.node IS NULL AND x.desired = 'running'
         ORDER BY x.tenant_id LIMIT most
           FOR UPDATE SKIP LOCKED
    LOOP
        chosen := tiergate.free_port(node, first_port, last_port);
        IF chosen IS NULL THEN
            PERFORM tiergate.report_instance(i, i.phase, 'NoPort',
                        format('node "%s" has no port left from %s to %s', node, first_port, last_port));
            EXIT;
        END IF;
        UPDATE tiergate.instances x
           SET node = instances_claim.node, driver = instances_claim.driver, address = reached, port = chosen,
               endpoint_id = nextval(pg_get_serial_sequence('tiergate.endpoints', 'id'))
         WHERE x.name = i.name;
        SELECT * INTO i FROM tiergate.instances x WHERE x.name = i.name;
        PERFORM tiergate.report_instance(i, i.phase, 'Claimed',
                    format('node "%s" runs it at %s port %s', node, host(reached), chosen));
        PERFORM tiergate.mark_tenant(t.id) FROM tiergate.tenants t
          WHERE t.id = i.tenant_id AND t.placement = 'dedicated';
        RETURN NEXT tiergate.work_of(i);
    END LOOP;
END
$$;

COMMENT ON FUNCTION tiergate.instances_claim(text, text, integer, integer, integer, text) IS
    'Takes instances that nobody runs yet, at most so many, for a node: gives each a free port of the range and the address at which it is reached';


CREATE FUNCTION tiergate.instances_of(node text, complete boolean DEFAULT true)
RETURNS SETOF tiergate.instance_work
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN QUERY
    SELECT (w.work).*
      FROM (SELECT tiergate.work_of(i, complete) AS work
              FROM tiergate.instances i WHERE i.node = instances_of.node ORDER BY i.name OFFSET 0) w;
END
$$;

COMMENT ON FUNCTION tiergate.instances_of(text, boolean) IS
    'All instances of a node; not complete: with the spec only of those whose driver is behind';


CREATE FUNCTION tiergate.instance_port(name text, first_port integer, last_port integer)
RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    i      tiergate.instances;
    chosen integer;
BEGIN
    SELECT * INTO i FROM tiergate.instances x WHERE x.name = instance_port.name;
    IF i.node IS NULL THEN
        RETURN NULL;
    END IF;
    PERFORM tiergate.hold_ports(i.node);
    chosen := tiergate.free_port(i.node, first_port, last_port);
    IF chosen IS NOT NULL THEN
        UPDATE tiergate.instances x
           SET port = chosen, endpoint_id = nextval(pg_get_serial_sequence('tiergate.endpoints', 'id'))
         WHERE x.name = i.name;
        PERFORM tiergate.add_event(i.name, i.tenant, i.phase, 'PortChanged',
                                   format('port %s was taken: now port %s', i.port, chosen));
        PERFORM tiergate.mark_tenant(t.id) FROM tiergate.tenants t
          WHERE t.id = i.tenant_id AND t.placement = 'dedicated';
    END IF;
    RETURN chosen;
END
$$;

COMMENT ON FUNCTION tiergate.instance_port(text, integer, integer) IS
    'Gives an instance another free port, since another program has its own; null if there is none, or no such instance';


CREATE FUNCTION tiergate.report_instance(i tiergate.instances, phase text, reason text, message text)
RETURNS void
LANGUAGE plpgsql
AS $$
BEGIN
    IF (i.phase, i.reason) IS DISTINCT FROM (phase, reason) THEN
        PERFORM tiergate.add_event(i.name, i.tenant, phase, reason, message);
    ELSIF i.message = message THEN
        RETURN;
    END IF;
    UPDATE tiergate.instances x
       SET phase = report_instance.phase, reason = report_instance.reason, message = left(report_instance.message, 4000),
           since = CASE WHEN x.phase = report_instance.phase THEN x.since ELSE clock_timestamp() END
     WHERE x.name = i.name;
END
$$;

COMMENT ON FUNCTION tiergate.report_instance(tiergate.instances, text, text, text) IS
    'Writes the phase of an instance and why; an event if either has changed';


CREATE FUNCTION tiergate.instance_observed(name text, phase text, observed_generation bigint, conditions jsonb,
                                           pid integer, attempts integer, retry_at_ms bigint, restarts integer,
                                           reason text, message text)
RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    i tiergate.instances;
BEGIN
    IF phase NOT IN ('ready', 'stopped') THEN
        PERFORM tiergate.relax_commit();
    END IF;
    SELECT * INTO i FROM tiergate.instances x WHERE x.name = instance_observed.name FOR UPDATE;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    UPDATE tiergate.instances x
       SET observed_generation = coalesce(instance_observed.observed_generation, x.observed_generation),
           conditions = tiergate.merge_conditions(x.conditions, coalesce(instance_observed.conditions, '[]')),
           pid        = instance_observed.pid,
           started_at = CASE WHEN instance_observed.pid IS NULL THEN NULL
                             WHEN instance_observed.pid = x.pid THEN x.started_at ELSE clock_timestamp() END,
           attempts   = coalesce(instance_observed.attempts, x.attempts),
           retry_at   = to_timestamp(retry_at_ms / 1000.0),
           restarts   = coalesce(instance_observed.restarts, x.restarts),
           ready_at   = CASE WHEN instance_observed.phase = 'ready' THEN coalesce(x.ready_at, clock_timestamp()) ELSE x.ready_at END
     WHERE x.name = i.name;
    PERFORM tiergate.report_instance(i, phase, coalesce(reason, ''), coalesce(message, ''));
    RETURN true;
END
$$;

COMMENT ON FUNCTION tiergate.instance_observed(text, text, bigint, jsonb, integer, integer, bigint, integer, text, text) IS
    'Writes what a driver sees of its instance; conditions are merged by type; null keeps observed_generation, attempts and restarts, and says that there is no process, no retry. False if there is no such instance any more';


CREATE FUNCTION tiergate.instance_token(name text)
RETURNS text
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    token text := tiergate.new_secret('tgt_');
BEGIN
    PERFORM FROM tiergate.instances i WHERE i.name = instance_token.name FOR UPDATE;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    DELETE FROM tiergate.api_tokens t WHERE t.name = 'instance-' || instance_token.name;
    INSERT INTO tiergate.api_tokens (name, scope, gateway, token_sha256)
    VALUES ('instance-' || instance_token.name, 'gateway', instance_token.name, sha256(token::bytea));
    RETURN token;
END
$$;

COMMENT ON FUNCTION tiergate.instance_token(text) IS
    'Makes the token by which an instance speaks to tenantd, in place of the one before, and returns it, the only time that it is seen; null if there is no such instance';


-- It may have become wanted again while it was drained.
CREATE FUNCTION tiergate.instance_removed(name text)
RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    i tiergate.instances;
BEGIN
    SELECT * INTO i FROM tiergate.instances x WHERE x.name = instance_removed.name FOR UPDATE;
    IF NOT FOUND THEN
        RETURN true;
    END IF;
    DELETE FROM tiergate.api_tokens t WHERE t.name = 'instance-' || i.name;
    DELETE FROM tiergate.quota_usage u WHERE u.gateway = i.name;

    IF i.desired = 'running' THEN
        UPDATE tiergate.instances x
           SET observed_generation = 0, pid = NULL, started_at = NULL, ready_at = NULL, attempts = 0, retry_at = NULL,
               conditions = '[]'
         WHERE x.name = i.name;
        UPDATE tiergate.gateways g SET state = 'unknown', revision = 0, boot = NULL WHERE g.name = i.name;
        PERFORM tiergate.report_instance(i, 'pending', 'WantedAgain', 'it became wanted while it was drained');
        PERFORM tiergate.notify_instances();
        RETURN false;
    END IF;

    DELETE FROM tiergate.instances x WHERE x.name = i.name;
    DELETE FROM tiergate.gateways g WHERE g.name = i.name;
    PERFORM tiergate.add_event(i.name, i.tenant, 'stopped', 'Removed', 'nothing is left of it');
    RETURN true;
END
$$;

COMMENT ON FUNCTION tiergate.instance_removed(text) IS
    'Nothing is left of an instance: removes its row, its token and its fill of quotas. False if it has become wanted again meanwhile: then it is to be started anew';


-- Gateways of instances

CREATE FUNCTION tiergate.check_gateway_name()
RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM tiergate.instances i WHERE i.name = NEW.name) THEN
        PERFORM tiergate.refuse_row('gateways_reserved', NEW.name);
    END IF;
    RETURN NEW;
END
$$;

COMMENT ON FUNCTION tiergate.check_gateway_name() IS 'Trigger: names that begin with dedicated- belong to instances';

CREATE TRIGGER gateways_check_name BEFORE INSERT ON tiergate.gateways
    FOR EACH ROW WHEN (NEW.name LIKE 'dedicated-%') EXECUTE FUNCTION tiergate.check_gateway_name();


CREATE FUNCTION tiergate.keep_managed_gateway()
RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF EXISTS (SELECT FROM tiergate.instances i WHERE i.name = OLD.name) THEN
        PERFORM tiergate.refuse_row('gateways_managed', OLD.name);
    END IF;
    RETURN CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END;
END
$$;

COMMENT ON FUNCTION tiergate.keep_managed_gateway() IS 'Trigger: a gateway that tenantd runs goes with its instance';

CREATE TRIGGER gateways_keep_managed BEFORE DELETE ON tiergate.gateways
    FOR EACH ROW WHEN (OLD.kind = 'dedicated') EXECUTE FUNCTION tiergate.keep_managed_gateway();
CREATE TRIGGER gateways_keep_managed_update BEFORE UPDATE OF name, kind, tenant ON tiergate.gateways
    FOR EACH ROW WHEN (OLD.kind = 'dedicated'
                       AND (OLD.name, OLD.kind, OLD.tenant) IS DISTINCT FROM (NEW.name, NEW.kind, NEW.tenant))
    EXECUTE FUNCTION tiergate.keep_managed_gateway();


-- In place of the foreign key, which would take an instance's gateway away with
-- its tenant.
ALTER TABLE tiergate.gateways DROP CONSTRAINT gateways_tenant_fkey;

CREATE FUNCTION tiergate.check_gateway_tenant()
RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM FROM tiergate.tenants t WHERE t.name = NEW.tenant FOR KEY SHARE;
    IF NOT FOUND THEN
        PERFORM tiergate.refuse_row('gateways_tenant_fkey', NEW.name);
    END IF;
    RETURN NEW;
END
$$;

COMMENT ON FUNCTION tiergate.check_gateway_tenant() IS 'Trigger: the tenant of a dedicated gateway exists';

CREATE TRIGGER gateways_check_tenant BEFORE INSERT OR UPDATE OF tenant ON tiergate.gateways
    FOR EACH ROW WHEN (NEW.tenant IS NOT NULL) EXECUTE FUNCTION tiergate.check_gateway_tenant();


CREATE FUNCTION tiergate.tenants_deleted()
RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
SET jit = off
AS $$
BEGIN
    PERFORM tiergate.retire_instance(i.tenant_id, 'TenantDeleted', format('tenant "%s" was deleted', i.tenant))
       FROM old_rows o JOIN tiergate.instances i ON i.tenant_id = o.id;
    DELETE FROM tiergate.gateways g USING old_rows o
     WHERE g.tenant = o.name AND NOT EXISTS (SELECT FROM tiergate.instances i WHERE i.name = g.name);
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION tiergate.tenants_deleted() IS
    'Trigger: the instances of deleted tenants are to be removed, other dedicated gateways of theirs go at once';

CREATE TRIGGER tenants_deleted AFTER DELETE ON tiergate.tenants REFERENCING OLD TABLE AS old_rows
    FOR EACH STATEMENT EXECUTE FUNCTION tiergate.tenants_deleted();


-- What a driver reports is no change; what somebody wants is.
CREATE TRIGGER instances_audit_update AFTER UPDATE OF desired, restart ON tiergate.instances
    FOR EACH ROW WHEN ((OLD.desired, OLD.restart) IS DISTINCT FROM (NEW.desired, NEW.restart))
    EXECUTE FUNCTION tiergate.audit_changed('tenant', 'name');


INSERT INTO tiergate.refusals (name, status, slug, pointer, detail, hint) VALUES
    ('gateways_reserved', 422, 'reserved-name',   '/name', 'gateway name "%s" begins with dedicated-, as do the gateways that tenantd runs', 'choose another name'),
    ('gateways_managed',  409, 'gateway-managed', '',      'gateway "%s" is run by tenantd', 'change the tier of its tenant, or delete the tenant');



-- Who may do what, see 0013_security

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA tiergate FROM PUBLIC;

GRANT SELECT ON tiergate.instances, tiergate.gateway_events TO tiergate_admin, tiergate_reader, tiergate_tenant;
GRANT EXECUTE ON FUNCTION tiergate.is_gateway_size(jsonb), tiergate.gateway_size(jsonb) TO tiergate_admin;
GRANT EXECUTE ON FUNCTION
    tiergate.instances_claim(text, text, integer, integer, integer, text), tiergate.instances_of(text, boolean),
    tiergate.instance_port(text, integer, integer),
    tiergate.instance_observed(text, text, bigint, jsonb, integer, integer, bigint, integer, text, text),
    tiergate.instance_token(text), tiergate.instance_removed(text)
    TO tiergate_daemon;

ALTER TABLE tiergate.instances ENABLE ROW LEVEL SECURITY;
CREATE POLICY operators ON tiergate.instances TO tiergate_admin, tiergate_quota_admin, tiergate_reader
    USING (true) WITH CHECK (true);
COMMENT ON POLICY operators ON tiergate.instances IS 'Operators see every tenant';
CREATE POLICY own ON tiergate.instances FOR SELECT TO tiergate_tenant
    USING (tenant IN (SELECT r.tenant FROM tiergate.tenant_roles r));
COMMENT ON POLICY own ON tiergate.instances IS 'A tenant''s role sees its tenants';

ALTER TABLE tiergate.gateway_events ENABLE ROW LEVEL SECURITY;
CREATE POLICY operators ON tiergate.gateway_events TO tiergate_admin, tiergate_quota_admin, tiergate_reader
    USING (true) WITH CHECK (true);
COMMENT ON POLICY operators ON tiergate.gateway_events IS 'Operators see every tenant';
CREATE POLICY own ON tiergate.gateway_events FOR SELECT TO tiergate_tenant
    USING (tenant IN (SELECT r.tenant FROM tiergate.tenant_roles r));
COMMENT ON POLICY own ON tiergate.gateway_events IS 'A tenant''s role sees its tenants';

COMMIT;
