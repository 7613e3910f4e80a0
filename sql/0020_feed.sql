-- SPDX-License-Identifier: BSD-2-Clause
--
-- What tenantd needs on top of watch_since() to serve many streams from one
-- read: which lines are whose, and whether there is more than fits in memory.
-- In PL/pgSQL, which keeps its plans: the feed runs this after each change.

BEGIN;

INSERT INTO tiergate.schema_migrations (version, name) VALUES (20, 'feed');

CREATE FUNCTION tiergate.watch_view(gateway text, OUT kind text, OUT tenant text)
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    SELECT g.kind, g.tenant INTO kind, tenant FROM tiergate.gateways g WHERE g.name = gateway;
END
$$;

COMMENT ON FUNCTION tiergate.watch_view(text) IS
    'Kind and tenant of a gateway; null for one that nobody has registered, which is a shared one';


CREATE FUNCTION tiergate.watch_feed(since bigint, most integer)
RETURNS TABLE (revision bigint, kind text, name text, id bigint, shared boolean,
               object_revision bigint, document text)
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    SELECT w.revision, w.kind, w.name, w.id,
           EXISTS (SELECT FROM tiergate.tiers t WHERE t.name = w.tier AND t.gateway_kind = 'shared'),
           (SELECT max(c.revision) FROM tiergate.changes c
             WHERE c.kind = w.kind AND c.object_id = w.id AND c.revision IS NOT NULL),
           w.document
      FROM tiergate.watch_since(since, most) w;
END
$$;

COMMENT ON FUNCTION tiergate.watch_feed(bigint, integer) IS
    'watch_since(), with whether shared gateways see the tenant, and how new the document is; no document is a deletion';


-- The first row has no kind: it is the registry's state.
CREATE FUNCTION tiergate.watch_read(since bigint, most integer)
RETURNS TABLE (revision bigint, kind text, name text, id bigint, shared boolean,
               object_revision bigint, document text)
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

    RETURN QUERY SELECT newest, NULL::text, registry.id::text, registry.pruned, flooded, NULL::bigint, NULL::text;

    IF since >= 0 AND newest > since AND NOT flooded THEN
        RETURN QUERY SELECT * FROM tiergate.watch_feed(since, most);
    END IF;
END
$$;

COMMENT ON FUNCTION tiergate.watch_read(bigint, integer) IS
    'One read of the change feed: first a row with the newest revision, the registry as name, its oldest revision as id, and as shared whether more than most changes follow; then, unless they are too many, the changes';

REVOKE ALL ON FUNCTION tiergate.watch_view(text), tiergate.watch_read(bigint, integer),
    tiergate.watch_feed(bigint, integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION tiergate.watch_view(text), tiergate.watch_read(bigint, integer),
    tiergate.watch_feed(bigint, integer) TO tiergate_daemon;

COMMIT;
