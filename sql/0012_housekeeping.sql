-- SPDX-License-Identifier: BSD-2-Clause
--
-- What tenantd calls once a minute.

BEGIN;

INSERT INTO tiergate.schema_migrations (version, name) VALUES (12, 'housekeeping');

-- Every change up to registry.pruned has been looked at: of each object only the
-- newest row is left, and nothing of those that are gone.  So only rows that
-- have grown old since then need looking at.
CREATE FUNCTION tiergate.prune_changes()
RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    low  bigint := (SELECT r.pruned FROM tiergate.registry r);
    high bigint;
    gone bigint;
BEGIN
    SELECT max(c.revision) INTO high
      FROM (SELECT c.revision, c.at FROM tiergate.changes c
             WHERE c.revision > low ORDER BY c.revision LIMIT 10000) c
     WHERE c.at < now() - (tiergate.setting('changes.retention') #>> '{}')::interval;
    IF high IS NULL THEN
        RETURN 0;
    END IF;

    WITH old AS MATERIALIZED (
        SELECT c.kind, c.object_id, max(c.revision) AS revision,
               CASE c.kind WHEN 'tenant' THEN EXISTS (SELECT FROM tiergate.tenants t WHERE t.id = c.object_id)
                           ELSE EXISTS (SELECT FROM tiergate.issuers i WHERE i.id = c.object_id) END AS lives
          FROM tiergate.changes c
         WHERE c.revision > low AND c.revision <= high
         GROUP BY c.kind, c.object_id
    )
    DELETE FROM tiergate.changes c
     USING old o
     WHERE c.kind = o.kind AND c.object_id = o.object_id
       AND (c.revision < o.revision OR (c.revision = o.revision AND NOT o.lives));
    GET DIAGNOSTICS gone = ROW_COUNT;

    UPDATE tiergate.registry SET pruned = high;
    RETURN gone;
END
$$;

COMMENT ON FUNCTION tiergate.prune_changes() IS
    'Drops history older than setting changes.retention; gateways that were away longer list again';


-- Whoever reads usage holds its partitions; then they go next time.
CREATE FUNCTION tiergate.drop_old_usage()
RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '500ms'
AS $$
DECLARE
    part record;
    gone integer := 0;
BEGIN
    FOR part IN
        SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
         WHERE i.inhparent = 'tiergate.usage'::regclass AND c.relname ~ '^usage_\d{8}$'
           AND to_date(right(c.relname, 8), 'YYYYMMDD') + 1
               < (now() AT TIME ZONE 'UTC') - (tiergate.setting('usage.retention') #>> '{}')::interval
    LOOP
        EXECUTE format('DROP TABLE tiergate.%I', part.relname);
        gone := gone + 1;
    END LOOP;
    RETURN gone;
EXCEPTION WHEN lock_not_available THEN
    RETURN 0;
END
$$;

COMMENT ON FUNCTION tiergate.drop_old_usage() IS
    'Drops days of usage that are older than setting usage.retention';


-- Rows are numbered about as they come, so that the oldest are found without an
-- index on time; what is beyond a batch goes the next minutes.
CREATE FUNCTION tiergate.drop_old_audit()
RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET tiergate.pruning = 'audit'
AS $$
DECLARE
    kept text := tiergate.setting('audit.retention') #>> '{}';
    gone bigint;
BEGIN
    IF kept = 'forever' THEN
        RETURN 0;
    END IF;
    DELETE FROM tiergate.audit a
     USING (SELECT o.id FROM (SELECT x.id, x.at FROM tiergate.audit x ORDER BY x.id LIMIT 10000) o
             WHERE o.at < now() - kept::interval) old
     WHERE a.id = old.id;
    GET DIAGNOSTICS gone = ROW_COUNT;
    RETURN gone;
END
$$;

COMMENT ON FUNCTION tiergate.drop_old_audit() IS
    'Drops audit rows that are older than setting audit.retention, at most 10,000 at once';


CREATE FUNCTION tiergate.housekeeping()
RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    -- one tenantd at a time is enough
    IF NOT pg_try_advisory_xact_lock(hashtextextended('tiergate.housekeeping', 0)) THEN
        RETURN;
    END IF;

    FOR ahead IN 0 .. 2 LOOP
        PERFORM tiergate.ensure_usage_partition((now() AT TIME ZONE 'UTC')::date + ahead);
    END LOOP;
    PERFORM tiergate.drop_old_usage();
    PERFORM tiergate.prune_changes();
    PERFORM tiergate.drop_old_audit();

    DELETE FROM tiergate.idempotency_keys k
     WHERE k.created_at < now() - (tiergate.setting('idempotency.retention') #>> '{}')::interval;
    DELETE FROM tiergate.api_keys k WHERE k.expires_at < now() - interval '30 days';
    DELETE FROM tiergate.usage_counters c WHERE c.at < now() - interval '32 days';
    DELETE FROM tiergate.quota_usage u
     WHERE u.at < now() - interval '32 days'
        OR NOT EXISTS (SELECT FROM tiergate.quotas q WHERE q.id = u.quota_id);
END
$$;

COMMENT ON FUNCTION tiergate.housekeeping() IS
    'Makes partitions ahead, and drops what has outlived its retention: usage, changes, audit, remembered answers, API keys that expired 30 days ago';

DO $$ BEGIN PERFORM tiergate.housekeeping(); END $$;

COMMIT;
