-- SPDX-License-Identifier: BSD-2-Clause
--
-- Whoever takes the name of a tenant that was deleted is somebody else.  Audit,
-- usage, moves and events of gateways, and flows are kept by name and outlive a
-- tenant; its successor was shown them, over REST and in a role of its own.  What a
-- tenant is shown begins when it was created: of usage, with that minute, of the
-- service map and of losses, with those ten minutes.  Operators see all from psql,
-- and the audit with GET /v1/audit.

BEGIN;

INSERT INTO tiergate.schema_migrations (version, name) VALUES (43, 'successors');


CREATE OR REPLACE FUNCTION tiergate_api.get_usage(path text[], query jsonb, body jsonb)
RETURNS tiergate_api.response
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    t     tiergate.tenants := tiergate.find_tenant(path[1]);
    most  integer     := tiergate_api.page_limit(query);
    step  text        := coalesce(query->>'step', 'hour');
    low   timestamptz := tiergate_api.query_time(query, 'from', now() - interval '24 hours');
    high  timestamptz := tiergate_api.query_time(query, 'to', now());
    after timestamptz := coalesce(to_timestamp(tiergate_api.page_number(query)), '-infinity');
    p     record;
BEGIN
    PERFORM tiergate_api.check_query(query, 'from', 'to', 'step', 'route', 'limit', 'cursor');
    IF step NOT IN ('minute', 'hour', 'day') THEN
        PERFORM tiergate.refuse(400, 'invalid-parameter', '',
                                format('query parameter step is "%s", but must be minute, hour or day', step));
    END IF;
    SELECT array_agg(x.item) AS items, array_agg(x.key) AS keys INTO p
      FROM (SELECT tiergate.unix_time(b.start)::text AS key, jsonb_build_object(
                       'start', b.start, 'requests', b.requests,
                       'status', jsonb_build_object('1xx', b.s1, '2xx', b.s2, '3xx', b.s3, '4xx', b.s4, '5xx', b.s5),
                       'denied', b.denied, 'throttled', b.throttled,
                       'bytes_in', b.bytes_in, 'bytes_out', b.bytes_out,
                       'latency', jsonb_build_object('sum_us', b.latency_us, 'histogram', b.latency)) AS item
              FROM (SELECT date_trunc(step, u.minute, 'UTC') AS start, sum(u.requests) AS requests,
                           sum(u.status_1xx) AS s1, sum(u.status_2xx) AS s2, sum(u.status_3xx) AS s3,
                           sum(u.status_4xx) AS s4, sum(u.status_5xx) AS s5, sum(u.denied) AS denied,
                           sum(u.throttled) AS throttled, sum(u.bytes_in) AS bytes_in,
                           sum(u.bytes_out) AS bytes_out, sum(u.latency_us) AS latency_us,
                           tiergate.total(u.latency) AS latency
                      FROM tiergate.usage u
                     WHERE u.tenant = t.name AND u.minute >= date_trunc('minute', greatest(low, t.created_at))
                       AND u.minute <= high
                       AND (NOT coalesce(query ? 'route', false) OR u.route = query->>'route')
                     GROUP BY 1) b
             WHERE b.start > after
             ORDER BY b.start LIMIT most + 1) x;
    RETURN tiergate_api.page(p.items, p.keys, most);
END
$$;


CREATE OR REPLACE FUNCTION tiergate_api.audit_page(tenant text, query jsonb)
RETURNS tiergate_api.response
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    most integer := tiergate_api.page_limit(query);
    high bigint  := coalesce(tiergate_api.page_number(query), 9223372036854775807);
    born timestamptz;
    p    record;
BEGIN
    PERFORM tiergate_api.check_query(query, 'limit', 'cursor');
    IF tenant IS NULL THEN
        SELECT array_agg(x.item) AS items, array_agg(x.id::text) AS keys INTO p
          FROM (SELECT a.id, tiergate.audit_json(a) AS item FROM tiergate.audit a
                 WHERE a.id < high ORDER BY a.id DESC LIMIT most + 1) x;
    ELSE
        SELECT t.created_at INTO born FROM tiergate.tenants t WHERE t.name = audit_page.tenant;
        SELECT array_agg(x.item) AS items, array_agg(x.id::text) AS keys INTO p
          FROM (SELECT a.id, tiergate.audit_json(a) AS item FROM tiergate.audit a
                 WHERE a.tenant = audit_page.tenant AND a.at >= born AND a.id < high ORDER BY a.id DESC LIMIT most + 1) x;
    END IF;
    RETURN tiergate_api.page(p.items, p.keys, most);
END
$$;


CREATE OR REPLACE FUNCTION tiergate_api.get_flows(path text[], query jsonb, body jsonb)
RETURNS tiergate_api.response
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    t      tiergate.tenants := tiergate.find_tenant(path[1]);
    filter jsonb       := tiergate_api.flow_filter(t.name, query);
    most   integer     := tiergate_api.page_limit(query);
    kept   timestamptz := now() - (tiergate.setting('flows.retention') #>> '{}')::interval;
    low    timestamptz := greatest(tiergate_api.query_ago(query, 'since', kept), kept, t.created_at);
    high   timestamptz := tiergate_api.query_ago(query, 'until', 'infinity');
    before record;
    answer tiergate_api.response;
    p      record;
BEGIN
    SELECT 'infinity'::timestamptz AS at, 9223372036854775807 AS id INTO before;
    IF query ? 'cursor' THEN
        before := tiergate_api.flow_cursor(query);
    END IF;
    SELECT array_agg(x.item) AS items, array_agg(x.key) AS keys INTO p
      FROM (SELECT tiergate.flow_json(y.f, t.name) AS item,
                   floor(extract(epoch FROM y.at) * 1000000)::bigint || '-' || y.id AS key
              FROM ((SELECT f, f.at, f.id FROM tiergate.flows f
                      WHERE f.source_tenant = t.name AND f.at >= low AND f.at < high
                        AND (f.at, f.id) < (before.at, before.id) AND tiergate.flow_passes(f, filter)
                      ORDER BY f.at DESC, f.id DESC LIMIT most + 1)
                    UNION ALL
                    (SELECT f, f.at, f.id FROM tiergate.flows f
                      WHERE f.destination_tenant = t.name AND f.destination_tenant IS DISTINCT FROM f.source_tenant
                        AND f.at >= low AND f.at < high
                        AND (f.at, f.id) < (before.at, before.id) AND tiergate.flow_passes(f, filter)
                      ORDER BY f.at DESC, f.id DESC LIMIT most + 1)) y
             ORDER BY y.at DESC, y.id DESC LIMIT most + 1) x;
    answer := tiergate_api.page(p.items, p.keys, most);
    answer.body := (answer.body::jsonb || jsonb_build_object('lost', tiergate.flow_loss(t.name, low)))::text;
    RETURN answer;
END
$$;


CREATE OR REPLACE FUNCTION tiergate_api.get_servicemap(path text[], query jsonb, body jsonb)
RETURNS tiergate_api.response
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    t tiergate.tenants := tiergate.find_tenant(path[1]);
BEGIN
    PERFORM tiergate_api.check_query(query, 'since', 'format');
    PERFORM tiergate_api.query_one_of(query, 'format', 'json', 'dot', 'svg');
    RETURN tiergate_api.ok(tiergate.service_map(
        t.name, greatest(tiergate_api.query_ago(query, 'since', now() - interval '1 hour'), t.created_at)));
END
$$;


-- The first condition is judged by one hash of the role's tenants, what follows it
-- for their rows only.
ALTER POLICY own ON tiergate.audit
    USING (tenant IN (SELECT r.tenant FROM tiergate.tenant_roles r)
           AND at >= (SELECT t.created_at FROM tiergate.tenants t WHERE t.name = audit.tenant));

ALTER POLICY own ON tiergate.gateway_events
    USING (tenant IN (SELECT r.tenant FROM tiergate.tenant_roles r)
           AND at >= (SELECT t.created_at FROM tiergate.tenants t WHERE t.name = gateway_events.tenant));

ALTER POLICY own ON tiergate.handovers
    USING (tenant IN (SELECT r.tenant FROM tiergate.tenant_roles r)
           AND tenant_id = (SELECT t.id FROM tiergate.tenants t WHERE t.name = handovers.tenant));

ALTER POLICY own ON tiergate.usage
    USING (tenant IN (SELECT r.tenant FROM tiergate.tenant_roles r)
           AND minute >= date_trunc('minute', (SELECT t.created_at FROM tiergate.tenants t WHERE t.name = usage.tenant)));

ALTER POLICY own ON tiergate.flow_losses
    USING (tenant IN (SELECT r.tenant FROM tiergate.tenant_roles r)
           AND start >= tiergate.ten_minutes((SELECT t.created_at FROM tiergate.tenants t WHERE t.name = flow_losses.tenant)));

ALTER POLICY own ON tiergate.flows
    USING (source_tenant IN (SELECT r.tenant FROM tiergate.tenant_roles r)
           AND at >= (SELECT t.created_at FROM tiergate.tenants t WHERE t.name = flows.source_tenant)
           OR destination_tenant IN (SELECT r.tenant FROM tiergate.tenant_roles r)
           AND at >= (SELECT t.created_at FROM tiergate.tenants t WHERE t.name = flows.destination_tenant));

ALTER POLICY own ON tiergate.mesh_edges
    USING (source_tenant IN (SELECT r.tenant FROM tiergate.tenant_roles r)
           AND start >= tiergate.ten_minutes((SELECT t.created_at FROM tiergate.tenants t WHERE t.name = mesh_edges.source_tenant))
           OR destination_tenant IN (SELECT r.tenant FROM tiergate.tenant_roles r)
           AND start >= tiergate.ten_minutes((SELECT t.created_at FROM tiergate.tenants t WHERE t.name = mesh_edges.destination_tenant)));

COMMIT;
