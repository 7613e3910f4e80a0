-- SPDX-License-Identifier: BSD-2-Clause
--
-- What comes back from the gateways: acknowledgements, usage, the fill of
-- quotas; and the key sets that tenantd fetches.
--
-- None of it makes a revision or a notification, but a key set that changed.
-- Reports carry counters that only rise during the life of a gateway's shared
-- memory (boot); what is added to usage is the difference to the highest value
-- seen, so that a repeated report counts once and a lost one is made up for by
-- the next.  Losing the last of them to a crash of PostgreSQL is therefore
-- harmless, and their commits do not wait for the disk.

BEGIN;

INSERT INTO tiergate.schema_migrations (version, name) VALUES (9, 'gateways_and_usage');

CREATE FUNCTION tiergate.relax_commit()
RETURNS void
LANGUAGE sql
AS $$
    SELECT set_config('synchronous_commit', 'off', true)
$$;

COMMENT ON FUNCTION tiergate.relax_commit() IS 'Lets the present transaction commit without waiting for the disk';


-- A gateway that reports for the first time is registered as shared.
CREATE FUNCTION tiergate.gateway_ack(gateway text, boot text, revision bigint, report jsonb)
RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    state    text  := report->>'state';
    rejected jsonb := coalesce(report->'rejected', '[]');
BEGIN
    IF gateway IS NULL OR NOT tiergate.is_name(gateway) THEN
        PERFORM tiergate.refuse(422, 'invalid-name', '', format('gateway "%s" is no name', gateway));
    END IF;
    IF boot IS NULL OR octet_length(boot) NOT BETWEEN 1 AND 128 THEN
        PERFORM tiergate.refuse(422, 'invalid-report', '/boot', 'boot has 1 to 128 bytes');
    END IF;
    IF revision IS NULL OR revision < 0 THEN
        PERFORM tiergate.refuse(422, 'invalid-report', '/revision', 'revision is a number from 0');
    END IF;
    IF state IS NULL OR state NOT IN ('loading', 'snapshot', 'live') THEN
        PERFORM tiergate.refuse(422, 'invalid-report', '/state', 'state is loading, snapshot or live');
    END IF;
    IF jsonb_typeof(rejected) <> 'array' OR jsonb_array_length(rejected) > 100 THEN
        PERFORM tiergate.refuse(422, 'invalid-report', '/rejected', 'rejected is an array of at most 100');
    END IF;
    IF report->>'registry' <> (SELECT r.id::text FROM tiergate.registry r) THEN
        PERFORM tiergate.refuse(409, 'other-registry', '/registry', 'the acknowledgement is of another registry',
                                'list again with since=0');
    END IF;

    PERFORM tiergate.relax_commit();
    INSERT INTO tiergate.gateways AS g
        (name, boot, revision, state, last_seen, tenants, zone_size, zone_used, rejected)
    VALUES (gateway, gateway_ack.boot, gateway_ack.revision, state, clock_timestamp(),
            (report->>'tenants')::integer, (report #>> '{zone,size}')::bigint,
            (report #>> '{zone,used}')::bigint, rejected)
        ON CONFLICT (name) DO UPDATE SET
           boot = EXCLUDED.boot,
           -- acknowledgements may overtake each other
           revision = CASE WHEN g.boot = EXCLUDED.boot THEN greatest(g.revision, EXCLUDED.revision)
                           ELSE EXCLUDED.revision END,
           state = EXCLUDED.state, last_seen = EXCLUDED.last_seen, tenants = EXCLUDED.tenants,
           zone_size = EXCLUDED.zone_size, zone_used = EXCLUDED.zone_used, rejected = EXCLUDED.rejected;
EXCEPTION WHEN data_exception THEN
    PERFORM tiergate.refuse(422, 'invalid-report', '', 'the acknowledgement has a number that is none',
                            'docs/reference/watch.md describes it');
END
$$;

COMMENT ON FUNCTION tiergate.gateway_ack(text, text, bigint, jsonb) IS
    'A gateway has applied every change up to a revision; report is the body of the acknowledgement';


-- Usage

CREATE TABLE tiergate.usage (
    minute     timestamptz NOT NULL,
    tenant     text        NOT NULL COLLATE "C",
    route      text        NOT NULL COLLATE "C",
    gateway    text        NOT NULL COLLATE "C",
    requests   bigint      NOT NULL DEFAULT 0,
    status_1xx bigint      NOT NULL DEFAULT 0,
    status_2xx bigint      NOT NULL DEFAULT 0,
    status_3xx bigint      NOT NULL DEFAULT 0,
    status_4xx bigint      NOT NULL DEFAULT 0,
    status_5xx bigint      NOT NULL DEFAULT 0,
    denied     bigint      NOT NULL DEFAULT 0,
    throttled  bigint      NOT NULL DEFAULT 0,
    bytes_in   bigint      NOT NULL DEFAULT 0,
    bytes_out  bigint      NOT NULL DEFAULT 0,
    latency_us bigint      NOT NULL DEFAULT 0,
    latency    bigint[]    NOT NULL DEFAULT '{0,0,0,0,0,0,0,0,0,0,0,0}',
    PRIMARY KEY (tenant, minute, route, gateway)
) PARTITION BY RANGE (minute);

COMMENT ON TABLE  tiergate.usage            IS 'Usage by minute; partitioned by day, kept for setting usage.retention';
COMMENT ON COLUMN tiergate.usage.minute     IS 'Minute in which it was reported';
COMMENT ON COLUMN tiergate.usage.tenant     IS 'Tenant';
COMMENT ON COLUMN tiergate.usage.route      IS 'Route; empty for requests that matched none';
COMMENT ON COLUMN tiergate.usage.gateway    IS 'Gateway';
COMMENT ON COLUMN tiergate.usage.requests   IS 'Requests';
COMMENT ON COLUMN tiergate.usage.status_1xx IS 'Responses of class 1xx';
COMMENT ON COLUMN tiergate.usage.status_2xx IS 'Responses of class 2xx';
COMMENT ON COLUMN tiergate.usage.status_3xx IS 'Responses of class 3xx';
COMMENT ON COLUMN tiergate.usage.status_4xx IS 'Responses of class 4xx';
COMMENT ON COLUMN tiergate.usage.status_5xx IS 'Responses of class 5xx';
COMMENT ON COLUMN tiergate.usage.denied     IS 'Requests refused for their credentials';
COMMENT ON COLUMN tiergate.usage.throttled  IS 'Requests refused by a quota';
COMMENT ON COLUMN tiergate.usage.bytes_in   IS 'Bytes received from clients';
COMMENT ON COLUMN tiergate.usage.bytes_out  IS 'Bytes sent to clients';
COMMENT ON COLUMN tiergate.usage.latency_us IS 'Sum of the requests'' times, in microseconds';
COMMENT ON COLUMN tiergate.usage.latency    IS 'Requests of at most 1, 2.5, 5, 10, 25, 50, 100, 250, 500, 1000, 2500 ms, and above';


CREATE TABLE tiergate.usage_counters (
    gateway  text        NOT NULL COLLATE "C",
    boot     text        NOT NULL COLLATE "C",
    tenant   text        NOT NULL COLLATE "C",
    route    text        NOT NULL COLLATE "C",
    life     bigint      NOT NULL,
    counters bigint[]    NOT NULL,
    at       timestamptz NOT NULL,
    PRIMARY KEY (gateway, boot, tenant, route, life)
) WITH (fillfactor = 50);

COMMENT ON TABLE  tiergate.usage_counters          IS 'Highest counters seen of each gateway, from which usage is the difference';
COMMENT ON COLUMN tiergate.usage_counters.gateway  IS 'Gateway';
COMMENT ON COLUMN tiergate.usage_counters.boot     IS 'Life of its shared memory';
COMMENT ON COLUMN tiergate.usage_counters.tenant   IS 'Tenant';
COMMENT ON COLUMN tiergate.usage_counters.route    IS 'Route; empty for requests that matched none';
COMMENT ON COLUMN tiergate.usage_counters.life     IS 'Which set of counters: a route or tenant that comes back counts from zero';
COMMENT ON COLUMN tiergate.usage_counters.counters IS 'requests, 5 status classes, denied, throttled, bytes in and out, latency_us, 12 of latency';
COMMENT ON COLUMN tiergate.usage_counters.at       IS 'When they were last reported';


CREATE TABLE tiergate.quota_usage (
    quota_id  bigint      NOT NULL,
    gateway   text        NOT NULL COLLATE "C",
    key       text        NOT NULL COLLATE "C",
    tenant    text        NOT NULL COLLATE "C",
    used      bigint      NOT NULL,
    throttled bigint      NOT NULL,
    at        timestamptz NOT NULL,
    PRIMARY KEY (quota_id, gateway, key)
) WITH (fillfactor = 50);

COMMENT ON TABLE  tiergate.quota_usage           IS 'Fill of quotas, as gateways last reported it';
COMMENT ON COLUMN tiergate.quota_usage.quota_id  IS 'Quota';
COMMENT ON COLUMN tiergate.quota_usage.gateway   IS 'Gateway';
COMMENT ON COLUMN tiergate.quota_usage.key       IS 'Consumer, of a quota that counts each; else empty';
COMMENT ON COLUMN tiergate.quota_usage.tenant    IS 'Tenant of the quota';
COMMENT ON COLUMN tiergate.quota_usage.used      IS 'Requests in the window, or in flight';
COMMENT ON COLUMN tiergate.quota_usage.throttled IS 'Requests refused since the gateway booted';
COMMENT ON COLUMN tiergate.quota_usage.at        IS 'When it was reported';


CREATE FUNCTION tiergate.rise(before bigint[], after bigint[])
RETURNS bigint[]
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
AS $$
BEGIN
    IF before IS NOT NULL THEN
        FOR i IN 1 .. cardinality(after) LOOP
            after[i] := greatest(after[i] - before[i], 0);
        END LOOP;
    END IF;
    RETURN after;
END
$$;

COMMENT ON FUNCTION tiergate.rise(bigint[], bigint[]) IS 'By how much each counter has risen';


CREATE FUNCTION tiergate.highest(a bigint[], b bigint[])
RETURNS bigint[]
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
AS $$
BEGIN
    FOR i IN 1 .. cardinality(a) LOOP
        a[i] := greatest(a[i], b[i]);
    END LOOP;
    RETURN a;
END
$$;

COMMENT ON FUNCTION tiergate.highest(bigint[], bigint[]) IS 'The greater of each pair';


CREATE FUNCTION tiergate.total(a bigint[], b bigint[])
RETURNS bigint[]
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
AS $$
BEGIN
    FOR i IN 1 .. cardinality(a) LOOP
        a[i] := a[i] + b[i];
    END LOOP;
    RETURN a;
END
$$;

COMMENT ON FUNCTION tiergate.total(bigint[], bigint[]) IS 'The sum of each pair';

CREATE AGGREGATE tiergate.total(bigint[]) (SFUNC = tiergate.total, STYPE = bigint[],
    INITCOND = '{0,0,0,0,0,0,0,0,0,0,0,0}');

COMMENT ON AGGREGATE tiergate.total(bigint[]) IS 'Sum of latency histograms';


-- Made beside the table and then attached, which does not block its readers.
CREATE FUNCTION tiergate.ensure_usage_partition(day date)
RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    part text := 'usage_' || to_char(day, 'YYYYMMDD');
BEGIN
    IF to_regclass('tiergate.' || part) IS NOT NULL THEN
        RETURN;
    END IF;
    PERFORM pg_advisory_xact_lock(hashtextextended('tiergate.usage', 0));
    IF to_regclass('tiergate.' || part) IS NOT NULL THEN
        RETURN;
    END IF;
    EXECUTE format('CREATE TABLE tiergate.%I (LIKE tiergate.usage INCLUDING DEFAULTS)', part);
    EXECUTE format('ALTER TABLE tiergate.%I ENABLE ROW LEVEL SECURITY', part);
    EXECUTE format('COMMENT ON TABLE tiergate.%I IS %L', part, format('Usage of %s (UTC)', day));
    EXECUTE format('ALTER TABLE tiergate.usage ATTACH PARTITION tiergate.%I FOR VALUES FROM (%L) TO (%L)',
                   part, day || ' 00:00:00+00', day + 1 || ' 00:00:00+00');
END
$$;

COMMENT ON FUNCTION tiergate.ensure_usage_partition(date) IS 'Makes the partition of usage for a day (UTC)';


CREATE FUNCTION tiergate.report_counters(c jsonb)
RETURNS bigint[]
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT ARRAY[coalesce((c->>'requests')::bigint, 0)]
        || coalesce((SELECT array_agg(s::bigint ORDER BY n)
                       FROM jsonb_array_elements_text(c->'status') WITH ORDINALITY x (s, n) WHERE n <= 5),
                    '{0,0,0,0,0}')
        || ARRAY[coalesce((c->>'denied')::bigint, 0), coalesce((c->>'throttled')::bigint, 0),
                 coalesce((c->>'bytes_in')::bigint, 0), coalesce((c->>'bytes_out')::bigint, 0),
                 coalesce((c->>'latency_us')::bigint, 0)]
        || coalesce((SELECT array_agg(s::bigint ORDER BY n)
                       FROM jsonb_array_elements_text(c->'latency') WITH ORDINALITY x (s, n) WHERE n <= 12),
                    '{0,0,0,0,0,0,0,0,0,0,0,0}')
$$;

COMMENT ON FUNCTION tiergate.report_counters(jsonb) IS
    'The counters of one entry of a usage report, in the order of usage_counters.counters';


CREATE FUNCTION tiergate.record_usage(gateway text, report jsonb)
RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    this     text        := report->>'boot';
    reported timestamptz := to_timestamp((report->>'time')::numeric / 1000.0);
    stamp    timestamptz;
BEGIN
    IF this IS NULL OR octet_length(this) NOT BETWEEN 1 AND 128 THEN
        PERFORM tiergate.refuse(422, 'invalid-report', '/boot', 'boot has 1 to 128 bytes');
    END IF;
    IF jsonb_typeof(coalesce(report->'counters', '[]')) <> 'array'
       OR jsonb_typeof(coalesce(report->'quotas', '[]')) <> 'array' THEN
        PERFORM tiergate.refuse(422, 'invalid-report', '', 'counters and quotas are arrays');
    END IF;

    PERFORM tiergate.relax_commit();
    -- a repeated report may come by another tenantd while the first is at work
    PERFORM pg_advisory_xact_lock(hashtextextended('tiergate.usage/' || gateway, 0));

    -- a gateway's clock is believed if it is near ours
    stamp := date_trunc('minute', CASE WHEN reported BETWEEN now() - interval '1 hour' AND now()
                                       THEN reported ELSE now() END);
    PERFORM tiergate.ensure_usage_partition((stamp AT TIME ZONE 'UTC')::date);

    WITH given AS MATERIALIZED (
        SELECT c.value->>'tenant' AS tenant, coalesce(c.value->>'route', '') AS route,
               coalesce((c.value->>'life')::bigint, 0) AS incarnation,
               tiergate.report_counters(c.value) AS counters
          FROM jsonb_array_elements(coalesce(report->'counters', '[]')) c
    ), risen AS MATERIALIZED (
        SELECT g.tenant, g.route, g.incarnation, g.counters, tiergate.rise(k.counters, g.counters) AS rise
          FROM given g
          LEFT JOIN tiergate.usage_counters k
                 ON k.gateway = record_usage.gateway AND k.boot = this
                AND k.tenant = g.tenant AND k.route = g.route AND k.life = g.incarnation
         WHERE cardinality(g.counters) = 23
    ), kept AS (
        INSERT INTO tiergate.usage_counters AS k (gateway, boot, tenant, route, life, counters, at)
        SELECT record_usage.gateway, this, r.tenant, r.route, r.incarnation, r.counters, now() FROM risen r
            ON CONFLICT (gateway, boot, tenant, route, life) DO UPDATE
           SET counters = tiergate.highest(k.counters, EXCLUDED.counters), at = EXCLUDED.at
    )
    INSERT INTO tiergate.usage AS u
        (minute, tenant, route, gateway, requests, status_1xx, status_2xx, status_3xx, status_4xx, status_5xx,
         denied, throttled, bytes_in, bytes_out, latency_us, latency)
    SELECT stamp, r.tenant, r.route, record_usage.gateway, sum(r.rise[1]), sum(r.rise[2]), sum(r.rise[3]),
           sum(r.rise[4]), sum(r.rise[5]), sum(r.rise[6]), sum(r.rise[7]), sum(r.rise[8]), sum(r.rise[9]),
           sum(r.rise[10]), sum(r.rise[11]), tiergate.total(r.rise[12:23])
      FROM risen r
     WHERE EXISTS (SELECT FROM unnest(r.rise) n WHERE n > 0)
     GROUP BY r.tenant, r.route
        ON CONFLICT (tenant, minute, route, gateway) DO UPDATE SET
           requests   = u.requests   + EXCLUDED.requests,
           status_1xx = u.status_1xx + EXCLUDED.status_1xx,
           status_2xx = u.status_2xx + EXCLUDED.status_2xx,
           status_3xx = u.status_3xx + EXCLUDED.status_3xx,
           status_4xx = u.status_4xx + EXCLUDED.status_4xx,
           status_5xx = u.status_5xx + EXCLUDED.status_5xx,
           denied     = u.denied     + EXCLUDED.denied,
           throttled  = u.throttled  + EXCLUDED.throttled,
           bytes_in   = u.bytes_in   + EXCLUDED.bytes_in,
           bytes_out  = u.bytes_out  + EXCLUDED.bytes_out,
           latency_us = u.latency_us + EXCLUDED.latency_us,
           latency    = tiergate.total(u.latency, EXCLUDED.latency);

    INSERT INTO tiergate.quota_usage AS f (quota_id, gateway, key, tenant, used, throttled, at)
    SELECT q.id, record_usage.gateway, coalesce(r.value->>'key', ''), q.tenant,
           (r.value->>'used')::bigint, coalesce((r.value->>'throttled')::bigint, 0),
           coalesce(least(reported, clock_timestamp()), clock_timestamp())
      FROM jsonb_array_elements(coalesce(report->'quotas', '[]')) r
      JOIN tiergate.quotas q ON q.id = (r.value->>'id')::bigint
        ON CONFLICT (quota_id, gateway, key) DO UPDATE SET
           used = EXCLUDED.used, throttled = EXCLUDED.throttled, at = EXCLUDED.at
     WHERE f.at <= EXCLUDED.at;
EXCEPTION WHEN data_exception OR not_null_violation OR cardinality_violation THEN
    PERFORM tiergate.refuse(422, 'invalid-report', '', 'the usage report is not as described: ' || SQLERRM,
                            'docs/reference/watch.md describes it');
END
$$;

COMMENT ON FUNCTION tiergate.record_usage(text, jsonb) IS
    'Merges a usage report of a gateway; a report that comes twice counts once';


CREATE FUNCTION tiergate.latency_quantile(latency bigint[], quantile double precision)
RETURNS numeric
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
AS $$
DECLARE
    bounds numeric[] := '{1,2.5,5,10,25,50,100,250,500,1000,2500}';
    total  bigint    := (SELECT sum(l) FROM unnest(latency) l);
    seen   bigint    := 0;
BEGIN
    IF total > 0 THEN
        FOR i IN 1 .. 11 LOOP
            seen := seen + latency[i];
            IF seen >= total * quantile THEN
                RETURN bounds[i];
            END IF;
        END LOOP;
        RETURN 'Infinity';
    END IF;
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION tiergate.latency_quantile(bigint[], double precision) IS
    'Milliseconds that this share of the requests did not exceed, by the bounds of the histogram';


CREATE VIEW tiergate.usage_by_minute WITH (security_invoker = true) AS
    SELECT u.tenant, u.minute, sum(u.requests)::bigint AS requests,
           sum(u.status_2xx + u.status_3xx)::bigint AS ok, sum(u.status_4xx)::bigint AS "4xx",
           sum(u.status_5xx)::bigint AS "5xx", sum(u.denied)::bigint AS denied,
           sum(u.throttled)::bigint AS throttled,
           tiergate.latency_quantile(tiergate.total(u.latency), 0.5) AS p50_ms,
           tiergate.latency_quantile(tiergate.total(u.latency), 0.99) AS p99_ms
      FROM tiergate.usage u
     GROUP BY u.tenant, u.minute;

CREATE VIEW tiergate.usage_by_hour WITH (security_invoker = true) AS
    SELECT u.tenant, date_trunc('hour', u.minute) AS hour, sum(u.requests)::bigint AS requests,
           sum(u.status_2xx + u.status_3xx)::bigint AS ok, sum(u.status_4xx)::bigint AS "4xx",
           sum(u.status_5xx)::bigint AS "5xx", sum(u.denied)::bigint AS denied,
           sum(u.throttled)::bigint AS throttled, pg_size_pretty(sum(u.bytes_in)) AS received,
           pg_size_pretty(sum(u.bytes_out)) AS sent,
           tiergate.latency_quantile(tiergate.total(u.latency), 0.5) AS p50_ms,
           tiergate.latency_quantile(tiergate.total(u.latency), 0.99) AS p99_ms
      FROM tiergate.usage u
     GROUP BY u.tenant, date_trunc('hour', u.minute);

CREATE VIEW tiergate.usage_summary WITH (security_invoker = true) AS
    SELECT u.tenant, u.route, sum(u.requests)::bigint AS requests,
           sum(u.status_2xx + u.status_3xx)::bigint AS ok, sum(u.status_4xx)::bigint AS "4xx",
           sum(u.status_5xx)::bigint AS "5xx", sum(u.denied)::bigint AS denied,
           sum(u.throttled)::bigint AS throttled, pg_size_pretty(sum(u.bytes_out)) AS sent,
           round(sum(u.latency_us) / nullif(sum(u.requests), 0) / 1000.0, 1) AS mean_ms,
           tiergate.latency_quantile(tiergate.total(u.latency), 0.99) AS p99_ms
      FROM tiergate.usage u
     WHERE u.minute > now() - interval '24 hours'
     GROUP BY u.tenant, u.route;

COMMENT ON VIEW tiergate.usage_by_minute IS 'Usage of tenants by minute; p50_ms and p99_ms are upper bounds';
COMMENT ON VIEW tiergate.usage_by_hour   IS 'Usage of tenants by hour; p50_ms and p99_ms are upper bounds';
COMMENT ON VIEW tiergate.usage_summary   IS 'Usage of tenants and routes in the last 24 hours; p99_ms is an upper bound';


-- A gateway reports what changes, so what it said last is carried forward: a
-- window in seconds refills evenly, a calendar count ends with its day or month,
-- and requests in flight end with a gateway that has gone silent.
CREATE VIEW tiergate.quota_status WITH (security_invoker = true) AS
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
            WHERE r.quota_id = q.id
            GROUP BY r.key) f ON true;

COMMENT ON VIEW   tiergate.quota_status             IS 'How full each quota is, about a second old';
COMMENT ON COLUMN tiergate.quota_status.tenant      IS 'Tenant';
COMMENT ON COLUMN tiergate.quota_status.quota       IS 'Name of the quota';
COMMENT ON COLUMN tiergate.quota_status.route       IS 'Route that it counts';
COMMENT ON COLUMN tiergate.quota_status.consumer    IS 'Consumer that it counts; of a quota that counts each, the fullest ones have a row';
COMMENT ON COLUMN tiergate.quota_status.metric      IS 'requests, concurrency or body_size';
COMMENT ON COLUMN tiergate.quota_status."limit"     IS 'Limit in force, boost included';
COMMENT ON COLUMN tiergate.quota_status.per         IS 'Window';
COMMENT ON COLUMN tiergate.quota_status.used        IS 'Used, of all gateways together';
COMMENT ON COLUMN tiergate.quota_status.remaining   IS 'Left of it';
COMMENT ON COLUMN tiergate.quota_status.throttled   IS 'Requests that it refused, since the gateways booted';
COMMENT ON COLUMN tiergate.quota_status.dry_run     IS 'Whether it counts only';
COMMENT ON COLUMN tiergate.quota_status.reported_at IS 'When a gateway last reported about it';


-- Key sets

CREATE TABLE tiergate.jwks_state (
    issuer_id  bigint      PRIMARY KEY REFERENCES tiergate.issuers ON DELETE CASCADE,
    next_at    timestamptz NOT NULL DEFAULT now(),
    fetched_at timestamptz,
    failures   integer     NOT NULL DEFAULT 0,
    error      text
);

COMMENT ON TABLE  tiergate.jwks_state            IS 'How fetching the key sets of issuers goes';
COMMENT ON COLUMN tiergate.jwks_state.issuer_id  IS 'Issuer';
COMMENT ON COLUMN tiergate.jwks_state.next_at    IS 'When it is fetched next';
COMMENT ON COLUMN tiergate.jwks_state.fetched_at IS 'When it was last fetched well';
COMMENT ON COLUMN tiergate.jwks_state.failures   IS 'How often it has failed since';
COMMENT ON COLUMN tiergate.jwks_state.error      IS 'Why it last failed';


CREATE FUNCTION tiergate.due_jwks(most integer DEFAULT 32)
RETURNS TABLE (issuer_id bigint, tenant text, name text, jwks_uri text)
LANGUAGE sql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    INSERT INTO tiergate.jwks_state (issuer_id)
    SELECT i.id FROM tiergate.issuers i
     WHERE i.jwks_uri IS NOT NULL AND NOT EXISTS (SELECT FROM tiergate.jwks_state s WHERE s.issuer_id = i.id)
        ON CONFLICT DO NOTHING;

    -- whoever takes one has a minute for it, then another may
    WITH due AS MATERIALIZED (
        SELECT s.issuer_id FROM tiergate.jwks_state s
         WHERE s.next_at <= now()
         ORDER BY s.next_at LIMIT most
           FOR UPDATE SKIP LOCKED
    ), taken AS (
        UPDATE tiergate.jwks_state s SET next_at = now() + interval '1 minute'
          FROM due WHERE s.issuer_id = due.issuer_id
        RETURNING s.issuer_id
    )
    SELECT i.id, i.tenant, i.name, i.jwks_uri
      FROM taken JOIN tiergate.issuers i ON i.id = taken.issuer_id
     WHERE i.jwks_uri IS NOT NULL;
$$;

COMMENT ON FUNCTION tiergate.due_jwks(integer) IS
    'Takes issuers whose key set is to be fetched; each is given to one caller';


CREATE FUNCTION tiergate.store_jwks(issuer_id bigint, jwks jsonb)
RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    good    jsonb;
    changed boolean;
BEGIN
    -- a set may hold keys for other uses, which are not ours to judge
    SELECT jsonb_agg(k.known ORDER BY k.ordinality) INTO good
      FROM (SELECT j.ordinality,
                   (SELECT jsonb_object_agg(m.key, m.value) FROM jsonb_each(j.value) m
                     WHERE m.key IN ('kty', 'kid', 'use', 'alg', 'crv', 'n', 'e', 'x', 'y')) AS known
              FROM jsonb_array_elements(CASE jsonb_typeof(jwks->'keys') WHEN 'array' THEN jwks->'keys' END)
                   WITH ORDINALITY j
             WHERE tiergate.jwk_problem(j.value) IS NULL AND j.value->>'kty' <> 'oct'
             ORDER BY j.ordinality
             LIMIT (SELECT l.value FROM tiergate.limits l WHERE l.name = 'keys_per_issuer')) k;
    IF good IS NULL THEN
        PERFORM tiergate.jwks_failed(issuer_id, 'the key set has no key that can verify tokens');
        RETURN false;
    END IF;

    UPDATE tiergate.issuers i SET keys = good
     WHERE i.id = store_jwks.issuer_id AND i.jwks_uri IS NOT NULL AND i.keys IS DISTINCT FROM good;
    changed := FOUND;

    UPDATE tiergate.jwks_state s
       SET fetched_at = now(), failures = 0, error = NULL,
           next_at = now() + make_interval(secs => (tiergate.setting('jwks.refresh_seconds'))::integer)
     WHERE s.issuer_id = store_jwks.issuer_id;
    RETURN changed;
END
$$;

COMMENT ON FUNCTION tiergate.store_jwks(bigint, jsonb) IS
    'Keeps a fetched key set; makes a revision only if the keys changed, and says so';


CREATE FUNCTION tiergate.jwks_failed(issuer_id bigint, error text)
RETURNS void
LANGUAGE sql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    UPDATE tiergate.jwks_state s
       SET failures = s.failures + 1, error = left(jwks_failed.error, 500),
           next_at = now() + least(make_interval(secs => (tiergate.setting('jwks.refresh_seconds'))::integer),
                                   interval '5 seconds' * 2 ^ least(s.failures, 10))
     WHERE s.issuer_id = jwks_failed.issuer_id
$$;

COMMENT ON FUNCTION tiergate.jwks_failed(bigint, text) IS
    'Fetching a key set failed: the last good one stays, the next attempt comes later each time';


CREATE FUNCTION tiergate.fetch_jwks_soon()
RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    DELETE FROM tiergate.jwks_state s WHERE s.issuer_id = NEW.id;
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION tiergate.fetch_jwks_soon() IS 'Trigger: a changed jwks_uri is due at once';

CREATE TRIGGER issuers_fetch_jwks AFTER UPDATE OF jwks_uri ON tiergate.issuers
    FOR EACH ROW WHEN (OLD.jwks_uri IS DISTINCT FROM NEW.jwks_uri)
    EXECUTE FUNCTION tiergate.fetch_jwks_soon();

COMMIT;
