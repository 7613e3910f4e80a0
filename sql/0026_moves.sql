-- SPDX-License-Identifier: BSD-2-Clause
--
-- Counts of moving tenants where several shared gateways have them, and instances
-- whose node has died.
--
-- On a return every shared gateway is given all that its tenant's own gateway has
-- counted, since each decides by itself.  When the tenant moves on, what they were
-- given must count once, however many report it: so the next promotion begins with
-- the counts of the return (the base), and of a gateway that says that it had been
-- given them ("carried") only what it has counted beyond is added.  When in doubt a
-- report counts as a whole, which may refuse too early, but allows nothing twice:
--
--   a gateway that does not say so     it has come, or was started, since
--   a quota that was written since     what was given may have been reckoned anew
--   a level, and a boost since         it has drained at another rate

BEGIN;

INSERT INTO tiergate.schema_migrations (version, name) VALUES (26, 'moves');

ALTER TABLE tiergate.handovers ADD COLUMN basis pg_snapshot;

COMMENT ON COLUMN tiergate.handovers.basis IS
    'What had been committed when a return ended: what came later may have changed how its counts are reckoned';


CREATE OR REPLACE FUNCTION tiergate.finish_handover(h tiergate.handovers, outcome text)
RETURNS void
LANGUAGE sql
AS $$
    UPDATE tiergate.handovers x
       SET step = 'done', step_at = clock_timestamp(), finished_at = clock_timestamp(), outcome = finish_handover.outcome,
           basis = CASE WHEN h.direction = 'return' THEN pg_current_snapshot() END
     WHERE x.id = h.id
$$;


-- The form of a word

CREATE FUNCTION tiergate.is_hex64(value jsonb)
RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT coalesce(jsonb_typeof(value) = 'string' AND value #>> '{}' ~ '^[0-9a-fA-F]{1,16}$', false)
$$;

COMMENT ON FUNCTION tiergate.is_hex64(jsonb) IS 'Whether this is a string of 1 to 16 hexadecimal digits';


CREATE FUNCTION tiergate.is_natural(value jsonb)
RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT coalesce(jsonb_typeof(value) = 'number' AND value #>> '{}' ~ '^[0-9]{1,15}$', false)
$$;

COMMENT ON FUNCTION tiergate.is_natural(jsonb) IS 'Whether this is a number without sign and fraction, of at most 15 digits';


CREATE FUNCTION tiergate.is_handover_word(word jsonb)
RETURNS boolean
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
AS $$
BEGIN
    IF jsonb_typeof(word) <> 'object' OR word - '{quota,key,name,word,level,at}'::text[] <> '{}'
       OR NOT tiergate.is_natural(word->'quota') THEN
        RETURN false;
    END IF;
    IF word ? 'key' AND NOT tiergate.is_hex64(word->'key')
       OR word ? 'name' AND (NOT word ? 'key' OR jsonb_typeof(word->'name') <> 'string'
                             OR octet_length(word->>'name') > 47 OR word->>'name' ~ '[[:cntrl:]]') THEN
        RETURN false;
    END IF;
    RETURN CASE WHEN word ? 'word' THEN tiergate.is_hex64(word->'word') AND NOT word ?| '{level,at}'
                ELSE tiergate.is_hex64(word->'level') AND tiergate.is_natural(word->'at') END;
END
$$;

COMMENT ON FUNCTION tiergate.is_handover_word(jsonb) IS
    'Whether this is a count as docs/reference/tenant-document.md describes those of carry';


CREATE FUNCTION tiergate.check_handover_report(body jsonb)
RETURNS void
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    words jsonb := coalesce(body->'words', '[]');
    nth   bigint;
BEGIN
    IF jsonb_typeof(body) IS DISTINCT FROM 'object' OR NOT tiergate.is_natural(body->'handover') THEN
        PERFORM tiergate.refuse(422, 'invalid-report', '/handover', 'handover is the number of a handover');
    END IF;
    IF body ? 'carried' AND NOT tiergate.is_natural(body->'carried') THEN
        PERFORM tiergate.refuse(422, 'invalid-report', '/carried', 'carried is the number of a handover');
    END IF;
    IF jsonb_typeof(words) <> 'array' OR jsonb_array_length(words) > 65536 THEN
        PERFORM tiergate.refuse(422, 'invalid-report', '/words', 'words is an array of at most 65536 counts');
    END IF;
    SELECT w.ordinality - 1 INTO nth
      FROM jsonb_array_elements(words) WITH ORDINALITY w
     WHERE NOT tiergate.is_handover_word(w.value)
     ORDER BY 1 LIMIT 1;
    IF FOUND THEN
        PERFORM tiergate.refuse(422, 'invalid-report', '/words/' || nth, format('words[%s] is no count', nth),
            'a count is {"quota", "word"} or {"quota", "level", "at"}, with "key" and "name" of a consumer');
    END IF;
END
$$;

COMMENT ON FUNCTION tiergate.check_handover_report(jsonb) IS 'Refuses a report of counts that has not the form of one';


-- What several gateways have counted

CREATE FUNCTION tiergate.hex_number(digits text)
RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE STRICT
AS $$
    SELECT ('x' || lpad(digits, 16, '0'))::bit(64)::bigint
$$;

COMMENT ON FUNCTION tiergate.hex_number(text) IS 'Hexadecimal digits, at most 16, as a number';


-- The return that the tenant's shared gateways have the counts of: null after a
-- promotion that was completed since.
CREATE FUNCTION tiergate.return_before(h tiergate.handovers)
RETURNS tiergate.handovers
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    r tiergate.handovers;
BEGIN
    SELECT * INTO r FROM tiergate.handovers x
     WHERE x.tenant_id = h.tenant_id AND x.id < h.id AND x.outcome IN ('complete', 'incomplete')
     ORDER BY x.id DESC LIMIT 1;
    IF r.direction = 'return' THEN
        RETURN r;
    END IF;
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION tiergate.return_before(tiergate.handovers) IS
    'The return by which a tenant came to the shared gateways that it now leaves, or nulls';


-- Which of a tenant's counts are what they would be had nothing been changed since
-- a return; drains: of levels, too.
CREATE FUNCTION tiergate.is_steady(t tiergate.tenants, r tiergate.handovers, OUT counts boolean, OUT drains boolean)
LANGUAGE plpgsql STABLE
AS $$
BEGIN
    counts := r.basis IS NOT NULL AND NOT EXISTS (
        SELECT FROM tiergate.audit a
         WHERE a.tenant = t.name AND a.object = 'quotas' AND NOT pg_visible_in_snapshot(a.xid, r.basis));
    drains := counts AND coalesce(t.boost_until, '-infinity') < r.started_at AND NOT EXISTS (
        SELECT FROM tiergate.audit a
         WHERE a.tenant = t.name AND a.object = 'tenants' AND a.new ?| '{boost_factor,boost_until}'
           AND NOT pg_visible_in_snapshot(a.xid, r.basis));
END
$$;

COMMENT ON FUNCTION tiergate.is_steady(tiergate.tenants, tiergate.handovers) IS
    'Whether a tenant''s quotas have stayed as they were when it returned, and the rates at which its levels drain';


-- A quarter of a second is for clocks that differ: what has drained is rather
-- taken for more.
CREATE FUNCTION tiergate.level_left(q tiergate.quotas, level text, at numeric, later numeric)
RETURNS numeric
LANGUAGE sql IMMUTABLE
AS $$
    SELECT greatest(0, floor(tiergate.hex_number(level)
                             - (greatest(later - at, 0) + 250) * q.requests * 1048576 / (extract(epoch FROM q.per) * 1000)))
$$;

COMMENT ON FUNCTION tiergate.level_left(tiergate.quotas, text, numeric, numeric) IS
    'What is left of a level, told at a time in milliseconds, some time later: at most that';


-- Periods are in the upper 24 bits of a calendar word, counts in the lower 40.
CREATE FUNCTION tiergate.words_beyond(t tiergate.tenants, words jsonb, r tiergate.handovers)
RETURNS jsonb
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    steady record := tiergate.is_steady(t, r);
BEGIN
    IF NOT steady.counts OR r.words = '[]' THEN
        RETURN words;
    END IF;
    RETURN (
        WITH base AS MATERIALIZED (
            SELECT (b.value->>'quota')::bigint AS quota, lpad(lower(b.value->>'key'), 16, '0') AS key,
                   b.value->>'word' AS word, b.value->>'level' AS level, (b.value->>'at')::numeric AS at
              FROM jsonb_array_elements(r.words) b
        ), beyond AS (
            SELECT w.ordinality, w.value,
                   CASE WHEN w.value ? 'word' THEN
                       (tiergate.hex_number(w.value->>'word') & 1099511627775)
                       - coalesce((SELECT sum(tiergate.hex_number(b.word) & 1099511627775) FROM base b
                                    WHERE b.quota = q.id AND b.key IS NOT DISTINCT FROM lpad(lower(w.value->>'key'), 16, '0')
                                      AND tiergate.hex_number(b.word) >> 40 = tiergate.hex_number(w.value->>'word') >> 40), 0)
                   ELSE
                       tiergate.hex_number(w.value->>'level')
                       - coalesce((SELECT sum(tiergate.level_left(q, b.level, b.at, (w.value->>'at')::numeric)) FROM base b
                                    WHERE steady.drains AND b.level IS NOT NULL
                                      AND b.quota = q.id AND b.key IS NOT DISTINCT FROM lpad(lower(w.value->>'key'), 16, '0')), 0)
                   END AS counted
              FROM jsonb_array_elements(words) WITH ORDINALITY w
              JOIN tiergate.quotas q ON q.id = (w.value->>'quota')::bigint AND q.tenant = t.name
        )
        SELECT coalesce(jsonb_agg(
                   CASE WHEN e.value ? 'word' THEN
                       jsonb_set(e.value, '{word}', to_jsonb(to_hex(
                           (tiergate.hex_number(e.value->>'word') & ~1099511627775) | e.counted::bigint)))
                   ELSE jsonb_set(e.value, '{level}', to_jsonb(to_hex(e.counted::bigint))) END ORDER BY e.ordinality), '[]')
          FROM beyond e WHERE e.counted > 0);
END
$$;

COMMENT ON FUNCTION tiergate.words_beyond(tiergate.tenants, jsonb, tiergate.handovers) IS
    'What a shared gateway has counted beyond what it was given when its tenant returned';


CREATE OR REPLACE FUNCTION tiergate.begin_export(h tiergate.handovers, gateways text[])
RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
    r tiergate.handovers;
BEGIN
    IF h.direction = 'promote' THEN
        r := tiergate.return_before(h);
    END IF;
    UPDATE tiergate.handovers x
       SET step = 'export', step_at = clock_timestamp(), gateways = begin_export.gateways,
           words = coalesce(r.words, '[]'), xid = pg_current_xact_id()
     WHERE x.id = h.id;
    PERFORM tiergate.mark_tenant(h.tenant_id);
END
$$;

COMMENT ON FUNCTION tiergate.begin_export(tiergate.handovers, text[]) IS
    'Asks these gateways for their counts of a tenant, beyond those that they were given when it returned';


CREATE OR REPLACE FUNCTION tiergate.handover_report(gateway text, body jsonb)
RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    t       tiergate.tenants;
    h       tiergate.handovers;
    r       tiergate.handovers;
    counted jsonb := coalesce(body->'words', '[]');
BEGIN
    PERFORM tiergate.check_handover_report(body);

    SELECT x.* INTO t FROM tiergate.tenants x
      WHERE x.id = (SELECT y.tenant_id FROM tiergate.handovers y WHERE y.id = (body->>'handover')::bigint)
        FOR NO KEY UPDATE;
    SELECT * INTO h FROM tiergate.handovers x
     WHERE x.id = (body->>'handover')::bigint AND x.tenant_id = t.id AND x.step = 'export';
    IF h.id IS NULL THEN
        PERFORM tiergate.refuse(410, 'handover-over', '/handover',
                                format('handover %s does not wait for reports', body->>'handover'));
    END IF;
    IF body ? 'id' AND body->'id' <> to_jsonb(t.id) THEN
        PERFORM tiergate.refuse(422, 'invalid-report', '/id', format('handover %s is of another tenant', h.id));
    END IF;
    -- a shared gateway that has come since tells what it knows, too
    IF gateway <> ALL (h.gateways)
       AND (h.direction = 'return' OR EXISTS (SELECT FROM tiergate.gateways g
                                               WHERE g.name = handover_report.gateway AND g.kind = 'dedicated')) THEN
        PERFORM tiergate.refuse(410, 'handover-over', '/handover',
                                format('handover %s does not wait for gateway "%s"', h.id, gateway));
    END IF;
    IF gateway = ANY (h.reported) THEN
        RETURN;
    END IF;

    IF h.direction = 'promote' THEN
        r := tiergate.return_before(h);
        IF r.id = (body->>'carried')::bigint THEN
            counted := tiergate.words_beyond(t, counted, r);
        END IF;
    END IF;
    UPDATE tiergate.handovers x
       SET reported = x.reported || handover_report.gateway,
           words = tiergate.handover_words(t, x.words, counted)
     WHERE x.id = h.id
    RETURNING x.* INTO h;
    PERFORM tiergate.advance_handover(t, h);
END
$$;


-- The counts of a return are of use until the tenant moves on, in the month at the
-- longest.
CREATE OR REPLACE FUNCTION tiergate.housekeeping()
RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM tiergate.registry_housekeeping();

    DELETE FROM tiergate.gateway_events e WHERE e.at < now() - interval '30 days';
    PERFORM tiergate.trim_events(c.gateway)
       FROM (SELECT e.gateway FROM tiergate.gateway_events e GROUP BY e.gateway HAVING count(*) > 1000) c;
    DELETE FROM tiergate.handovers h
     WHERE h.finished_at < now() - interval '32 days'
        OR h.finished_at < now() - interval '30 days' AND h.words = '[]';
    UPDATE tiergate.handovers h SET words = '[]'
     WHERE h.finished_at < now() - interval '5 minutes' AND h.words <> '[]'
       AND (h.direction <> 'return'
            OR NOT EXISTS (SELECT FROM tiergate.tenants t WHERE t.id = h.tenant_id)
            OR EXISTS (SELECT FROM tiergate.handovers l
                        WHERE l.tenant_id = h.tenant_id AND l.id > h.id AND l.outcome IN ('complete', 'incomplete')));
END
$$;


-- Nodes that have died

CREATE FUNCTION tiergate.evacuate_node(node text, alive boolean DEFAULT false)
RETURNS SETOF text
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    i tiergate.instances;
BEGIN
    IF NOT EXISTS (SELECT FROM tiergate.instances x WHERE x.node = evacuate_node.node) THEN
        PERFORM tiergate.refuse(404, 'unknown-node', '', format('no gateway is on node "%s"', node));
    END IF;
    IF NOT alive AND EXISTS (SELECT FROM tiergate.instances x JOIN tiergate.gateways g ON g.name = x.name
                              WHERE x.node = evacuate_node.node
                                AND g.last_seen > clock_timestamp() - interval '15 seconds') THEN
        PERFORM tiergate.refuse(409, 'node-alive', '',
            format('gateways of node "%s" have been heard of a moment ago', node),
            'stop tenantd and the gateways there first, or say that it does not matter: alive');
    END IF;

    PERFORM FROM tiergate.tenants t
      WHERE t.id IN (SELECT x.tenant_id FROM tiergate.instances x WHERE x.node = evacuate_node.node)
      ORDER BY t.id FOR NO KEY UPDATE;
    FOR i IN
        SELECT x.* FROM tiergate.instances x WHERE x.node = evacuate_node.node ORDER BY x.tenant_id FOR UPDATE
    LOOP
        RETURN NEXT i.name;
        IF i.desired = 'absent' THEN
            PERFORM tiergate.instance_removed(i.name);
            CONTINUE;
        END IF;
        -- should the node come back, its gateway has nothing to say any more
        DELETE FROM tiergate.api_tokens t WHERE t.name = 'instance-' || i.name;
        UPDATE tiergate.instances x
           SET node = NULL, driver = NULL, address = NULL, port = NULL, pid = NULL, started_at = NULL,
               generation = x.generation + 1, restart = x.restart + 1, observed_generation = 0,
               attempts = 0, retry_at = NULL, conditions = '[]'
         WHERE x.name = i.name;
        UPDATE tiergate.gateways g SET state = 'unknown', revision = 0, boot = NULL WHERE g.name = i.name;
        PERFORM tiergate.report_instance(i, 'pending', 'Evacuated', format('node "%s" was given up', node));
        PERFORM tiergate.mark_tenant(i.tenant_id);
    END LOOP;
    PERFORM tiergate.notify_instances();
END
$$;

COMMENT ON FUNCTION tiergate.evacuate_node(text, boolean) IS
    'Gives up a node that has died: evacuate_node(''edge-7''). Its gateways are started elsewhere, by whoever takes them first; returns their names. alive: also when they have been heard of a moment ago';


CREATE FUNCTION tiergate_api.evacuate_node(path text[], query jsonb, body jsonb)
RETURNS tiergate_api.response
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    alive text := coalesce(query->>'alive', 'false');
BEGIN
    PERFORM tiergate_api.check_query(query, 'alive');
    IF alive NOT IN ('true', 'false') THEN
        PERFORM tiergate.refuse(400, 'invalid-parameter', '',
                                format('query parameter alive is "%s", but must be true or false', alive));
    END IF;
    RETURN tiergate_api.ok(jsonb_build_object('node', path[1], 'gateways',
        (SELECT coalesce(jsonb_agg(g), '[]') FROM tiergate.evacuate_node(path[1], alive::boolean) g)));
END
$$;

COMMENT ON FUNCTION tiergate_api.evacuate_node(text[], jsonb, jsonb) IS 'POST /v1/nodes/{node}/evacuate';


-- Who may do what, see 0013_security

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA tiergate, tiergate_api FROM PUBLIC;

GRANT EXECUTE ON FUNCTION tiergate.evacuate_node(text, boolean) TO tiergate_admin;
GRANT EXECUTE ON FUNCTION tiergate_api.evacuate_node(text[], jsonb, jsonb) TO tiergate_daemon;

COMMIT;
