-- SPDX-License-Identifier: BSD-2-Clause
--
-- One function per REST route.  path holds the parameters of the pattern in
-- order, query an object of strings, body the JSON body or null.  They translate
-- between HTTP and the functions of schema tiergate, and hold no rules.

BEGIN;

INSERT INTO tiergate.schema_migrations (version, name) VALUES (11, 'api');

-- Objects as REST shows them: the body that would make them, and what they got.

CREATE FUNCTION tiergate.issuer_json(i tiergate.issuers)
RETURNS jsonb
LANGUAGE sql STABLE
AS $$
    SELECT jsonb_strip_nulls(jsonb_build_object(
        'id',             i.id,
        'name',           i.name,
        'ref',            (SELECT p.name FROM tiergate.issuers p WHERE p.id = i.ref),
        'issuer',         i.issuer,
        'audiences',      i.audiences,
        'algorithms',     i.algorithms,
        'leeway',         i.leeway,
        'consumer_claim', i.consumer_claim,
        'jwks_uri',       i.jwks_uri,
        'jwks',           CASE WHEN i.keys IS NOT NULL THEN jsonb_build_object('keys', i.keys) END))
$$;

COMMENT ON FUNCTION tiergate.issuer_json(tiergate.issuers) IS 'An issuer as the REST API shows it';


CREATE FUNCTION tiergate.consumer_json(c tiergate.consumers)
RETURNS jsonb
LANGUAGE sql STABLE
AS $$
    SELECT jsonb_build_object('id', c.id, 'name', c.name, 'labels', c.labels)
$$;

COMMENT ON FUNCTION tiergate.consumer_json(tiergate.consumers) IS 'A consumer as the REST API shows it';


CREATE FUNCTION tiergate.api_key_json(k tiergate.api_keys)
RETURNS jsonb
LANGUAGE sql STABLE
AS $$
    SELECT jsonb_strip_nulls(jsonb_build_object(
        'id', k.id, 'consumer', k.consumer, 'hint', k.hint, 'scopes', k.scopes,
        'expires_at', k.expires_at, 'created_at', k.created_at, 'rotated_to', k.rotated_to))
$$;

COMMENT ON FUNCTION tiergate.api_key_json(tiergate.api_keys) IS
    'An API key as the REST API shows it: without the key';


CREATE FUNCTION tiergate.endpoint_json(e tiergate.endpoints)
RETURNS jsonb
LANGUAGE sql STABLE
AS $$
    SELECT jsonb_build_object('id', e.id, 'address', host(e.address), 'port', e.port, 'weight', e.weight)
$$;

COMMENT ON FUNCTION tiergate.endpoint_json(tiergate.endpoints) IS 'An endpoint as the REST API shows it';


CREATE FUNCTION tiergate.upstream_json(u tiergate.upstreams)
RETURNS jsonb
LANGUAGE sql STABLE
AS $$
    SELECT jsonb_strip_nulls(jsonb_build_object(
        'id', u.id, 'name', u.name, 'host', u.host, 'max_outstanding', u.max_outstanding,
        'health', jsonb_build_object('max_fails', u.max_fails, 'fail_timeout_ms', u.fail_timeout_ms,
                                     'slow_start_ms', u.slow_start_ms),
        'endpoints', (SELECT coalesce(jsonb_agg(tiergate.endpoint_json(e) ORDER BY e.id), '[]')
                        FROM tiergate.endpoints e WHERE e.tenant = u.tenant AND e.upstream = u.name)))
$$;

COMMENT ON FUNCTION tiergate.upstream_json(tiergate.upstreams) IS 'An upstream as the REST API shows it';


CREATE FUNCTION tiergate.route_json(r tiergate.routes)
RETURNS jsonb
LANGUAGE sql STABLE
AS $$
    SELECT jsonb_strip_nulls(jsonb_build_object(
        'id',    r.id,
        'name',  r.name,
        'match', jsonb_build_object('path', jsonb_build_object('type', r.path_type, 'value', r.path),
                                    'methods', r.methods, 'headers', r.headers, 'hosts', r.hosts),
        'auth',  jsonb_build_object('mode', r.auth, 'methods', r.auth_methods, 'scopes', r.scopes,
                                    'claims', r.claims, 'hide_credentials', r.hide_credentials),
        'rewrite', CASE WHEN r.rewrite IS NOT NULL THEN
            jsonb_build_object('type', r.rewrite, 'value', r.rewrite_value) END,
        'backends', r.backends,
        'sticky', r.sticky,
        'timeouts', jsonb_build_object('connect_ms', r.connect_ms, 'send_ms', r.send_ms, 'read_ms', r.read_ms),
        'retries', r.retries,
        'websocket', r.websocket))
$$;

COMMENT ON FUNCTION tiergate.route_json(tiergate.routes) IS 'A route as the REST API shows it';


CREATE FUNCTION tiergate.quota_json(q tiergate.quotas)
RETURNS jsonb
LANGUAGE sql STABLE
AS $$
    SELECT jsonb_strip_nulls(jsonb_build_object(
        'id', q.id, 'name', q.name,
        'scope', CASE WHEN q.consumer IS NOT NULL THEN 'consumer'
                      WHEN q.route IS NOT NULL THEN 'route' ELSE 'tenant' END,
        'route', q.route, 'consumer', nullif(q.consumer, '*'), 'metric', q.metric,
        'limit', coalesce(q.requests, q.concurrency, q.body_size),
        'window', tiergate.quota_window(q.per), 'burst', q.burst, 'dry_run', q.dry_run))
$$;

COMMENT ON FUNCTION tiergate.quota_json(tiergate.quotas) IS 'A quota as the REST API shows it';


CREATE FUNCTION tiergate.tenant_json(t tiergate.tenants)
RETURNS jsonb
LANGUAGE sql STABLE
AS $$
    SELECT jsonb_strip_nulls(jsonb_build_object(
        'id', t.id, 'name', t.name, 'tier', t.tier, 'state', t.state, 'reason', t.reason,
        'display_name', t.display_name, 'labels', t.labels,
        'boost', CASE WHEN t.boost_until > now() THEN
            jsonb_build_object('factor', t.boost_factor, 'until', t.boost_until) END,
        'hosts', (SELECT coalesce(jsonb_agg(h.host ORDER BY h.host), '[]')
                    FROM tiergate.hosts h WHERE h.tenant = t.name),
        'created_at', t.created_at,
        'revision', tiergate.revision_of('tenant', t.id),
        'observedRevision',
            (SELECT coalesce(jsonb_object_agg(g.name, g.revision), '{}')
               FROM tiergate.gateways g JOIN tiergate.tiers s ON s.name = t.tier AND s.gateway_kind = g.kind
              WHERE g.tenant IS NULL OR g.tenant = t.name),
        'rejected',
            (SELECT jsonb_object_agg(g.name, r.value->>'reason')
               FROM tiergate.gateways g, jsonb_array_elements(g.rejected) r
              WHERE g.rejected <> '[]' AND r.value @> jsonb_build_object('kind', 'tenant', 'name', t.name))))
$$;

COMMENT ON FUNCTION tiergate.tenant_json(tiergate.tenants) IS
    'A tenant as the REST API shows it: observedRevision says how far each gateway is, rejected which gateways refused it and why';


-- Helpers

CREATE FUNCTION tiergate.find_tenant(tenant text)
RETURNS tiergate.tenants
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    t tiergate.tenants;
BEGIN
    SELECT * INTO t FROM tiergate.tenants x WHERE x.name = tenant;
    IF NOT FOUND THEN
        PERFORM tiergate.refuse(404, 'unknown-tenant', '', format('there is no tenant "%s"', tenant));
    END IF;
    RETURN t;
END
$$;

COMMENT ON FUNCTION tiergate.find_tenant(text) IS 'The tenant of this name; refuses with 404 if there is none';


CREATE FUNCTION tiergate_api.etag(revision bigint)
RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT '"' || revision || '"'
$$;

COMMENT ON FUNCTION tiergate_api.etag(bigint) IS 'A revision as ETag';


-- The revision is drawn here rather than at commit, so that the answer can say
-- it; tenantd has sent COMMIT already.  Under the lock nobody else can change
-- the object any more, so that is where If-Match is judged.
CREATE FUNCTION tiergate_api.settle(kind text, object_id bigint)
RETURNS bigint
LANGUAGE plpgsql
AS $$
DECLARE
    wanted  text := coalesce(current_setting('tiergate.if_match', true), '');
    present bigint;
BEGIN
    IF wanted NOT IN ('', '*') THEN
        PERFORM tiergate.lock_revision();
        present := tiergate.revision_of(kind, object_id);
        IF NOT tiergate_api.etag(present) = ANY (regexp_split_to_array(wanted, '\s*,\s*')) THEN
            PERFORM tiergate.refuse(412, 'precondition-failed', '',
                format('the object is at revision %s, not at that of If-Match', present),
                'read it again, then repeat the change with its new ETag');
        END IF;
    END IF;
    SET CONSTRAINTS ALL IMMEDIATE;
    RETURN tiergate.revision_of(kind, object_id);
END
$$;

COMMENT ON FUNCTION tiergate_api.settle(text, bigint) IS
    'Ends the changes of a REST call: judges If-Match, draws the revision and returns that of the object';


CREATE FUNCTION tiergate_api.check_query(query jsonb, VARIADIC known text[] DEFAULT '{}')
RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
    k text;
BEGIN
    SELECT q INTO k FROM jsonb_object_keys(coalesce(query, '{}')) q WHERE q <> ALL (known) LIMIT 1;
    IF FOUND THEN
        PERFORM tiergate.refuse(400, 'unknown-parameter', '', format('query parameter "%s" is not known here', k),
            CASE WHEN cardinality(known) > 0 THEN 'known are: ' || array_to_string(known, ', ') ELSE 'there are none' END);
    END IF;
END
$$;

COMMENT ON FUNCTION tiergate_api.check_query(jsonb, text[]) IS 'Refuses query parameters other than the known';


CREATE FUNCTION tiergate_api.ok(body jsonb, revision bigint DEFAULT NULL, status integer DEFAULT 200,
                                location text DEFAULT NULL)
RETURNS tiergate_api.response
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT ROW(status, tiergate_api.etag(revision), location, body::text)::tiergate_api.response
$$;

COMMENT ON FUNCTION tiergate_api.ok(jsonb, bigint, integer, text) IS 'An answer';


-- Tenants

CREATE FUNCTION tiergate_api.create_tenant(path text[], query jsonb, body jsonb)
RETURNS tiergate_api.response
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    made     jsonb;
    t        tiergate.tenants;
    shown    jsonb;
    revision bigint;
BEGIN
    PERFORM tiergate_api.check_query(query);
    made  := tiergate.onboard(body);
    t     := tiergate.find_tenant(made->>'name');
    shown := tiergate.tenant_json(t) || jsonb_build_object('keys', made->'keys');
    revision := tiergate_api.settle('tenant', t.id);
    RETURN tiergate_api.ok(shown || jsonb_build_object('revision', revision),
                           revision, 201, '/v1/tenants/' || t.name);
END
$$;

COMMENT ON FUNCTION tiergate_api.create_tenant(text[], jsonb, jsonb) IS 'POST /v1/tenants';


CREATE FUNCTION tiergate_api.get_tenant(path text[], query jsonb, body jsonb)
RETURNS tiergate_api.response
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    t tiergate.tenants := tiergate.find_tenant(path[1]);
BEGIN
    PERFORM tiergate_api.check_query(query);
    RETURN tiergate_api.ok(tiergate.tenant_json(t), tiergate.revision_of('tenant', t.id));
END
$$;

COMMENT ON FUNCTION tiergate_api.get_tenant(text[], jsonb, jsonb) IS 'GET /v1/tenants/{tenant}';


CREATE FUNCTION tiergate_api.get_document(path text[], query jsonb, body jsonb)
RETURNS tiergate_api.response
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    t tiergate.tenants := tiergate.find_tenant(path[1]);
BEGIN
    PERFORM tiergate_api.check_query(query);
    RETURN ROW(200, tiergate_api.etag(tiergate.revision_of('tenant', t.id)), NULL,
               tiergate.tenant_document(t))::tiergate_api.response;
END
$$;

COMMENT ON FUNCTION tiergate_api.get_document(text[], jsonb, jsonb) IS 'GET /v1/tenants/{tenant}/document';

COMMIT;
