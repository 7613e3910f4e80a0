-- SPDX-License-Identifier: BSD-2-Clause
--
-- What is seen of dedicated gateways: views for psql, objects and functions of the
-- REST API; and what older functions have to know of them.

BEGIN;

INSERT INTO tiergate.schema_migrations (version, name) VALUES (24, 'gateway_api');

CREATE FUNCTION tiergate.instance_next(i tiergate.instances)
RETURNS text
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    h tiergate.handovers;
BEGIN
    IF i.node IS NULL THEN
        RETURN 'a tenantd with a provisioner takes it';
    ELSIF i.desired = 'absent' THEN
        RETURN CASE i.phase WHEN 'stopped' THEN 'its files are removed'
                            WHEN 'draining' THEN 'it ends when its requests have ended'
                            ELSE 'it is drained' END;
    ELSIF i.retry_at > now() THEN
        RETURN format('attempt %s in %s s', i.attempts + 1, ceil(extract(epoch FROM i.retry_at - now())));
    ELSIF i.phase IN ('pending', 'stopped', 'failed') THEN
        RETURN 'it is started';
    ELSIF i.phase = 'starting' THEN
        RETURN 'it is ready when it has its tenant';
    ELSIF i.phase = 'rolling' THEN
        RETURN 'it is ready when new workers have taken over';
    ELSIF i.generation > i.observed_generation THEN
        RETURN format('it rolls from generation %s to %s', i.observed_generation, i.generation);
    END IF;
    SELECT * INTO h FROM tiergate.handovers x WHERE x.tenant_id = i.tenant_id AND x.finished_at IS NULL;
    IF FOUND THEN
        RETURN format('%s: %s waits for %s', h.direction, h.step,
                      array_to_string(coalesce(tiergate.silent_gateways(h), h.gateways), ', '));
    ELSIF i.linger_until IS NOT NULL THEN
        RETURN format('it is drained in %s s', greatest(ceil(extract(epoch FROM i.linger_until - now())), 0));
    END IF;
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION tiergate.instance_next(tiergate.instances) IS
    'What happens next to an instance, in words; null if nothing is to be done';


CREATE VIEW tiergate.gateway_status WITH (security_invoker = true) AS
    SELECT g.name AS gateway, g.tenant, coalesce(i.phase, g.state) AS phase, i.since,
           nullif(concat_ws(': ', nullif(i.reason, ''), nullif(i.message, '')), '') AS why,
           tiergate.instance_next(i) AS next,
           CASE WHEN i.port IS NOT NULL THEN
               CASE family(i.address) WHEN 6 THEN format('[%s]', host(i.address)) ELSE host(i.address) END || ':' || i.port END AS address,
           i.pid, g.revision,
           (SELECT array_agg(s.plugin ORDER BY s.plugin) FROM tiergate.plugin_set(i.tenant, i.tier) s) AS plugins
      FROM tiergate.gateways g
      LEFT JOIN tiergate.instances i ON i.name = g.name;

COMMENT ON VIEW   tiergate.gateway_status          IS 'Gateways: which state, since when, why, and what comes next';
COMMENT ON COLUMN tiergate.gateway_status.gateway  IS 'Gateway';
COMMENT ON COLUMN tiergate.gateway_status.tenant   IS 'Tenant of a dedicated one';
COMMENT ON COLUMN tiergate.gateway_status.phase    IS 'Phase of one that tenantd runs; of others what they last reported';
COMMENT ON COLUMN tiergate.gateway_status.since    IS 'Since when it is in this phase';
COMMENT ON COLUMN tiergate.gateway_status.why      IS 'Why';
COMMENT ON COLUMN tiergate.gateway_status.next     IS 'What happens next; null if nothing is to be done';
COMMENT ON COLUMN tiergate.gateway_status.address  IS 'Where it is reached';
COMMENT ON COLUMN tiergate.gateway_status.pid      IS 'Process id of its master';
COMMENT ON COLUMN tiergate.gateway_status.revision IS 'Revision up to which it has applied every change';
COMMENT ON COLUMN tiergate.gateway_status.plugins  IS 'Plugins that it has';


CREATE VIEW tiergate.gateway_log WITH (security_invoker = true) AS
    SELECT e.at, e.gateway, e.tenant, e.phase, e.reason, e.message
      FROM tiergate.gateway_events e
     ORDER BY e.id;

COMMENT ON VIEW   tiergate.gateway_log         IS 'What happened to gateways that tenantd runs, oldest first';
COMMENT ON COLUMN tiergate.gateway_log.at      IS 'When';
COMMENT ON COLUMN tiergate.gateway_log.gateway IS 'Gateway';
COMMENT ON COLUMN tiergate.gateway_log.tenant  IS 'Its tenant';
COMMENT ON COLUMN tiergate.gateway_log.phase   IS 'Phase that it was in from then on';
COMMENT ON COLUMN tiergate.gateway_log.reason  IS 'Why, in one word';
COMMENT ON COLUMN tiergate.gateway_log.message IS 'Why, in a sentence';


-- A count that has been carried to another gateway is not counted where it was.
CREATE OR REPLACE VIEW tiergate.quota_status WITH (security_invoker = true) AS
    SELECT q.tenant, q.name AS quota, q.route,
           CASE WHEN q.consumer = '*' THEN coalesce(f.key, '*') ELSE q.consumer END AS consumer,
           q.metric, b."limit", tiergate.quota_window(q.per) AS per,
           coalesce(f.used, 0) AS used,
           CASE WHEN q.metric <> 'body_size' THEN greatest(b."limit" - coalesce(f.used, 0), 0) END AS remaining,
           coalesce(f.throttled, 0) AS throttled, q.dry_run, f.at AS reported_at
      FROM tiergate.quotas q
      JOIN tiergate.tenants t ON t.name = q.tenant
     CROSS JOIN LATERAL (
           SELECT CASE WHEN q.metric = 'requests' AND t.boost_until > now()
                       THEN floor(q.requests * t.boost_factor)::bigint
                       ELSE coalesce(q.requests, q.concurrency, q.body_size) END AS "limit") b
      LEFT JOIN LATERAL (
           SELECT r.key, sum(CASE
                      WHEN q.metric = 'concurrency' THEN
                          CASE WHEN g.last_seen > now() - interval '15 seconds' THEN r.used ELSE 0 END
                      WHEN tiergate.quota_window(q.per) IN ('day', 'month') THEN
                          CASE WHEN date_trunc(tiergate.quota_window(q.per), r.at AT TIME ZONE 'UTC')
                                  = date_trunc(tiergate.quota_window(q.per), now() AT TIME ZONE 'UTC')
                               THEN r.used ELSE 0 END
                      WHEN q.metric = 'requests' THEN
                          greatest(0, ceil(r.used - b."limit" * extract(epoch FROM clock_timestamp() - r.at)
                                                  / extract(epoch FROM q.per)))
                      ELSE r.used END)::bigint AS used,
                  sum(r.throttled)::bigint AS throttled, max(r.at) AS at
             FROM tiergate.quota_usage r
             LEFT JOIN tiergate.gateways g ON g.name = r.gateway
            WHERE r.quota_id = q.id AND (g.kind IS NULL OR g.kind = t.placement)
            GROUP BY r.key) f ON true;


-- Objects

CREATE OR REPLACE FUNCTION tiergate.tenant_json(t tiergate.tenants)
RETURNS jsonb
LANGUAGE plpgsql STABLE
AS $$
BEGIN
    RETURN jsonb_strip_nulls(jsonb_build_object(
        'id', t.id, 'name', t.name, 'tier', t.tier, 'placement', t.placement, 'forwarding', t.forwarding,
        'state', t.state, 'reason', t.reason,
        'display_name', t.display_name, 'labels', t.labels,
        'boost', CASE WHEN t.boost_until > now() THEN
            jsonb_build_object('factor', t.boost_factor, 'until', t.boost_until) END,
        'hosts', (SELECT coalesce(jsonb_agg(h.host ORDER BY h.host), '[]')
                    FROM tiergate.hosts h WHERE h.tenant = t.name),
        'created_at', t.created_at,
        'revision', tiergate.revision_of('tenant', t.id),
        'observedRevision',
            (SELECT coalesce(jsonb_object_agg(g.name, g.revision), '{}')
               FROM tiergate.gateways g
              WHERE g.tenant IS NULL
                 OR t.placement = 'dedicated' AND g.tenant = t.name
                    AND NOT EXISTS (SELECT FROM tiergate.instances i WHERE i.name = g.name AND i.tenant_id <> t.id)),
        'rejected',
            (SELECT jsonb_object_agg(g.name, r.value->>'reason')
               FROM tiergate.gateways g, jsonb_array_elements(g.rejected) r
              WHERE g.rejected <> '[]' AND r.value @> jsonb_build_object('kind', 'tenant', 'name', t.name))));
END
$$;


CREATE FUNCTION tiergate.handover_json(h tiergate.handovers)
RETURNS jsonb
LANGUAGE plpgsql STABLE
AS $$
BEGIN
    RETURN jsonb_strip_nulls(jsonb_build_object(
        'id', h.id, 'direction', h.direction, 'step', h.step, 'started_at', h.started_at, 'step_at', h.step_at,
        'waiting_for', CASE WHEN h.finished_at IS NULL THEN to_jsonb(coalesce(tiergate.silent_gateways(h), '{}')) END,
        'finished_at', h.finished_at, 'outcome', h.outcome));
END
$$;

COMMENT ON FUNCTION tiergate.handover_json(tiergate.handovers) IS 'A handover as the REST API shows it';


CREATE FUNCTION tiergate.instance_json(i tiergate.instances)
RETURNS jsonb
LANGUAGE plpgsql STABLE
AS $$
BEGIN
    RETURN jsonb_strip_nulls(jsonb_build_object(
        'desired', i.desired, 'generation', i.generation, 'observedGeneration', i.observed_generation,
        'phase', i.phase, 'since', i.since, 'reason', i.reason, 'message', i.message,
        'next', tiergate.instance_next(i), 'conditions', i.conditions,
        'attempts', i.attempts, 'retry_at', i.retry_at, 'node', i.node, 'driver', i.driver,
        'address', host(i.address), 'port', i.port, 'pid', i.pid, 'started_at', i.started_at, 'restarts', i.restarts,
        'plugins', (SELECT coalesce(jsonb_agg(s.plugin ORDER BY s.plugin), '[]') FROM tiergate.plugin_set(i.tenant, i.tier) s),
        'handover', (SELECT tiergate.handover_json(h) FROM tiergate.handovers h
                      WHERE h.tenant_id = i.tenant_id ORDER BY h.id DESC LIMIT 1)));
END
$$;

COMMENT ON FUNCTION tiergate.instance_json(tiergate.instances) IS
    'What the REST API shows of a gateway that tenantd runs, beside what it shows of all';


CREATE OR REPLACE FUNCTION tiergate.gateway_json(g tiergate.gateways)
RETURNS jsonb
LANGUAGE plpgsql STABLE
AS $$
BEGIN
    RETURN jsonb_strip_nulls(jsonb_build_object(
        'name', g.name, 'kind', g.kind, 'tenant', g.tenant, 'state', g.state, 'observedRevision', g.revision,
        'boot', g.boot, 'last_seen', g.last_seen, 'tenants', g.tenants,
        'zone', CASE WHEN g.zone_size IS NOT NULL THEN
            jsonb_build_object('size', g.zone_size, 'used', g.zone_used) END,
        'rejected', g.rejected, 'created_at', g.created_at))
        || coalesce((SELECT tiergate.instance_json(i) FROM tiergate.instances i WHERE i.name = g.name), '{}');
END
$$;


CREATE FUNCTION tiergate.event_json(e tiergate.gateway_events)
RETURNS jsonb
LANGUAGE plpgsql STABLE
AS $$
BEGIN
    RETURN jsonb_build_object('id', e.id, 'at', e.at, 'phase', e.phase, 'reason', e.reason, 'message', e.message);
END
$$;

COMMENT ON FUNCTION tiergate.event_json(tiergate.gateway_events) IS 'An event of a gateway as the REST API shows it';


-- Changes of a tenant

INSERT INTO tiergate.body_fields (object, field, type, choices, description) VALUES
    ('tenant_patch', 'forwarding', 'string', '{forward,misdirect}',
     'What shared gateways do with requests for a tenant that has its own');
ALTER TYPE tiergate.tenant_patch_body ADD ATTRIBUTE forwarding text;
COMMENT ON COLUMN tiergate.tenant_patch_body.forwarding IS
    'What shared gateways do with requests for a tenant that has its own';


-- RFC 7396: null removes, an object is merged, anything else replaces.
CREATE OR REPLACE FUNCTION tiergate.patch_tenant(tenant text, patch jsonb)
RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
    p tiergate.tenant_patch_body := tiergate.parse_tenant_patch(patch);
    v tiergate.violation;
    h text;
    n integer := 0;
    base text := '';
BEGIN
    PERFORM tiergate.find_tenant(tenant);
    SELECT k INTO h FROM unnest('{tier,forwarding,state}'::text[]) k WHERE patch->k = 'null';
    IF FOUND THEN
        PERFORM tiergate.refuse(422, 'missing-field', '/' || h, format('/%s cannot be removed', h));
    END IF;

    UPDATE tiergate.tenants t
       SET tier         = coalesce(p.tier, t.tier),
           forwarding   = coalesce(p.forwarding, t.forwarding),
           state        = coalesce(p.state, t.state),
           reason       = CASE WHEN patch ? 'reason' THEN p.reason ELSE t.reason END,
           display_name = CASE WHEN patch ? 'display_name' THEN p.display_name ELSE t.display_name END,
           labels       = CASE WHEN patch->'labels' = 'null' THEN '{}'
                               WHEN patch ? 'labels' THEN jsonb_strip_nulls(t.labels || (patch->'labels'))
                               ELSE t.labels END
     WHERE t.name = patch_tenant.tenant
       AND patch ?| '{tier,forwarding,state,reason,display_name,labels}';

    IF patch ? 'hosts' THEN
        DELETE FROM tiergate.hosts x
         WHERE x.tenant = patch_tenant.tenant AND x.host <> ALL (coalesce(p.hosts, '{}'));
        FOREACH h IN ARRAY coalesce(p.hosts, '{}') LOOP
            base := '/hosts/' || n;
            PERFORM tiergate.write_hosts(ARRAY[tenant], ARRAY[h], true);
            n := n + 1;
        END LOOP;
    END IF;
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS v.state = RETURNED_SQLSTATE, v.message = MESSAGE_TEXT,
                            v.detail = PG_EXCEPTION_DETAIL, v.hint = PG_EXCEPTION_HINT,
                            v.constraint_name = CONSTRAINT_NAME, v.table_name = TABLE_NAME,
                            v.pointer = COLUMN_NAME;
    IF v.state ~ '^2[123]' THEN
        PERFORM tiergate.refuse_body('tenant_patch', jsonb_strip_nulls(patch));
    END IF;
    PERFORM tiergate.refuse_violation(v, base);
END
$$;

COMMENT ON FUNCTION tiergate.patch_tenant(text, jsonb) IS
    'Changes a tenant by a JSON merge patch of tier, forwarding, state, reason, display_name, labels, hosts';


CREATE OR REPLACE FUNCTION tiergate_api.patch_tenant(path text[], query jsonb, body jsonb)
RETURNS tiergate_api.response
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    field text;
BEGIN
    PERFORM tiergate_api.check_query(query);
    IF current_setting('tiergate.scope', true) = 'tenant' THEN
        SELECT k INTO field FROM unnest('{tier,forwarding,state,reason}'::text[]) k WHERE body ? k;
        IF FOUND THEN
            PERFORM tiergate.refuse(403, 'forbidden', '/' || field,
                                    format('/%s is for the platform to change', field), 'it takes scope admin');
        END IF;
    END IF;
    PERFORM tiergate.patch_tenant(path[1], body);
    RETURN tiergate_api.shown_tenant(path[1]);
END
$$;


-- Gateways

CREATE FUNCTION tiergate_api.get_tenant_gateway(path text[], query jsonb, body jsonb)
RETURNS tiergate_api.response
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM tiergate_api.check_query(query);
    RETURN tiergate_api.ok(tiergate.gateway_json(tiergate_api.find_gateway((tiergate.find_instance(path[1])).name)));
END
$$;

COMMENT ON FUNCTION tiergate_api.get_tenant_gateway(text[], jsonb, jsonb) IS 'GET /v1/tenants/{tenant}/gateway';


-- newest first; they outlive the gateway
CREATE FUNCTION tiergate_api.list_gateway_events(path text[], query jsonb, body jsonb)
RETURNS tiergate_api.response
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    most integer := tiergate_api.page_limit(query);
    high bigint  := coalesce(tiergate_api.page_number(query), 9223372036854775807);
    p    record;
BEGIN
    PERFORM tiergate_api.check_query(query, 'limit', 'cursor');
    SELECT array_agg(x.item) AS items, array_agg(x.id::text) AS keys INTO p
      FROM (SELECT e.id, tiergate.event_json(e) AS item FROM tiergate.gateway_events e
             WHERE e.gateway = path[1] AND e.id < high ORDER BY e.id DESC LIMIT most + 1) x;
    IF p.items IS NULL THEN
        PERFORM tiergate_api.find_gateway(path[1]);
    END IF;
    RETURN tiergate_api.page(p.items, p.keys, most);
END
$$;

COMMENT ON FUNCTION tiergate_api.list_gateway_events(text[], jsonb, jsonb) IS 'GET /v1/gateways/{gateway}/events';


CREATE FUNCTION tiergate_api.report_handover(path text[], query jsonb, body jsonb)
RETURNS tiergate_api.response
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM tiergate_api.check_query(query);
    PERFORM tiergate.handover_report(path[1], body);
    RETURN tiergate_api.no_content();
END
$$;

COMMENT ON FUNCTION tiergate_api.report_handover(text[], jsonb, jsonb) IS 'POST /v1/gateways/{gateway}/handover';


-- A request that was passed on is metered where it was passed to.  What an
-- instance says is believed about its own tenant only.
CREATE FUNCTION tiergate.metered_usage(gateway text, report jsonb)
RETURNS jsonb
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    owner text;
BEGIN
    IF jsonb_typeof(report->'counters') IS DISTINCT FROM 'array' THEN
        RETURN report;
    END IF;
    IF gateway LIKE 'dedicated-%' THEN
        owner := coalesce((SELECT i.tenant FROM tiergate.instances i WHERE i.name = gateway), '');
    ELSIF NOT report->'counters' @> '[{"route": "tiergate-forward"}]' THEN
        RETURN report;
    END IF;
    RETURN report
        || jsonb_build_object('counters',
               (SELECT coalesce(jsonb_agg(c.value), '[]') FROM jsonb_array_elements(report->'counters') c
                 WHERE c.value->>'route' IS DISTINCT FROM 'tiergate-forward'
                   AND (owner IS NULL OR c.value->>'tenant' = owner)))
        || CASE WHEN owner IS NOT NULL AND jsonb_typeof(report->'quotas') = 'array' THEN jsonb_build_object('quotas',
               (SELECT coalesce(jsonb_agg(r.value), '[]') FROM jsonb_array_elements(report->'quotas') r
                  JOIN tiergate.quotas q ON q.id::text = r.value->>'id' AND q.tenant = owner)) ELSE '{}' END;
END
$$;

COMMENT ON FUNCTION tiergate.metered_usage(text, jsonb) IS
    'A usage report without what other gateways meter, and from an instance without other tenants';


CREATE OR REPLACE FUNCTION tiergate_api.report_usage(path text[], query jsonb, body jsonb)
RETURNS tiergate_api.response
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM tiergate_api.check_query(query);
    PERFORM tiergate.record_usage(path[1], tiergate.metered_usage(path[1], body));
    RETURN tiergate_api.no_content();
END
$$;


-- Housekeeping

ALTER FUNCTION tiergate.housekeeping() RENAME TO registry_housekeeping;

COMMENT ON FUNCTION tiergate.registry_housekeeping() IS
    'Part of housekeeping(): usage, changes, remembered answers, API keys that expired 30 days ago';

CREATE FUNCTION tiergate.housekeeping()
RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM tiergate.registry_housekeeping();

    DELETE FROM tiergate.gateway_events e WHERE e.at < now() - interval '30 days';
    PERFORM tiergate.trim_events(c.gateway)
       FROM (SELECT e.gateway FROM tiergate.gateway_events e GROUP BY e.gateway HAVING count(*) > 1000) c;
    DELETE FROM tiergate.handovers h WHERE h.finished_at < now() - interval '30 days';
    UPDATE tiergate.handovers h SET words = '[]'
     WHERE h.finished_at < now() - interval '5 minutes' AND h.words <> '[]';
END
$$;

COMMENT ON FUNCTION tiergate.housekeeping() IS
    'Makes partitions ahead, and drops what has outlived its retention: usage, changes, remembered answers, API keys that expired 30 days ago, events and handovers of 30 days ago';


-- Who may do what, see 0013_security

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA tiergate, tiergate_api FROM PUBLIC;

GRANT SELECT ON tiergate.gateway_status TO tiergate_admin, tiergate_reader;
GRANT SELECT ON tiergate.gateway_log TO tiergate_admin, tiergate_reader, tiergate_tenant;
GRANT SELECT (kind) ON tiergate.gateways TO tiergate_quota_admin, tiergate_tenant;
GRANT SELECT (placement) ON tiergate.tenants TO tiergate_quota_admin;
GRANT EXECUTE ON FUNCTION
    tiergate.instance_next(tiergate.instances), tiergate.silent_gateways(tiergate.handovers)
    TO tiergate_admin, tiergate_reader;
GRANT EXECUTE ON FUNCTION
    tiergate.housekeeping(),
    tiergate_api.get_tenant_gateway(text[], jsonb, jsonb), tiergate_api.list_gateway_events(text[], jsonb, jsonb),
    tiergate_api.report_handover(text[], jsonb, jsonb)
    TO tiergate_daemon;

COMMIT;
