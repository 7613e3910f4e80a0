-- SPDX-License-Identifier: BSD-2-Clause
--
-- Where a tenant's requests are decided: on the shared gateways or on a gateway
-- of its own, and how they move from one to the other without losing a request
-- or a count.
--
-- tier is what is wanted.  placement is where the tenant is, and nobody writes it
-- but place().  Between the two stands a handover, one open at a time:
--
--   promote  hold    the instance is ready and holds requests; waits for its
--                    acknowledgement of that
--            export  placement is dedicated: shared gateways pass requests on and
--                    report their counts; waits for their reports
--            done    the instance has the counts and lets requests go
--   return   hold    shared gateways have the whole document and hold requests;
--                    waits for their acknowledgements
--            export  the instance holds requests too and reports its counts
--            done    placement is shared: shared gateways have the counts and let
--                    requests go; the instance lingers, then goes
--
-- 1. A step that waits for others has a deadline, setting gateways.handover_timeout:
--    a gateway that is gone delays nobody for longer.  Only promote/hold has none:
--    until then the tenant is served where it was.
-- 2. Whoever moves a handover on has locked the tenant's row first.
-- 3. Whatever changes a document marks the tenant as changed.  The counts that
--    are carried in a document leave it by themselves, without a revision.

BEGIN;

INSERT INTO tiergate.schema_migrations (version, name) VALUES (23, 'placement');

ALTER TABLE tiergate.tenants
    ADD COLUMN placement  text NOT NULL DEFAULT 'shared',
    ADD COLUMN forwarding text NOT NULL DEFAULT 'forward';

COMMENT ON COLUMN tiergate.tenants.placement  IS 'Where its requests are decided now: shared, or dedicated; follows the tier, cannot be changed';
COMMENT ON COLUMN tiergate.tenants.forwarding IS 'What shared gateways do with requests for a tenant that has its own gateway: forward them there, or misdirect, which answers 421';

INSERT INTO tiergate.settings (name, value, description) VALUES
    ('gateways.handover_timeout', '"2 seconds"',
     'How long a handover waits for a gateway that does not answer'),
    ('gateways.linger', '"30 seconds"',
     'How long a gateway stays after its tenant has gone back to the shared ones'),
    ('gateways.shared_address', 'null',
     'Where such a gateway passes requests on to, as "address:port" of a shared gateway; null: it answers 421');

INSERT INTO tiergate.refusals (name, status, slug, pointer, detail, hint) VALUES
    ('tenants_forwarding', 422, 'unknown-value',      '/forwarding', 'forwarding of tenant "%s" is not known', 'use forward or misdirect'),
    ('tenants_placement',  422, 'placement-observed', '/placement',  'the placement of tenant "%s" follows its tier', 'change the tier: it moves when its gateway is ready'),
    ('routes_reserved',    422, 'reserved-name',      '/name',       'route name "%s" is used between gateways', 'choose another name'),
    ('upstreams_reserved', 422, 'reserved-name',      '/name',       'upstream name "%s" is used between gateways', 'choose another name');


CREATE FUNCTION tiergate.check_gateway_setting()
RETURNS trigger
LANGUAGE plpgsql
AS $$
DECLARE
    word  text := NEW.value #>> '{}';
    sound boolean;
BEGIN
    BEGIN
        sound := NEW.name = OLD.name AND CASE NEW.name
            WHEN 'gateways.shared_address' THEN
                NEW.value = 'null' OR jsonb_typeof(NEW.value) = 'string'
                    AND tiergate.parse_address(trim('[]' FROM regexp_replace(word, ':[0-9]+$', ''))) IS NOT NULL
                    AND substring(word FROM ':([0-9]{1,5})$')::integer BETWEEN 1 AND 65535
            WHEN 'gateways.linger' THEN
                jsonb_typeof(NEW.value) = 'string' AND word::interval BETWEEN '0' AND '1 day'
            ELSE jsonb_typeof(NEW.value) = 'string' AND word::interval BETWEEN '100 milliseconds' AND '1 minute' END;
    EXCEPTION WHEN data_exception THEN
        sound := false;
    END;
    IF sound IS NOT TRUE THEN
        PERFORM tiergate.refuse(422, 'invalid-setting', '/value',
            format('setting "%s" cannot be %s', NEW.name, left(NEW.value::text, 100)),
            CASE NEW.name WHEN 'gateways.shared_address' THEN 'write "address:port", "[address]:port" for IPv6, or null'
                          WHEN 'gateways.linger' THEN 'write an interval of at most a day: "30 seconds"'
                          ELSE 'write an interval from "100 milliseconds" to "1 minute"' END);
    END IF;
    RETURN NEW;
END
$$;

COMMENT ON FUNCTION tiergate.check_gateway_setting() IS
    'Trigger: a setting about gateways has a value that its readers can use';

DROP TRIGGER settings_check ON tiergate.settings;
CREATE TRIGGER settings_check BEFORE UPDATE ON tiergate.settings
    FOR EACH ROW WHEN (OLD.name NOT LIKE 'gateways.%') EXECUTE FUNCTION tiergate.check_setting();
CREATE TRIGGER settings_check_gateways BEFORE UPDATE ON tiergate.settings
    FOR EACH ROW WHEN (OLD.name LIKE 'gateways.%') EXECUTE FUNCTION tiergate.check_gateway_setting();


CREATE TABLE tiergate.handovers (
    id          bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant      text        NOT NULL COLLATE "C",
    tenant_id   bigint      NOT NULL,
    direction   text        NOT NULL,
    step        text        NOT NULL DEFAULT 'hold',
    gateways    text[]      NOT NULL DEFAULT '{}',
    reported    text[]      NOT NULL DEFAULT '{}',
    words       jsonb       NOT NULL DEFAULT '[]',
    xid         xid8        NOT NULL DEFAULT pg_current_xact_id(),
    started_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    step_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    acked_at    timestamptz,
    finished_at timestamptz,
    outcome     text,
    CONSTRAINT handovers_direction CHECK (direction IN ('promote', 'return')),
    CONSTRAINT handovers_step      CHECK (step IN ('hold', 'export', 'done')),
    CONSTRAINT handovers_finished  CHECK ((step = 'done') = (finished_at IS NOT NULL)
                                          AND (finished_at IS NULL) = (outcome IS NULL))
);

CREATE UNIQUE INDEX handovers_open ON tiergate.handovers (tenant_id) WHERE finished_at IS NULL;
CREATE INDEX handovers_tenant_id ON tiergate.handovers (tenant_id, id);

COMMENT ON TABLE  tiergate.handovers             IS 'Moves of tenants between shared gateways and their own';
COMMENT ON COLUMN tiergate.handovers.id          IS 'Number of the move; gateways report and take counts once for each';
COMMENT ON COLUMN tiergate.handovers.tenant      IS 'Tenant';
COMMENT ON COLUMN tiergate.handovers.tenant_id   IS 'Its id';
COMMENT ON COLUMN tiergate.handovers.direction   IS 'promote (to its own gateway) or return';
COMMENT ON COLUMN tiergate.handovers.step        IS 'hold, export or done';
COMMENT ON COLUMN tiergate.handovers.gateways    IS 'Gateways that this step waits for';
COMMENT ON COLUMN tiergate.handovers.reported    IS 'Gateways that have reported their counts';
COMMENT ON COLUMN tiergate.handovers.words       IS 'The counts';
COMMENT ON COLUMN tiergate.handovers.xid         IS 'Transaction that began this step, as in changes';
COMMENT ON COLUMN tiergate.handovers.started_at  IS 'When it began';
COMMENT ON COLUMN tiergate.handovers.step_at     IS 'When this step began';
COMMENT ON COLUMN tiergate.handovers.acked_at    IS 'When all that step hold waits for had acknowledged';
COMMENT ON COLUMN tiergate.handovers.finished_at IS 'When it ended';
COMMENT ON COLUMN tiergate.handovers.outcome     IS 'complete, incomplete (a gateway did not report), cancelled (the tier was changed back), abandoned (the instance was not there), deleted (the tenant was)';
COMMENT ON CONSTRAINT handovers_direction ON tiergate.handovers IS 'direction is promote or return';
COMMENT ON CONSTRAINT handovers_step      ON tiergate.handovers IS 'step is hold, export or done';
COMMENT ON CONSTRAINT handovers_finished  ON tiergate.handovers IS 'a handover that is done has an end and an outcome';


CREATE FUNCTION tiergate.tier_kind(tier text)
RETURNS text
LANGUAGE plpgsql STABLE
AS $$
BEGIN
    RETURN (SELECT s.gateway_kind FROM tiergate.tiers s WHERE s.name = tier_kind.tier);
END
$$;

COMMENT ON FUNCTION tiergate.tier_kind(text) IS 'Kind of gateway that serves a tier';


CREATE FUNCTION tiergate.open_handover(tenant_id bigint)
RETURNS tiergate.handovers
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    h tiergate.handovers;
BEGIN
    SELECT * INTO h FROM tiergate.handovers x
     WHERE x.tenant_id = open_handover.tenant_id AND x.finished_at IS NULL;
    RETURN h;
END
$$;

COMMENT ON FUNCTION tiergate.open_handover(bigint) IS 'The handover of a tenant that is under way, or nulls';


CREATE FUNCTION tiergate.live_shared_gateways()
RETURNS text[]
LANGUAGE plpgsql STABLE
AS $$
BEGIN
    RETURN (SELECT coalesce(array_agg(g.name ORDER BY g.name), '{}') FROM tiergate.gateways g
             WHERE g.tenant IS NULL AND g.state = 'live' AND g.last_seen > clock_timestamp() - interval '5 seconds');
END
$$;

COMMENT ON FUNCTION tiergate.live_shared_gateways() IS 'Shared gateways that have been heard of within 5 seconds';

CREATE INDEX gateways_shared ON tiergate.gateways (name) WHERE tenant IS NULL;


CREATE FUNCTION tiergate.place(tenant_id bigint, placement text)
RETURNS void
LANGUAGE plpgsql
AS $$
BEGIN
    PERFORM set_config('tiergate.placing', place.tenant_id::text, true);
    UPDATE tiergate.tenants t SET placement = place.placement WHERE t.id = place.tenant_id;
    PERFORM set_config('tiergate.placing', '', true);
END
$$;

COMMENT ON FUNCTION tiergate.place(bigint, text) IS 'Moves a tenant to the shared gateways or to its own';


CREATE FUNCTION tiergate.note_handover(h tiergate.handovers, placed boolean, reason text, message text)
RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
    i tiergate.instances;
BEGIN
    SELECT * INTO i FROM tiergate.instances x WHERE x.tenant_id = h.tenant_id;
    IF FOUND THEN
        PERFORM tiergate.set_condition(i.name, 'Placed', placed, reason, message);
        PERFORM tiergate.add_event(i.name, i.tenant, i.phase, reason, message);
    END IF;
END
$$;

COMMENT ON FUNCTION tiergate.note_handover(tiergate.handovers, boolean, text, text) IS
    'Says in the instance''s conditions and events how far a handover is';


CREATE FUNCTION tiergate.finish_handover(h tiergate.handovers, outcome text)
RETURNS void
LANGUAGE sql
AS $$
    UPDATE tiergate.handovers x
       SET step = 'done', step_at = clock_timestamp(), finished_at = clock_timestamp(), outcome = finish_handover.outcome
     WHERE x.id = h.id
$$;

COMMENT ON FUNCTION tiergate.finish_handover(tiergate.handovers, text) IS 'Ends a handover';


CREATE FUNCTION tiergate.begin_export(h tiergate.handovers, gateways text[])
RETURNS void
LANGUAGE plpgsql
AS $$
BEGIN
    UPDATE tiergate.handovers x
       SET step = 'export', step_at = clock_timestamp(), gateways = begin_export.gateways,
           xid = pg_current_xact_id()
     WHERE x.id = h.id;
    PERFORM tiergate.mark_tenant(h.tenant_id);
END
$$;

COMMENT ON FUNCTION tiergate.begin_export(tiergate.handovers, text[]) IS
    'Asks these gateways for their counts of a tenant';


-- Whether gateways have acknowledged what this step told them.
CREATE FUNCTION tiergate.handover_acked(h tiergate.handovers)
RETURNS boolean
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    told bigint := (SELECT max(c.revision) FROM tiergate.changes c
                     WHERE c.kind = 'tenant' AND c.object_id = h.tenant_id AND c.xid = h.xid
                       AND c.revision IS NOT NULL);
BEGIN
    -- not drawn yet: the step began in this very transaction
    RETURN told IS NOT NULL
       AND NOT EXISTS (SELECT FROM unnest(h.gateways) n
                         LEFT JOIN tiergate.gateways g ON g.name = n AND g.revision >= told
                        WHERE g.name IS NULL);
END
$$;

COMMENT ON FUNCTION tiergate.handover_acked(tiergate.handovers) IS
    'Whether all gateways that a handover waits for have acknowledged the revision of its step';


CREATE FUNCTION tiergate.silent_gateways(h tiergate.handovers)
RETURNS text[]
LANGUAGE sql IMMUTABLE
AS $$
    SELECT array_agg(n) FROM unnest(h.gateways) n WHERE n <> ALL (h.reported)
$$;

COMMENT ON FUNCTION tiergate.silent_gateways(tiergate.handovers) IS
    'Gateways of a handover that have not reported; null if all have';


CREATE FUNCTION tiergate.start_promotion(t tiergate.tenants)
RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
    i tiergate.instances;
    h tiergate.handovers;
BEGIN
    SELECT * INTO STRICT i FROM tiergate.instances x WHERE x.tenant_id = t.id;
    -- what it has to have acknowledged is the transaction that made it wanted
    INSERT INTO tiergate.handovers AS n (tenant, tenant_id, direction, gateways, xid)
    VALUES (t.name, t.id, 'promote', ARRAY[i.name], i.wanted_xid)
    RETURNING n.* INTO h;
    PERFORM tiergate.note_handover(h, false, 'Promoting', 'its own gateway is ready');
    PERFORM tiergate.notify_instances();
    PERFORM tiergate.advance_handover(t, h);
END
$$;

COMMENT ON FUNCTION tiergate.start_promotion(tiergate.tenants) IS 'Starts to move a tenant to its own gateway';


CREATE FUNCTION tiergate.start_return(t tiergate.tenants)
RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
    h tiergate.handovers;
BEGIN
    INSERT INTO tiergate.handovers AS n (tenant, tenant_id, direction, gateways)
    VALUES (t.name, t.id, 'return', tiergate.live_shared_gateways())
    RETURNING n.* INTO h;
    PERFORM tiergate.mark_tenant(t.id);
    PERFORM tiergate.note_handover(h, true, 'Returning', 'shared gateways get ready for the tenant');
    PERFORM tiergate.notify_instances();
END
$$;

COMMENT ON FUNCTION tiergate.start_return(tiergate.tenants) IS 'Starts to move a tenant back to the shared gateways';


-- The tier says shared: whatever stands in the way of that is undone, or waited for.
CREATE FUNCTION tiergate.leave_dedicated(t tiergate.tenants)
RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
    h tiergate.handovers := tiergate.open_handover(t.id);
    i tiergate.instances;
BEGIN
    IF h.id IS NOT NULL AND (h.direction = 'return' OR h.step = 'export') THEN
        RETURN;   -- under way, or comes back here when it is done
    END IF;
    IF h.id IS NOT NULL THEN
        PERFORM tiergate.finish_handover(h, 'cancelled');
    END IF;

    SELECT * INTO i FROM tiergate.instances x WHERE x.tenant_id = t.id;
    IF t.placement = 'dedicated' AND i.ready_at IS NOT NULL AND i.phase IN ('ready', 'rolling') THEN
        PERFORM tiergate.start_return(t);
        RETURN;
    END IF;
    IF t.placement = 'dedicated' THEN
        PERFORM tiergate.place(t.id, 'shared');
    END IF;
    PERFORM tiergate.retire_instance(t.id, 'TierChanged', format('tenant is of tier "%s"', t.tier));
END
$$;

COMMENT ON FUNCTION tiergate.leave_dedicated(tiergate.tenants) IS
    'The tenant shall be served by the shared gateways: moves it there, at once where there is nothing to take along';


-- Moves a handover on as far as it goes now.  The caller has locked the tenant.
CREATE FUNCTION tiergate.advance_handover(t tiergate.tenants, h tiergate.handovers)
RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
    patience interval := (tiergate.setting('gateways.handover_timeout') #>> '{}')::interval;
    late     boolean  := clock_timestamp() - h.step_at > patience;
    missing  text[];
    i        tiergate.instances;
BEGIN
    SELECT * INTO i FROM tiergate.instances x WHERE x.tenant_id = t.id;
    IF NOT FOUND THEN
        PERFORM tiergate.finish_handover(h, 'abandoned');
        PERFORM tiergate.place(t.id, 'shared');
        RETURN;
    END IF;

    IF h.direction = 'promote' AND h.step = 'hold' THEN
        IF i.phase NOT IN ('ready', 'rolling') OR i.desired <> 'running' THEN
            PERFORM tiergate.finish_handover(h, 'abandoned');
            PERFORM tiergate.note_handover(h, false, 'PromotionAbandoned', 'its own gateway is not ready any more');
            RETURN;
        END IF;
        -- it is in no hurry: the tenant is served where it was
        IF NOT tiergate.handover_acked(h) AND h.xid IN (SELECT c.xid FROM tiergate.changes c
                                                         WHERE c.kind = 'tenant' AND c.object_id = t.id) THEN
            RETURN;
        END IF;
        PERFORM tiergate.place(t.id, 'dedicated');
        PERFORM tiergate.begin_export(h, tiergate.live_shared_gateways());
        SELECT * INTO h FROM tiergate.handovers x WHERE x.id = h.id;
        late := false;
        PERFORM tiergate.note_handover(h, true, 'Switched', 'shared gateways pass requests on and report their counts');
    END IF;

    IF h.direction = 'return' AND h.step = 'hold' THEN
        IF h.acked_at IS NULL AND tiergate.handover_acked(h) THEN
            UPDATE tiergate.handovers x SET acked_at = clock_timestamp() WHERE x.id = h.id;
            RETURN;
        END IF;
        -- a moment more for requests that are on their way from one gateway to the other
        IF late OR clock_timestamp() - h.acked_at > interval '100 milliseconds' THEN
            PERFORM tiergate.begin_export(h, ARRAY[i.name]);
            PERFORM tiergate.note_handover(h, true, 'Exporting', 'shared gateways hold requests until its own has reported its counts');
        END IF;
        RETURN;
    END IF;

    missing := tiergate.silent_gateways(h);
    IF missing IS NOT NULL AND NOT late THEN
        RETURN;
    END IF;
    PERFORM tiergate.finish_handover(h, CASE WHEN missing IS NULL THEN 'complete' ELSE 'incomplete' END);
    IF h.direction = 'promote' THEN
        PERFORM tiergate.mark_tenant(t.id);
        PERFORM tiergate.note_handover(h, true, 'Promoted', 'its own gateway decides'
                    || coalesce('; no counts came from ' || array_to_string(missing, ', '), ''));
        SELECT * INTO t FROM tiergate.tenants x WHERE x.id = t.id;
        IF tiergate.tier_kind(t.tier) = 'shared' THEN
            PERFORM tiergate.leave_dedicated(t);
        END IF;
        RETURN;
    END IF;

    PERFORM tiergate.place(t.id, 'shared');
    PERFORM tiergate.note_handover(h, false, 'Returned', 'the shared gateways decide'
                || CASE WHEN missing IS NULL THEN '' ELSE '; it did not report its counts' END);
    UPDATE tiergate.instances x
       SET linger_until = clock_timestamp() + (tiergate.setting('gateways.linger') #>> '{}')::interval
     WHERE x.tenant_id = t.id;
END
$$;

COMMENT ON FUNCTION tiergate.advance_handover(tiergate.tenants, tiergate.handovers) IS
    'Moves a handover on as far as it goes now';


CREATE FUNCTION tiergate.handovers_advance(OUT open integer, OUT next_ms integer)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    t tiergate.tenants;
    i tiergate.instances;
    h tiergate.handovers;
BEGIN
    FOR t IN
        SELECT x.* FROM tiergate.tenants x
         WHERE x.id IN (SELECT o.tenant_id FROM tiergate.handovers o WHERE o.finished_at IS NULL)
           FOR NO KEY UPDATE SKIP LOCKED
    LOOP
        h := tiergate.open_handover(t.id);
        IF h.id IS NOT NULL THEN
            PERFORM tiergate.advance_handover(t, h);
        END IF;
    END LOOP;

    FOR i IN
        SELECT x.* FROM tiergate.instances x WHERE x.linger_until <= clock_timestamp() FOR UPDATE SKIP LOCKED
    LOOP
        PERFORM tiergate.retire_instance(i.tenant_id, 'Lingered', 'its tenant has left it');
    END LOOP;

    open := (SELECT count(*) FROM tiergate.handovers o WHERE o.finished_at IS NULL);
    IF open > 0 THEN
        next_ms := 25;
        RETURN;
    END IF;
    SELECT least(greatest(ceil(extract(epoch FROM min(x.linger_until) - clock_timestamp()) * 1000), 1), 86400000) INTO next_ms
      FROM tiergate.instances x WHERE x.linger_until IS NOT NULL HAVING count(*) > 0;
END
$$;

COMMENT ON FUNCTION tiergate.handovers_advance() IS
    'Moves handovers on, and retires instances that have lingered long enough; says how many handovers are open, and in how many milliseconds to call again (null: after the next notification)';


CREATE FUNCTION tiergate.instance_ready(name text)
RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    t tiergate.tenants;
    i tiergate.instances;
BEGIN
    SELECT x.* INTO t FROM tiergate.tenants x
      WHERE x.id = (SELECT y.tenant_id FROM tiergate.instances y WHERE y.name = instance_ready.name)
        FOR NO KEY UPDATE;
    SELECT * INTO i FROM tiergate.instances x WHERE x.name = instance_ready.name FOR UPDATE;
    IF NOT FOUND THEN
        RETURN false;
    END IF;

    UPDATE tiergate.instances x
       SET ready_at = coalesce(x.ready_at, clock_timestamp()), attempts = 0, retry_at = NULL
     WHERE x.name = i.name;
    PERFORM tiergate.report_instance(i, 'ready', 'Ready', 'it serves its tenant');
    PERFORM tiergate.set_condition(i.name, 'Ready', true, 'Ready', 'it serves its tenant');

    IF t.id IS NULL OR i.desired <> 'running' OR tiergate.tier_kind(t.tier) <> 'dedicated' THEN
        RETURN true;
    END IF;
    IF t.placement = 'dedicated' THEN
        IF (tiergate.open_handover(t.id)).id IS NULL THEN
            PERFORM tiergate.set_condition(i.name, 'Placed', true, 'Dedicated', 'its own gateway decides');
        END IF;
    ELSIF (tiergate.open_handover(t.id)).id IS NULL THEN
        PERFORM tiergate.start_promotion(t);
    END IF;
    RETURN true;
END
$$;

COMMENT ON FUNCTION tiergate.instance_ready(text) IS
    'The instance serves its tenant: /readyz says so, after a start or a roll. Starts the promotion of a tenant that waits for it. False if there is no such instance any more';


-- What gateways report of a tenant that moves

-- A document is one line of the watch stream, and that has a limit.
CREATE FUNCTION tiergate.handover_words(t tiergate.tenants, present jsonb, words jsonb)
RETURNS jsonb
LANGUAGE sql STABLE
AS $$
    SELECT present || coalesce(jsonb_agg(w.value ORDER BY w.ordinality) FILTER (
               WHERE w.bytes <= 1572864 - octet_length(present::text)), '[]')
      FROM (SELECT r.*, sum(octet_length(r.value::text) + 2) OVER (ORDER BY r.ordinality) AS bytes
              FROM jsonb_array_elements(words) WITH ORDINALITY r
              JOIN tiergate.quotas q ON q.id = (r.value->>'quota')::bigint AND q.tenant = t.name) w
$$;

COMMENT ON FUNCTION tiergate.handover_words(tiergate.tenants, jsonb, jsonb) IS
    'Counts with the reported ones of the tenant''s quotas behind them, as far as 1.5 MiB hold them';


CREATE FUNCTION tiergate.handover_report(gateway text, body jsonb)
RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    t     tiergate.tenants;
    h     tiergate.handovers;
    words jsonb := coalesce(body->'words', '[]');
BEGIN
    IF jsonb_typeof(body) IS DISTINCT FROM 'object' OR coalesce(body->>'handover', '') !~ '^[0-9]{1,18}$' THEN
        PERFORM tiergate.refuse(422, 'invalid-report', '/handover', 'handover is the number of a handover');
    END IF;
    IF jsonb_typeof(words) <> 'array'
       OR EXISTS (SELECT FROM jsonb_array_elements(CASE jsonb_typeof(words) WHEN 'array' THEN words ELSE '[]' END) w
                   WHERE jsonb_typeof(w.value) <> 'object' OR octet_length(w.value::text) > 1024
                      OR coalesce(w.value->>'quota', '') !~ '^[0-9]{1,15}$') THEN
        PERFORM tiergate.refuse(422, 'invalid-report', '/words',
                                'words are objects of at most 1024 bytes, each with the number of its quota');
    END IF;

    SELECT x.* INTO t FROM tiergate.tenants x
      WHERE x.id = (SELECT y.tenant_id FROM tiergate.handovers y WHERE y.id = (body->>'handover')::bigint)
        FOR NO KEY UPDATE;
    SELECT * INTO h FROM tiergate.handovers x
     WHERE x.id = (body->>'handover')::bigint AND x.tenant_id = t.id AND x.step = 'export';
    IF h.id IS NULL THEN
        PERFORM tiergate.refuse(410, 'handover-over', '/handover',
                                format('handover %s does not wait for reports', body->>'handover'));
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

    UPDATE tiergate.handovers x
       SET reported = x.reported || handover_report.gateway,
           words = tiergate.handover_words(t, x.words, coalesce(body->'words', '[]'))
     WHERE x.id = h.id
    RETURNING x.* INTO h;
    PERFORM tiergate.advance_handover(t, h);
END
$$;

COMMENT ON FUNCTION tiergate.handover_report(text, jsonb) IS
    'A gateway reports its counts of a tenant that moves; body is that of POST /v1/gateways/{gateway}/handover. A report that comes twice counts once; 410 when nobody waits for it';


-- Changes of tenants

CREATE FUNCTION tiergate.check_placement()
RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
    IF coalesce(current_setting('tiergate.placing', true), '') <> NEW.id::text THEN
        PERFORM tiergate.refuse_row('tenants_placement', NEW.name);
    END IF;
    RETURN NEW;
END
$$;

COMMENT ON FUNCTION tiergate.check_placement() IS 'Trigger: nobody but place() moves a tenant';

CREATE TRIGGER tenants_check_placement BEFORE UPDATE OF placement ON tiergate.tenants
    FOR EACH ROW WHEN (OLD.placement IS DISTINCT FROM NEW.placement) EXECUTE FUNCTION tiergate.check_placement();


CREATE FUNCTION tiergate.check_forwarding()
RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
    PERFORM tiergate.refuse_row('tenants_forwarding', NEW.name);
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION tiergate.check_forwarding() IS 'Trigger: refuses an unknown way to treat requests at the wrong gateway';

CREATE TRIGGER tenants_check_forwarding BEFORE INSERT OR UPDATE OF forwarding ON tiergate.tenants
    FOR EACH ROW WHEN (NEW.forwarding NOT IN ('forward', 'misdirect')) EXECUTE FUNCTION tiergate.check_forwarding();


-- A tenant of tier vcluster, as nearly all are, pays for none of the following
-- but the conditions of the triggers.

CREATE FUNCTION tiergate.place_new_tenant()
RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
    NEW.placement := coalesce(tiergate.tier_kind(NEW.tier), 'shared');
    RETURN NEW;
END
$$;

COMMENT ON FUNCTION tiergate.place_new_tenant() IS 'Trigger: a new tenant has nothing to take along, so it begins where its tier says';

CREATE TRIGGER tenants_place BEFORE INSERT ON tiergate.tenants
    FOR EACH ROW WHEN (NEW.tier <> 'vcluster' OR NEW.placement <> 'shared') EXECUTE FUNCTION tiergate.place_new_tenant();


CREATE FUNCTION tiergate.provision_tenant()
RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM tiergate.want_instance(NEW);
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION tiergate.provision_tenant() IS 'Trigger: a tenant that begins on a gateway of its own wants one';

CREATE TRIGGER tenants_provision AFTER INSERT ON tiergate.tenants
    FOR EACH ROW WHEN (NEW.placement = 'dedicated') EXECUTE FUNCTION tiergate.provision_tenant();


CREATE FUNCTION tiergate.tier_changed()
RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    h tiergate.handovers;
BEGIN
    IF tiergate.tier_kind(NEW.tier) = 'shared' THEN
        IF tiergate.tier_kind(OLD.tier) = 'dedicated' THEN
            PERFORM tiergate.leave_dedicated(NEW);
        END IF;
        RETURN NULL;
    END IF;

    h := tiergate.open_handover(NEW.id);
    IF h.direction = 'return' THEN
        PERFORM tiergate.finish_handover(h, 'cancelled');
        PERFORM tiergate.note_handover(h, true, 'ReturnCancelled', format('tenant is of tier "%s" again', NEW.tier));
    END IF;
    PERFORM tiergate.want_instance(NEW);
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION tiergate.tier_changed() IS
    'Trigger: the tenant shall be served by another kind of gateway, or by one of another size';

CREATE TRIGGER tenants_tier_changed AFTER UPDATE OF tier ON tiergate.tenants
    FOR EACH ROW WHEN (OLD.tier <> NEW.tier) EXECUTE FUNCTION tiergate.tier_changed();


CREATE FUNCTION tiergate.handovers_deleted()
RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
SET jit = off
AS $$
BEGIN
    UPDATE tiergate.handovers h
       SET step = 'done', finished_at = clock_timestamp(), outcome = 'deleted', words = '[]'
      FROM old_rows o WHERE h.tenant_id = o.id AND h.finished_at IS NULL;
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION tiergate.handovers_deleted() IS 'Trigger: handovers of deleted tenants are over';

CREATE TRIGGER tenants_handovers_deleted AFTER DELETE ON tiergate.tenants REFERENCING OLD TABLE AS old_rows
    FOR EACH STATEMENT EXECUTE FUNCTION tiergate.handovers_deleted();


CREATE FUNCTION tiergate.refuse_reserved()
RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
    IF TG_TABLE_NAME = 'routes' THEN
        PERFORM tiergate.refuse_row('routes_reserved', NEW.name);
    END IF;
    PERFORM tiergate.refuse_row('upstreams_reserved', NEW.name);
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION tiergate.refuse_reserved() IS
    'Trigger: refuses the name of the route and upstream by which shared gateways forward';

CREATE TRIGGER routes_reserved BEFORE INSERT OR UPDATE OF name ON tiergate.routes
    FOR EACH ROW WHEN (NEW.name = 'tiergate-forward') EXECUTE FUNCTION tiergate.refuse_reserved();
CREATE TRIGGER upstreams_reserved BEFORE INSERT OR UPDATE OF name ON tiergate.upstreams
    FOR EACH ROW WHEN (NEW.name = 'tiergate-forward') EXECUTE FUNCTION tiergate.refuse_reserved();


-- Documents

-- A document is an object that is never empty.
CREATE FUNCTION tiergate.with_members(document text, members jsonb)
RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT left(document, -1) || ', ' || substr(members::text, 2)
$$;

COMMENT ON FUNCTION tiergate.with_members(text, jsonb) IS 'A document with further members';


CREATE FUNCTION tiergate.forward_document(document text, i tiergate.instances, address text, port integer)
RETURNS text
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    d jsonb := document;
BEGIN
    RETURN d || jsonb_build_object(
        'forward',   'tiergate-forward',
        'issuers',   '[]'::jsonb,
        'api_keys',  '[]'::jsonb,
        'upstreams', d->'upstreams' || jsonb_build_object(
            'id', i.upstream_id, 'name', 'tiergate-forward', 'max_outstanding', 0,
            'health', '{"max_fails": 0, "fail_timeout_ms": 10000, "slow_start_ms": 0}'::jsonb,
            'endpoints', CASE WHEN port IS NULL THEN '[]'::jsonb ELSE
                jsonb_build_array(jsonb_build_object('id', i.endpoint_id, 'address', address, 'port', port, 'weight', 1)) END),
        'routes',    d->'routes' || jsonb_build_object(
            'id', i.route_id, 'name', 'tiergate-forward',
            'match', '{"path": {"type": "prefix", "value": "/"}}'::jsonb,
            'auth', '{"mode": "none", "hide_credentials": false}'::jsonb,
            'backends', '[{"upstream": "tiergate-forward", "weight": 1}]'::jsonb,
            'sticky', 'none',
            'timeouts', '{"connect_ms": 1000, "send_ms": 3600000, "read_ms": 3600000}'::jsonb,
            'retries', 1, 'websocket', true));
END
$$;

COMMENT ON FUNCTION tiergate.forward_document(text, tiergate.instances, text, integer) IS
    'The document of a tenant for gateways that pass everything on to another';


CREATE FUNCTION tiergate.misdirected_document(document text)
RETURNS text
LANGUAGE sql STABLE
AS $$
    SELECT (document::jsonb || '{"issuers": [], "api_keys": [], "misdirected": true}')::text
$$;

COMMENT ON FUNCTION tiergate.misdirected_document(text) IS
    'The document of a tenant for gateways that answer 421';


-- Tenants whose shared and own gateway get different documents, or counts.
CREATE FUNCTION tiergate.is_moving(t tiergate.tenants)
RETURNS boolean
LANGUAGE plpgsql STABLE
AS $$
BEGIN
    RETURN t.placement <> 'shared'
        OR EXISTS (SELECT FROM tiergate.instances i WHERE i.tenant_id = t.id)
        OR EXISTS (SELECT FROM tiergate.handovers h
                    WHERE h.tenant_id = t.id AND h.finished_at > clock_timestamp() - interval '60 seconds');
END
$$;

COMMENT ON FUNCTION tiergate.is_moving(tiergate.tenants) IS
    'Whether a tenant has, had or will have a gateway of its own, so that gateways differ in what they get';


CREATE FUNCTION tiergate.gateway_documents(t tiergate.tenants, base text, OUT document text, OUT shared_document text)
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    i    tiergate.instances;
    h    tiergate.handovers;
    c    tiergate.handovers;
    back text;
    told jsonb := '{}';
BEGIN
    document := base;
    IF NOT tiergate.is_moving(t) THEN
        RETURN;
    END IF;
    SELECT * INTO i FROM tiergate.instances x WHERE x.tenant_id = t.id;
    SELECT * INTO h FROM tiergate.handovers x WHERE x.tenant_id = t.id ORDER BY x.id DESC LIMIT 1;

    -- what the deciding gateway has to know of the other's counts, also while the
    -- tenant is about to leave it again: it takes them once
    SELECT * INTO c FROM tiergate.handovers x
     WHERE x.tenant_id = t.id AND x.outcome IN ('complete', 'incomplete') ORDER BY x.id DESC LIMIT 1;
    IF c.words <> '[]' AND c.finished_at > clock_timestamp() - interval '60 seconds' THEN
        told := jsonb_build_object('carry_id', c.id, 'carry', c.words);
    END IF;

    IF t.placement = 'shared' THEN
        shared_document := CASE WHEN told = '{}' OR c.direction = 'promote' THEN document
                                ELSE tiergate.with_members(document, told) END;
        back := tiergate.setting('gateways.shared_address') #>> '{}';
        document := CASE
            WHEN i.name IS NULL THEN document
            WHEN tiergate.tier_kind(t.tier) = 'dedicated' THEN tiergate.with_members(document, '{"hold": true}')
            WHEN back ~ '^.+:[0-9]+$' AND h.direction = 'return' THEN
                tiergate.forward_document(document, i, trim('[]' FROM regexp_replace(back, ':[0-9]+$', '')),
                                          substring(back FROM ':([0-9]+)$')::integer)
            ELSE tiergate.misdirected_document(document) END;
        RETURN;
    END IF;

    IF h.direction = 'return' AND h.finished_at IS NULL THEN
        shared_document := tiergate.with_members(document, '{"hold": true}');
        IF h.step = 'export' THEN
            -- what still comes to it is not among the counts that it reports: it waits too
            document := tiergate.with_members(document, jsonb_build_object('hold', true,
                                                                           'handover', jsonb_build_object('id', h.id)));
        END IF;
        IF told <> '{}' AND c.direction = 'promote' THEN
            document := tiergate.with_members(document, told);
        END IF;
        RETURN;
    END IF;

    shared_document := CASE WHEN t.forwarding = 'misdirect' OR i.name IS NULL THEN tiergate.misdirected_document(document)
                            ELSE tiergate.forward_document(document, i, host(i.address), i.port) END;
    IF h.direction = 'promote' AND h.finished_at IS NULL THEN
        shared_document := tiergate.with_members(shared_document, jsonb_build_object('handover', jsonb_build_object('id', h.id)));
        document := tiergate.with_members(document, '{"hold": true}');
    ELSIF told <> '{}' AND c.direction = 'promote' THEN
        document := tiergate.with_members(document, told);
    END IF;
END
$$;

COMMENT ON FUNCTION tiergate.gateway_documents(tiergate.tenants, text) IS
    'Made from the document of a tenant: what its own gateway gets, and what shared gateways do where that differs';


-- An instance sees the tenant with the id that it was made for, also when it has
-- outlived it; one that is gone sees nothing.
DROP FUNCTION tiergate.watch_view(text);

CREATE FUNCTION tiergate.watch_view(gateway text, OUT kind text, OUT tenant text, OUT tenant_id bigint)
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    i tiergate.instances;
BEGIN
    SELECT g.kind, g.tenant INTO kind, tenant FROM tiergate.gateways g WHERE g.name = gateway;
    IF gateway NOT LIKE 'dedicated-%' THEN
        tenant_id := (SELECT t.id FROM tiergate.tenants t WHERE t.name = tenant);
        RETURN;
    END IF;
    SELECT * INTO i FROM tiergate.instances x WHERE x.name = gateway;
    kind      := 'dedicated';
    tenant    := coalesce(i.tenant, '');
    tenant_id := coalesce(i.tenant_id, 0);
END
$$;

COMMENT ON FUNCTION tiergate.watch_view(text) IS
    'Kind of a gateway, and tenant and its id that a dedicated one sees; nulls for one that nobody has registered, which is a shared one; no tenant and 0 for an instance that is gone, which sees nothing';


CREATE OR REPLACE FUNCTION tiergate.watch_list(gateway text)
RETURNS TABLE (kind text, name text, id bigint, revision bigint, document text)
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
SET jit = off
AS $$
    WITH g AS MATERIALIZED (
        SELECT v.kind IS NOT DISTINCT FROM 'dedicated' AS own, v.tenant_id FROM tiergate.watch_view(watch_list.gateway) v
    ), moving AS MATERIALIZED (
        SELECT array_agg(m.tenant_id) AS ids
          FROM (SELECT i.tenant_id FROM tiergate.instances i
                UNION
                SELECT h.tenant_id FROM tiergate.handovers h
                 WHERE h.finished_at > clock_timestamp() - interval '60 seconds') m
    )
    SELECT 'issuer', i.name, i.id, tiergate.revision_of('issuer', i.id), tiergate.issuer_document(i)
      FROM tiergate.issuers i
     WHERE i.tenant IS NULL
    UNION ALL
    SELECT 'tenant', d.name, d.id, d.revision,
           CASE WHEN d.id = ANY ((SELECT m.ids FROM moving m)::bigint[])
                THEN (SELECT CASE WHEN g.own THEN v.document ELSE coalesce(v.shared_document, v.document) END
                        FROM g, tiergate.tenants t, tiergate.gateway_documents(t, d.document) v WHERE t.id = d.id)
                ELSE d.document END
      FROM (SELECT array_agg(n.id) AS ids
              FROM (SELECT t.id, row_number() OVER () / 50 AS fifty
                      FROM tiergate.tenants t, g WHERE NOT g.own OR t.id = g.tenant_id) n
             GROUP BY n.fifty) part,
           LATERAL tiergate.tenant_documents(part.ids) d
$$;

COMMENT ON FUNCTION tiergate.watch_list(text) IS
    'Everything that a gateway sees, issuers first; read it in one REPEATABLE READ transaction with registry_state()';


DROP FUNCTION tiergate.watch_read(bigint, integer);
DROP FUNCTION tiergate.watch_feed(bigint, integer);
DROP FUNCTION tiergate.watch_since(bigint, integer);

CREATE FUNCTION tiergate.watch_since(since bigint, max integer)
RETURNS TABLE (revision bigint, kind text, name text, id bigint, op text, tier text, gateway text,
               document text, shared boolean, shared_document text)
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
SET jit = off
AS $$
#variable_conflict use_column
BEGIN
    IF since < (SELECT r.pruned FROM tiergate.registry r) THEN
        PERFORM tiergate.refuse(410, 'revision-gone', '/since',
            format('changes since revision %s are no longer kept', since), 'list again with since=0');
    END IF;

    RETURN QUERY
    WITH changed AS MATERIALIZED (
        SELECT DISTINCT ON (b.kind, b.object_id) b.*
          FROM (SELECT c.revision, c.kind, c.object_id, c.name
                  FROM tiergate.changes c
                 WHERE c.revision > since AND c.kind IN ('tenant', 'issuer')
                 ORDER BY c.revision
                 FETCH FIRST max ROWS WITH TIES) b
         ORDER BY b.kind, b.object_id, b.revision
    )
    SELECT c.revision, c.kind, c.name, c.object_id,
           CASE WHEN coalesce(d.document, i.document) IS NULL THEN 'DELETE' ELSE 'PUT' END,
           d.tier,
           (SELECT min(g.name) FROM tiergate.gateways g WHERE g.tenant = d.name),
           coalesce(v.document, i.document), d.id IS NOT NULL, v.shared_document
      FROM changed c
      LEFT JOIN tiergate.tenant_documents(ARRAY(SELECT x.object_id FROM changed x WHERE x.kind = 'tenant')) d
             ON c.kind = 'tenant' AND d.id = c.object_id
      -- OFFSET makes it a lookup for each: a plan for few rows that suits many
      LEFT JOIN LATERAL (SELECT w.* FROM tiergate.tenants t, tiergate.gateway_documents(t, d.document) w
                          WHERE t.id = d.id OFFSET 0) v ON true
      LEFT JOIN LATERAL (SELECT tiergate.issuer_document(p) AS document FROM tiergate.issuers p
                          WHERE c.kind = 'issuer' AND p.id = c.object_id OFFSET 0) i ON true
     -- within a revision issuers come before the tenants that refer to them, and a
     -- deleted tenant before its successor of the same name
     ORDER BY c.revision, c.kind, c.object_id;
END
$$;

COMMENT ON FUNCTION tiergate.watch_since(bigint, integer) IS
    'Changes after a revision, in its order: about max rows, each object once with its present state; op is PUT or DELETE. document is what the tenant''s own gateway gets, and shared ones too unless there is a shared_document';


CREATE FUNCTION tiergate.watch_feed(since bigint, most integer)
RETURNS TABLE (revision bigint, kind text, name text, id bigint, shared boolean,
               object_revision bigint, document text, shared_document text)
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    SELECT w.revision, w.kind, w.name, w.id, w.shared,
           (SELECT max(c.revision) FROM tiergate.changes c
             WHERE c.kind = w.kind AND c.object_id = w.id AND c.revision IS NOT NULL),
           w.document, w.shared_document
      FROM tiergate.watch_since(since, most) w;
END
$$;

COMMENT ON FUNCTION tiergate.watch_feed(bigint, integer) IS
    'watch_since(), with whether shared gateways see the tenant, and how new the document is; no document is a deletion';


-- The first row has no kind: it is the registry's state.
CREATE FUNCTION tiergate.watch_read(since bigint, most integer)
RETURNS TABLE (revision bigint, kind text, name text, id bigint, shared boolean,
               object_revision bigint, document text, shared_document text)
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    registry tiergate.registry;
    newest   bigint;
    flooded  boolean := false;
BEGIN
    SELECT * INTO registry FROM tiergate.registry;
    SELECT greatest(max(c.revision), registry.pruned) INTO newest
      FROM tiergate.changes c WHERE c.revision IS NOT NULL;

    IF since >= 0 AND newest > since THEN
        SELECT count(*) > most INTO flooded
          FROM (SELECT FROM tiergate.changes c
                 WHERE c.revision > since AND c.kind IN ('tenant', 'issuer') LIMIT most + 1) x;
    END IF;

    RETURN QUERY SELECT newest, NULL::text, registry.id::text, registry.pruned, flooded, NULL::bigint, NULL::text,
                        NULL::text;

    IF since >= 0 AND newest > since AND NOT flooded THEN
        RETURN QUERY SELECT * FROM tiergate.watch_feed(since, most);
    END IF;
END
$$;

COMMENT ON FUNCTION tiergate.watch_read(bigint, integer) IS
    'One read of the change feed: first a row with the newest revision, the registry as name, its oldest revision as id, and as shared whether more than most changes follow; then, unless they are too many, the changes';


-- Operators

CREATE FUNCTION tiergate.set_tier(tenant text, tier text)
RETURNS text
LANGUAGE plpgsql
AS $$
DECLARE
    t tiergate.tenants := tiergate.find_tenant(tenant);
BEGIN
    UPDATE tiergate.tenants x SET tier = set_tier.tier WHERE x.name = t.name
    RETURNING * INTO t;
    RETURN format('%s: tier %s, placement %s%s', t.name, t.tier, t.placement,
                  CASE WHEN t.placement <> tiergate.tier_kind(t.tier) THEN ' until the move is done' ELSE '' END);
END
$$;

COMMENT ON FUNCTION tiergate.set_tier(text, text) IS
    'Gives a tenant another tier: set_tier(''acme'', ''dedicated''). It is served where it was until its new gateway is ready';


CREATE FUNCTION tiergate.set_forwarding(tenant text, mode text)
RETURNS void
LANGUAGE plpgsql
AS $$
BEGIN
    PERFORM tiergate.find_tenant(tenant);
    UPDATE tiergate.tenants t SET forwarding = mode WHERE t.name = set_forwarding.tenant;
END
$$;

COMMENT ON FUNCTION tiergate.set_forwarding(text, text) IS
    'Says what shared gateways do with requests for a tenant that has its own: forward, or misdirect (421)';


CREATE FUNCTION tiergate.find_instance(tenant text)
RETURNS tiergate.instances
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    t tiergate.tenants := tiergate.find_tenant(tenant);
    i tiergate.instances;
BEGIN
    SELECT * INTO i FROM tiergate.instances x WHERE x.tenant_id = t.id;
    IF NOT FOUND THEN
        PERFORM tiergate.refuse(404, 'unknown-gateway', '', format('tenant "%s" has no gateway of its own', t.name),
                                'it gets one with a tier of kind dedicated');
    END IF;
    RETURN i;
END
$$;

COMMENT ON FUNCTION tiergate.find_instance(text) IS 'The instance of a tenant; refuses with 404';


CREATE FUNCTION tiergate.restart_gateway(tenant text)
RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    i tiergate.instances := tiergate.find_instance(tenant);
BEGIN
    UPDATE tiergate.instances x SET restart = x.restart + 1, generation = x.generation + 1 WHERE x.name = i.name;
    PERFORM tiergate.notify_instances();
END
$$;

COMMENT ON FUNCTION tiergate.restart_gateway(text) IS
    'Has the gateway of a tenant started anew: its master and workers, after they have ended their requests';


-- Tenants of a dedicated tier from before this migration
DO $$
DECLARE
    t tiergate.tenants;
BEGIN
    FOR t IN SELECT x.* FROM tiergate.tenants x
              WHERE x.tier IN (SELECT s.name FROM tiergate.tiers s WHERE s.gateway_kind = 'dedicated') LOOP
        PERFORM tiergate.place(t.id, 'dedicated');
        PERFORM tiergate.want_instance(t);
    END LOOP;
END
$$;



-- Who may do what, see 0013_security

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA tiergate, tiergate_api FROM PUBLIC;

GRANT SELECT ON tiergate.handovers TO tiergate_admin, tiergate_reader;
GRANT SELECT (id, tenant, tenant_id, direction, step, gateways, reported, started_at, step_at, finished_at, outcome)
   ON tiergate.handovers TO tiergate_tenant;
GRANT EXECUTE ON FUNCTION
    tiergate.set_tier(text, text), tiergate.set_forwarding(text, text), tiergate.restart_gateway(text),
    tiergate.find_instance(text), tiergate.tier_kind(text), tiergate.gateway_documents(tiergate.tenants, text),
    tiergate.is_moving(tiergate.tenants), tiergate.with_members(text, jsonb),
    tiergate.misdirected_document(text), tiergate.forward_document(text, tiergate.instances, text, integer),
    tiergate.watch_since(bigint, integer), tiergate.watch_list(text), tiergate.watch_view(text)
    TO tiergate_admin;
GRANT EXECUTE ON FUNCTION
    tiergate.instance_ready(text), tiergate.handovers_advance(), tiergate.handover_report(text, jsonb),
    tiergate.watch_view(text), tiergate.watch_since(bigint, integer), tiergate.watch_read(bigint, integer),
    tiergate.watch_feed(bigint, integer)
    TO tiergate_daemon;

ALTER TABLE tiergate.handovers ENABLE ROW LEVEL SECURITY;
CREATE POLICY operators ON tiergate.handovers TO tiergate_admin, tiergate_quota_admin, tiergate_reader
    USING (true) WITH CHECK (true);
COMMENT ON POLICY operators ON tiergate.handovers IS 'Operators see every tenant';
CREATE POLICY own ON tiergate.handovers FOR SELECT TO tiergate_tenant
    USING (tenant IN (SELECT r.tenant FROM tiergate.tenant_roles r));
COMMENT ON POLICY own ON tiergate.handovers IS 'A tenant''s role sees its tenants';

COMMIT;
