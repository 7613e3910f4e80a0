-- SPDX-License-Identifier: BSD-2-Clause
--
-- What gateways get: the document of a tenant or of a platform issuer, and the
-- two queries that the watch stream is made of.  docs/reference/tenant-document.md
-- and docs/reference/watch.md are the contract.

BEGIN;

INSERT INTO tiergate.schema_migrations (version, name) VALUES (4, 'documents');

CREATE FUNCTION tiergate.unix_time(at timestamptz)
RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT floor(extract(epoch FROM at))::bigint
$$;

COMMENT ON FUNCTION tiergate.unix_time(timestamptz) IS 'Seconds since 1970';


CREATE FUNCTION tiergate.issuer_document(i tiergate.issuers)
RETURNS text
LANGUAGE sql STABLE
AS $$
    SELECT json_strip_nulls(json_build_object(
        'id',             i.id,
        'name',           i.name,
        'revision',       coalesce(tiergate.revision_of(
                              CASE WHEN i.tenant IS NULL THEN 'issuer' ELSE 'tenant_issuer' END, i.id), 1),
        'issuer',         i.issuer,
        'audiences',      i.audiences,
        'algorithms',     i.algorithms,
        'leeway',         i.leeway,
        'consumer_claim', i.consumer_claim,
        'keys',           i.keys))::text
$$;

COMMENT ON FUNCTION tiergate.issuer_document(tiergate.issuers) IS
    'The document of an issuer, as gateways get it';


-- No gateway takes more than 4 MiB: but a suspension must reach it.
CREATE FUNCTION tiergate.fit_document(t tiergate.tenants, document text)
RETURNS text
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
AS $$
BEGIN
    IF octet_length(document) <= 4194304 OR t.state <> 'suspended' THEN
        RETURN document;
    END IF;
    RETURN json_strip_nulls(json_build_object(
        'name', t.name, 'id', t.id, 'revision', document::json->'revision', 'tier', t.tier,
        'state', t.state, 'reason', t.reason, 'hosts', document::json->'hosts', 'issuers', '[]'::json,
        'api_keys', '[]'::json, 'upstreams', '[]'::json, 'routes', '[]'::json, 'quotas', '[]'::json))::text;
END
$$;

COMMENT ON FUNCTION tiergate.fit_document(tiergate.tenants, text) IS
    'The document, or of one that is too large and suspended no more than what says so';


-- Several at once: to begin this statement takes longer than to make one document.
-- PostgreSQL does not inline functions with sub-selects, and plans an SQL function
-- anew in each statement; PL/pgSQL keeps the plan, if it is told that one suits
-- arrays of any length.
CREATE FUNCTION tiergate.tenant_documents(ids bigint[])
RETURNS TABLE (id bigint, name text, tier text, revision bigint, document text)
LANGUAGE plpgsql STABLE
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off
SET jit = off
AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    SELECT t.id, t.name, t.tier, v.revision,
           tiergate.fit_document(t, json_strip_nulls(json_build_object(
               'name',     t.name,
               'id',       t.id,
               'revision', coalesce(v.revision, 1),
               'tier',     t.tier,
               'state',    t.state,
               'reason',   t.reason,
               'boost',    CASE WHEN t.boost_until > now() THEN
                               json_build_object('factor', t.boost_factor, 'until', tiergate.unix_time(t.boost_until)) END,
               'hosts',
                   (SELECT coalesce(json_agg(h.host ORDER BY h.host), '[]')
                      FROM tiergate.hosts h WHERE h.tenant = t.name),
               'issuers',
                   (SELECT coalesce(json_agg(CASE WHEN i.ref IS NULL THEN tiergate.issuer_document(i)::json
                                         ELSE json_build_object('ref', i.ref, 'audiences', i.audiences) END
                                    ORDER BY i.name), '[]')
                      FROM tiergate.issuers i WHERE i.tenant = t.name),
               'consumers',
                   (SELECT json_agg(json_build_object('id', c.id, 'name', c.name) ORDER BY c.name)
                      FROM tiergate.consumers c WHERE c.tenant = t.name),
               'api_keys',
                   (SELECT coalesce(json_agg(json_build_object(
                               'id',       k.id,
                               'sha256',   encode(k.sha256, 'hex'),
                               'consumer', k.consumer,
                               'expires',  tiergate.unix_time(k.expires_at),
                               'scopes',   k.scopes) ORDER BY k.id), '[]')
                      FROM tiergate.api_keys k
                     WHERE k.tenant = t.name AND (k.expires_at IS NULL OR k.expires_at > now())),
               'upstreams',
                   (SELECT coalesce(json_agg(json_build_object(
                               'id',              u.id,
                               'name',            u.name,
                               'host',            u.host,
                               'max_outstanding', u.max_outstanding,
                               'health',          json_build_object('max_fails',       u.max_fails,
                                                                    'fail_timeout_ms', u.fail_timeout_ms,
                                                                    'slow_start_ms',   u.slow_start_ms),
                               'endpoints',
                                   (SELECT coalesce(json_agg(json_build_object(
                                               'id',      e.id,
                                               'address', host(e.address),
                                               'port',    e.port,
                                               'weight',  e.weight) ORDER BY e.id), '[]')
                                      FROM tiergate.endpoints e
                                     WHERE e.tenant = u.tenant AND e.upstream = u.name)) ORDER BY u.name), '[]')
                      FROM tiergate.upstreams u WHERE u.tenant = t.name),
               'routes',
                   (SELECT coalesce(json_agg(json_build_object(
                               'id',        r.id,
                               'name',      r.name,
                               'match',     json_build_object(
                                   'path',    json_build_object('type', r.path_type, 'value', r.path),
                                   'methods', r.methods,
                                   'headers', r.headers,
                                   'hosts',   r.hosts),
                               'auth',      json_build_object(
                                   'mode',    r.auth,
                                   'methods', r.auth_methods,
                                   'scopes',  r.scopes,
                                   'claims',  r.claims,
                                   'hide_credentials', r.hide_credentials),
                               'rewrite',   CASE WHEN r.rewrite IS NOT NULL THEN
                                   json_build_object('type', r.rewrite, 'value', r.rewrite_value) END,
                               'backends',  r.backends,
                               'sticky',    r.sticky,
                               'timeouts',  json_build_object('connect_ms', r.connect_ms,
                                                              'send_ms',    r.send_ms,
                                                              'read_ms',    r.read_ms),
                               'retries',   r.retries,
                               'websocket', r.websocket) ORDER BY r.name), '[]')
                      FROM tiergate.routes r WHERE r.tenant = t.name),
               'quotas',
                   (SELECT coalesce(json_agg(json_build_object(
                               'id',       q.id,
                               'name',     q.name,
                               'scope',    CASE WHEN q.consumer IS NOT NULL THEN 'consumer'
                                                WHEN q.route IS NOT NULL THEN 'route' ELSE 'tenant' END,
                               'route',    q.route,
                               'consumer', nullif(q.consumer, '*'),
                               'metric',   q.metric,
                               'limit',    coalesce(q.requests, q.concurrency, q.body_size),
                               'window',   tiergate.quota_window(q.per),
                               'burst',    q.burst,
                               'dry_run',  q.dry_run) ORDER BY q.name), '[]')
                      FROM tiergate.quotas q WHERE q.tenant = t.name)))::text)
      FROM unnest(ids) wanted
      JOIN tiergate.tenants t ON t.id = wanted
     CROSS JOIN LATERAL (SELECT max(c.revision) AS revision FROM tiergate.changes c
                          WHERE c.kind = 'tenant' AND c.object_id = t.id AND c.revision IS NOT NULL) v;
END
$$;

COMMENT ON FUNCTION tiergate.tenant_documents(bigint[]) IS
    'The documents of the tenants with these ids, as gateways get them, and the revisions of the tenants';


CREATE FUNCTION tiergate.tenant_document(t tiergate.tenants)
RETURNS text
LANGUAGE plpgsql STABLE
AS $$
BEGIN
    RETURN (SELECT d.document FROM tiergate.tenant_documents(ARRAY[t.id]) d);
END
$$;

COMMENT ON FUNCTION tiergate.tenant_document(tiergate.tenants) IS
    'The document of a tenant, as gateways get it: SELECT tiergate.tenant_document(t) FROM tiergate.tenants t';


CREATE FUNCTION tiergate.tenant_document(tenant text)
RETURNS text
LANGUAGE sql STABLE
AS $$
    SELECT tiergate.tenant_document(t) FROM tiergate.tenants t WHERE t.name = tenant_document.tenant
$$;

COMMENT ON FUNCTION tiergate.tenant_document(text) IS
    'The document of the named tenant, as gateways get it';


CREATE FUNCTION tiergate.registry_state(OUT registry uuid, OUT revision bigint, OUT oldest bigint)
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT r.id,
           greatest((SELECT max(c.revision) FROM tiergate.changes c WHERE c.revision IS NOT NULL), r.pruned),
           r.pruned
      FROM tiergate.registry r
$$;

COMMENT ON FUNCTION tiergate.registry_state() IS
    'Which registry this is, its newest revision, and the oldest from which changes can still be told';


-- A gateway that nobody has registered is a shared one.
CREATE FUNCTION tiergate.watch_list(gateway text)
RETURNS TABLE (kind text, name text, id bigint, revision bigint, document text)
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
SET jit = off
AS $$
    WITH g AS (SELECT (SELECT x.tenant FROM tiergate.gateways x
                        WHERE x.name = watch_list.gateway AND x.kind = 'dedicated') AS tenant)
    SELECT 'issuer', i.name, i.id, tiergate.revision_of('issuer', i.id), tiergate.issuer_document(i)
      FROM tiergate.issuers i, g
     WHERE i.tenant IS NULL
       AND (g.tenant IS NULL OR i.id IN (SELECT r.ref FROM tiergate.issuers r WHERE r.tenant = g.tenant))
    UNION ALL
    SELECT 'tenant', d.name, d.id, d.revision, d.document
      FROM (SELECT array_agg(n.id) AS ids
              FROM (SELECT t.id, row_number() OVER () / 50 AS fifty
                      FROM tiergate.tenants t, g
                     WHERE CASE WHEN g.tenant IS NULL
                                THEN t.tier IN (SELECT s.name FROM tiergate.tiers s WHERE s.gateway_kind = 'shared')
                                ELSE t.name = g.tenant END) n
             GROUP BY n.fifty) part,
           LATERAL tiergate.tenant_documents(part.ids) d
$$;

COMMENT ON FUNCTION tiergate.watch_list(text) IS
    'Everything that a gateway sees, issuers first; read it in one REPEATABLE READ transaction with registry_state()';


-- Sequential scans are off for plans that are made while tables are small and kept
-- while they grow; so is compilation, see 0003_revisions_and_audit.
--
-- Each object comes once, at its lowest revision in the batch, with its present
-- state: so everything up to any revision that the gateway has read is really
-- there, and an acknowledged revision can be believed.  A batch never cuts a
-- revision in two.
CREATE FUNCTION tiergate.watch_since(since bigint, max integer)
RETURNS TABLE (revision bigint, kind text, name text, id bigint, op text, tier text, gateway text,
               document text)
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
           coalesce(d.document, i.document)
      FROM changed c
      LEFT JOIN tiergate.tenant_documents(ARRAY(SELECT x.object_id FROM changed x WHERE x.kind = 'tenant')) d
             ON c.kind = 'tenant' AND d.id = c.object_id
      -- OFFSET makes it a lookup for each: a plan for few rows that suits many
      LEFT JOIN LATERAL (SELECT tiergate.issuer_document(p) AS document FROM tiergate.issuers p
                          WHERE c.kind = 'issuer' AND p.id = c.object_id OFFSET 0) i ON true
     -- within a revision issuers come before the tenants that refer to them, and a
     -- deleted tenant before its successor of the same name
     ORDER BY c.revision, c.kind, c.object_id;
END
$$;

COMMENT ON FUNCTION tiergate.watch_since(bigint, integer) IS
    'Changes after a revision, in its order: about max rows, each object once with its present state; op is PUT or DELETE';

COMMIT;
