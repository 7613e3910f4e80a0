-- SPDX-License-Identifier: BSD-2-Clause
--
-- What tenantd needs on top of watch_since() to serve many streams from one
-- read: which lines are whose, and whether there is more than fits in memory.

BEGIN;

INSERT INTO tiergate.schema_migrations (version, name) VALUES (20, 'feed');

CREATE FUNCTION tiergate.watch_view(gateway text, OUT kind text, OUT tenant text)
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT g.kind, g.tenant FROM tiergate.gateways g WHERE g.name = watch_view.gateway
$$;

COMMENT ON FUNCTION tiergate.watch_view(text) IS
    'Kind and tenant of a gateway; null for one that nobody has registered, which is a shared one';


CREATE FUNCTION tiergate.watch_state(since bigint, most integer, OUT registry uuid, OUT revision bigint,
                                     OUT oldest bigint, OUT flooded boolean)
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT s.registry, s.revision, s.oldest,
           most < (SELECT count(*) FROM (SELECT FROM tiergate.changes c
                                          WHERE c.revision > since AND c.kind IN ('tenant', 'issuer')
                                          LIMIT most + 1) x)
      FROM tiergate.registry_state() s
$$;

COMMENT ON FUNCTION tiergate.watch_state(bigint, integer) IS
    'registry_state(), and whether more than most changes follow a revision';


CREATE FUNCTION tiergate.watch_feed(since bigint, most integer)
RETURNS TABLE (revision bigint, kind text, name text, id bigint, shared boolean,
               object_revision bigint, document text)
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT w.revision, w.kind, w.name, w.id,
           EXISTS (SELECT FROM tiergate.tiers t WHERE t.name = w.tier AND t.gateway_kind = 'shared'),
           tiergate.revision_of(w.kind, w.id), w.document
      FROM tiergate.watch_since(since, most) w
$$;

COMMENT ON FUNCTION tiergate.watch_feed(bigint, integer) IS
    'watch_since(), with whether shared gateways see the tenant, and how new the document is; no document is a deletion';

REVOKE ALL ON FUNCTION tiergate.watch_view(text), tiergate.watch_state(bigint, integer),
    tiergate.watch_feed(bigint, integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION tiergate.watch_view(text), tiergate.watch_state(bigint, integer),
    tiergate.watch_feed(bigint, integer) TO tiergate_daemon;

COMMIT;
