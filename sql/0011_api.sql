-- SPDX-License-Identifier: BSD-2-Clause
--
-- One function per REST route.  path holds the parameters of the pattern in
-- order, query an object of strings, body the JSON body or null.  They translate
-- between HTTP and the functions of schema tiergate, and hold no rules.

BEGIN;

INSERT INTO tiergate.schema_migrations (version, name) VALUES (11, 'api');

-- Objects as REST shows them: the body that would make them, and what they got.
-- PL/pgSQL where an SQL function could not be inlined and would be planned anew
-- by every call.

CREATE FUNCTION tiergate.issuer_json(i tiergate.issuers)
RETURNS jsonb
LANGUAGE plpgsql STABLE
AS $$
BEGIN
    RETURN jsonb_strip_nulls(jsonb_build_object(
        'id',             i.id,
        'name',           i.name,
        'ref',            (SELECT p.name FROM tiergate.issuers p WHERE p.id = i.ref),
        'issuer',         i.issuer,
        'audiences',      i.audiences,
        'algorithms',     i.algorithms,
        'leeway',         i.leeway,
        'consumer_claim', i.consumer_claim,
        'jwks_uri',       i.jwks_uri,
        'jwks',           CASE WHEN i.keys IS NOT NULL THEN jsonb_build_object('keys', i.keys) END));
END
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
    SELECT jsonb_build_object('address', host(e.address), 'port', e.port, 'weight', e.weight)
$$;

COMMENT ON FUNCTION tiergate.endpoint_json(tiergate.endpoints) IS 'An endpoint as the REST API shows it';


CREATE FUNCTION tiergate.upstream_json(u tiergate.upstreams)
RETURNS jsonb
LANGUAGE plpgsql STABLE
AS $$
BEGIN
    RETURN jsonb_strip_nulls(jsonb_build_object(
        'id', u.id, 'name', u.name, 'host', u.host, 'max_outstanding', u.max_outstanding,
        'health', jsonb_build_object('max_fails', u.max_fails, 'fail_timeout_ms', u.fail_timeout_ms,
                                     'slow_start_ms', u.slow_start_ms),
        'endpoints', (SELECT coalesce(jsonb_agg(tiergate.endpoint_json(e) ORDER BY e.id), '[]')
                        FROM tiergate.endpoints e WHERE e.tenant = u.tenant AND e.upstream = u.name)));
END
$$;

COMMENT ON FUNCTION tiergate.upstream_json(tiergate.upstreams) IS 'An upstream as the REST API shows it';


CREATE FUNCTION tiergate.route_json(r tiergate.routes)
RETURNS jsonb
LANGUAGE plpgsql STABLE
AS $$
BEGIN
    RETURN jsonb_strip_nulls(jsonb_build_object(
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
        'websocket', r.websocket));
END
$$;

COMMENT ON FUNCTION tiergate.route_json(tiergate.routes) IS 'A route as the REST API shows it';


CREATE FUNCTION tiergate.quota_json(q tiergate.quotas)
RETURNS jsonb
LANGUAGE plpgsql STABLE
AS $$
BEGIN
    RETURN jsonb_strip_nulls(jsonb_build_object(
        'id', q.id, 'name', q.name,
        'scope', CASE WHEN q.consumer IS NOT NULL THEN 'consumer'
                      WHEN q.route IS NOT NULL THEN 'route' ELSE 'tenant' END,
        'route', q.route, 'consumer', nullif(q.consumer, '*'), 'metric', q.metric,
        'limit', coalesce(q.requests, q.concurrency, q.body_size),
        'window', tiergate.quota_window(q.per), 'burst', q.burst, 'dry_run', q.dry_run));
END
$$;

COMMENT ON FUNCTION tiergate.quota_json(tiergate.quotas) IS 'A quota as the REST API shows it';


CREATE FUNCTION tiergate.tenant_json(t tiergate.tenants)
RETURNS jsonb
LANGUAGE plpgsql STABLE
AS $$
BEGIN
    RETURN jsonb_strip_nulls(jsonb_build_object(
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
              WHERE g.rejected <> '[]' AND r.value @> jsonb_build_object('kind', 'tenant', 'name', t.name))));
END
$$;

COMMENT ON FUNCTION tiergate.tenant_json(tiergate.tenants) IS
    'A tenant as the REST API shows it: observedRevision says how far each gateway is, rejected which gateways refused it and why';


CREATE FUNCTION tiergate.host_json(h tiergate.hosts)
RETURNS jsonb
LANGUAGE sql STABLE
AS $$
    SELECT jsonb_build_object('host', h.host)
$$;

COMMENT ON FUNCTION tiergate.host_json(tiergate.hosts) IS 'A host as the REST API shows it';


CREATE FUNCTION tiergate.gateway_json(g tiergate.gateways)
RETURNS jsonb
LANGUAGE plpgsql STABLE
AS $$
BEGIN
    RETURN jsonb_strip_nulls(jsonb_build_object(
        'name', g.name, 'kind', g.kind, 'tenant', g.tenant, 'state', g.state, 'observedRevision', g.revision,
        'boot', g.boot, 'last_seen', g.last_seen, 'tenants', g.tenants,
        'zone', CASE WHEN g.zone_size IS NOT NULL THEN
            jsonb_build_object('size', g.zone_size, 'used', g.zone_used) END,
        'rejected', g.rejected, 'created_at', g.created_at));
END
$$;

COMMENT ON FUNCTION tiergate.gateway_json(tiergate.gateways) IS 'A gateway as the REST API shows it';


CREATE FUNCTION tiergate.token_json(t tiergate.api_tokens)
RETURNS jsonb
LANGUAGE plpgsql STABLE
AS $$
BEGIN
    RETURN jsonb_strip_nulls(jsonb_build_object(
        'id', t.id, 'name', t.name, 'scope', t.scope, 'tenant', t.tenant, 'gateway', t.gateway,
        'certificate', CASE WHEN t.token_sha256 IS NULL THEN jsonb_build_object(
            'sha256', encode(t.certificate_sha256, 'hex'), 'subject', t.certificate_subject) END,
        'created_at', t.created_at, 'expires_at', t.expires_at, 'revoked_at', t.revoked_at));
END
$$;

COMMENT ON FUNCTION tiergate.token_json(tiergate.api_tokens) IS
    'A token as the REST API shows it: without the token';


CREATE FUNCTION tiergate.audit_json(a tiergate.audit)
RETURNS jsonb
LANGUAGE sql STABLE
AS $$
    SELECT jsonb_strip_nulls(jsonb_build_object(
        'id', a.id, 'at', a.at, 'db_role', a.db_role, 'actor', a.actor, 'request_id', a.request_id,
        'action', a.action, 'object', a.object, 'tenant', a.tenant, 'name', a.name))
        || jsonb_build_object('old', a.old, 'new', a.new)
$$;

COMMENT ON FUNCTION tiergate.audit_json(tiergate.audit) IS 'An audit entry as the REST API shows it';


-- Helpers

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
    IF query IS NULL OR query = '{}' THEN
        RETURN;
    END IF;
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
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
AS $$
BEGIN
    RETURN ROW(status, tiergate_api.etag(revision), location, body::text)::tiergate_api.response;
END
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


-- Several calls of create_tenant() as one, for tenantd; begin_request() has been
-- called for all of them.  They share a revision.  Any refusal refuses them all,
-- and does not say whose it is: whoever was to blame is found by calling again.
-- So does a lock that one of them would have to wait for, since the others have
-- no part in it.
CREATE FUNCTION tiergate_api.create_tenants(calls jsonb)
RETURNS SETOF tiergate_api.response
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '200ms'
AS $$
DECLARE
    bodies   tiergate.tenant_body[];
    made     jsonb;
    shown    jsonb[];
    ids      bigint[];
    revision bigint;
    answer   tiergate_api.response;
BEGIN
    PERFORM tiergate_api.claim_keys(calls);

    PERFORM set_config('tiergate.request_ids',
                       (SELECT jsonb_object_agg(coalesce(c #>> '{body,name}', ''), c->'id')
                          FROM jsonb_array_elements(calls) c)::text, true);
    bodies := ARRAY(SELECT tiergate.parse_tenant(c.value->'body')
                      FROM jsonb_array_elements(calls) WITH ORDINALITY c ORDER BY c.ordinality);
    made   := (SELECT jsonb_object_agg(i.tenant, i.keys) FROM tiergate.insert_tenants(bodies) i);

    SELECT array_agg(t.id ORDER BY b.ordinality),
           array_agg(tiergate.tenant_json(t) || jsonb_build_object('keys', coalesce(made->t.name, '[]'))
                     ORDER BY b.ordinality)
      INTO ids, shown
      FROM unnest(bodies) WITH ORDINALITY b
      JOIN tiergate.tenants t ON t.name = b.name;

    revision := tiergate_api.settle('tenant', ids[1]);

    FOR i IN 1 .. cardinality(ids) LOOP
        answer := tiergate_api.ok(shown[i] || jsonb_build_object('revision', revision),
                                  revision, 201, '/v1/tenants/' || (shown[i]->>'name'));
        IF calls->(i - 1) ? 'idempotency' THEN
            PERFORM tiergate_api.remember(calls->(i - 1)->'idempotency', answer);
        END IF;
        RETURN NEXT answer;
    END LOOP;
END
$$;

COMMENT ON FUNCTION tiergate_api.create_tenants(jsonb) IS
    'Several POST /v1/tenants, from [{"id", "idempotency", "body"}]: all are created with one revision, or none';


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


CREATE FUNCTION tiergate_api.no_content()
RETURNS tiergate_api.response
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
AS $$
BEGIN
    RETURN ROW(204, NULL, NULL, NULL)::tiergate_api.response;
END
$$;

COMMENT ON FUNCTION tiergate_api.no_content() IS 'An answer without body';


-- Pages.  The cursor is the key of the last item, in base64 so that nobody
-- builds one by hand.

CREATE FUNCTION tiergate_api.page_limit(query jsonb)
RETURNS integer
LANGUAGE plpgsql IMMUTABLE
AS $$
DECLARE
    given text := query->>'limit';
BEGIN
    IF given IS NULL THEN
        RETURN 100;
    ELSIF given !~ '^[1-9][0-9]{0,3}$' OR given::integer > 1000 THEN
        PERFORM tiergate.refuse(400, 'invalid-parameter', '',
                                format('query parameter limit is "%s", but must be a number from 1 to 1000', given));
    END IF;
    RETURN given::integer;
END
$$;

COMMENT ON FUNCTION tiergate_api.page_limit(jsonb) IS 'Query parameter limit: 1 to 1000, by default 100';


CREATE FUNCTION tiergate_api.page_after(query jsonb)
RETURNS text
LANGUAGE plpgsql IMMUTABLE
AS $$
BEGIN
    RETURN convert_from(decode(translate(query->>'cursor', '-_', '+/'), 'base64'), 'UTF8');
EXCEPTION WHEN data_exception THEN
    PERFORM tiergate.refuse(400, 'invalid-parameter', '', 'query parameter cursor is not one that was given out',
                            'take it from "next" of the page before');
END
$$;

COMMENT ON FUNCTION tiergate_api.page_after(jsonb) IS 'Key after which the page begins, from query parameter cursor';


CREATE FUNCTION tiergate_api.page_number(query jsonb)
RETURNS bigint
LANGUAGE plpgsql IMMUTABLE
AS $$
DECLARE
    after text := tiergate_api.page_after(query);
BEGIN
    IF after !~ '^[0-9]{1,18}$' THEN
        PERFORM tiergate.refuse(400, 'invalid-parameter', '', 'query parameter cursor is not one that was given out',
                                'take it from "next" of the page before');
    END IF;
    RETURN after::bigint;
END
$$;

COMMENT ON FUNCTION tiergate_api.page_number(jsonb) IS 'Number after which the page begins, from query parameter cursor';


CREATE FUNCTION tiergate_api.page(items jsonb[], keys text[], most integer)
RETURNS tiergate_api.response
LANGUAGE plpgsql IMMUTABLE
AS $$
BEGIN
    RETURN tiergate_api.ok(jsonb_strip_nulls(jsonb_build_object('next', CASE WHEN cardinality(keys) > most THEN
               translate(encode(convert_to(keys[most], 'UTF8'), 'base64'), E'+/\n', '-_') END))
           || jsonb_build_object('items', to_jsonb(coalesce(items[:most], '{}'))));
END
$$;

COMMENT ON FUNCTION tiergate_api.page(jsonb[], text[], integer) IS
    'A page of a list, made of one item more than it shows';


-- Collections of a tenant: list, get, put and delete differ in names only.

CREATE FUNCTION tiergate.put_object(kind text, tenant text, name text, body jsonb)
RETURNS void
LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off
SET jit = off
AS $$
DECLARE
    owner text[] := ARRAY[tenant];
    given jsonb  := jsonb_strip_nulls(coalesce(body, '{}'));
    v     tiergate.violation;
BEGIN
    IF jsonb_typeof(given) = 'object' AND kind <> 'host' THEN
        IF given->>'name' <> name THEN
            PERFORM tiergate.refuse(422, 'name-mismatch', '/name',
                format('the body names "%s", but the path "%s"', given->>'name', name), 'leave name out of the body');
        END IF;
        -- what GET shows may be sent back
        given := given - 'id' || jsonb_build_object('name', name);
    END IF;

    CASE kind
        WHEN 'host' THEN
            given := given - 'host' || jsonb_build_object('host', name);
            PERFORM tiergate.parse_host(given);
            PERFORM tiergate.write_hosts(owner, ARRAY[name], true);
        WHEN 'issuer'   THEN PERFORM tiergate.write_issuers(owner, ARRAY[tiergate.parse_issuer(given)], true);
        WHEN 'consumer' THEN PERFORM tiergate.write_consumers(owner, ARRAY[tiergate.parse_consumer(given)], true);
        WHEN 'upstream' THEN PERFORM tiergate.write_upstreams(owner, ARRAY[tiergate.parse_upstream(given)], true);
        WHEN 'route'    THEN PERFORM tiergate.write_routes(owner, ARRAY[tiergate.parse_route(given)], true);
        WHEN 'quota'    THEN PERFORM tiergate.write_quotas(owner, ARRAY[tiergate.parse_quota(given)], true);
        ELSE PERFORM tiergate.refuse(422, 'unknown-value', '', format('kind "%s" is not known', kind),
                                     'use host, issuer, consumer, upstream, route or quota');
    END CASE;
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS v.state = RETURNED_SQLSTATE, v.message = MESSAGE_TEXT,
                            v.detail = PG_EXCEPTION_DETAIL, v.hint = PG_EXCEPTION_HINT,
                            v.constraint_name = CONSTRAINT_NAME, v.table_name = TABLE_NAME,
                            v.pointer = COLUMN_NAME;
    IF v.state ~ '^2[123]' THEN
        PERFORM tiergate.refuse_body(kind, given);
    END IF;
    PERFORM tiergate.refuse_violation(v);
END
$$;

COMMENT ON FUNCTION tiergate.put_object(text, text, text, jsonb) IS
    'Makes or replaces a host, issuer, consumer, upstream, route or quota of a tenant from its JSON body: put_object(''route'', ''acme'', ''orders'', ''{"backends": [{"upstream": "v1"}]}'')';


DO $$
DECLARE
    c record;
BEGIN
    FOR c IN
        SELECT * FROM (VALUES
            ('hosts',     'host',     'host'),
            ('issuers',   'issuer',   'name'),
            ('consumers', 'consumer', 'name'),
            ('upstreams', 'upstream', 'name'),
            ('routes',    'route',    'name'),
            ('quotas',    'quota',    'name')
        ) AS v (tab, kind, key)
    LOOP
        EXECUTE format($f$
            CREATE FUNCTION tiergate_api.list_%1$s(path text[], query jsonb, body jsonb)
            RETURNS tiergate_api.response
            LANGUAGE plpgsql STABLE SECURITY DEFINER
            SET search_path = pg_catalog, pg_temp
            AS $body$
            DECLARE
                t     tiergate.tenants := tiergate.find_tenant(path[1]);
                most  integer := tiergate_api.page_limit(query);
                after text    := coalesce(tiergate_api.page_after(query), '');
                p     record;
            BEGIN
                PERFORM tiergate_api.check_query(query, 'limit', 'cursor');
                SELECT array_agg(x.item) AS items, array_agg(x.key) AS keys INTO p
                  FROM (SELECT o.%3$s AS key, tiergate.%2$s_json(o) AS item FROM tiergate.%1$s o
                         WHERE o.tenant = t.name AND o.%3$s > after ORDER BY o.%3$s LIMIT most + 1) x;
                RETURN tiergate_api.page(p.items, p.keys, most);
            END
            $body$
            $f$, c.tab, c.kind, c.key);
        EXECUTE format($f$
            CREATE FUNCTION tiergate_api.get_%2$s(path text[], query jsonb, body jsonb)
            RETURNS tiergate_api.response
            LANGUAGE plpgsql STABLE SECURITY DEFINER
            SET search_path = pg_catalog, pg_temp
            AS $body$
            DECLARE
                t    tiergate.tenants := tiergate.find_tenant(path[1]);
                item jsonb;
            BEGIN
                PERFORM tiergate_api.check_query(query);
                SELECT tiergate.%2$s_json(o) INTO item FROM tiergate.%1$s o
                 WHERE o.tenant = t.name AND o.%3$s = get_%2$s.path[2];
                IF NOT FOUND THEN
                    PERFORM tiergate.refuse(404, 'unknown-%2$s', '',
                                            format('tenant "%%s" has no %2$s "%%s"', t.name, path[2]));
                END IF;
                RETURN tiergate_api.ok(item, tiergate.revision_of('tenant', t.id));
            END
            $body$
            $f$, c.tab, c.kind, c.key);
        EXECUTE format($f$
            CREATE FUNCTION tiergate_api.put_%2$s(path text[], query jsonb, body jsonb)
            RETURNS tiergate_api.response
            LANGUAGE plpgsql SECURITY DEFINER
            SET search_path = pg_catalog, pg_temp
            AS $body$
            DECLARE
                t      tiergate.tenants := tiergate.find_tenant(path[1]);
                is_new boolean := NOT EXISTS (SELECT FROM tiergate.%1$s o
                                               WHERE o.tenant = t.name AND o.%3$s = put_%2$s.path[2]);
                item   jsonb;
            BEGIN
                PERFORM tiergate_api.check_query(query);
                PERFORM tiergate.put_object('%2$s', t.name, path[2], body);
                SELECT tiergate.%2$s_json(o) INTO item FROM tiergate.%1$s o
                 WHERE o.tenant = t.name AND o.%3$s = put_%2$s.path[2];
                RETURN tiergate_api.ok(item, tiergate_api.settle('tenant', t.id),
                                       CASE WHEN is_new THEN 201 ELSE 200 END);
            END
            $body$
            $f$, c.tab, c.kind, c.key);
        EXECUTE format($f$
            CREATE FUNCTION tiergate_api.delete_%2$s(path text[], query jsonb, body jsonb)
            RETURNS tiergate_api.response
            LANGUAGE plpgsql SECURITY DEFINER
            SET search_path = pg_catalog, pg_temp
            AS $body$
            DECLARE
                t tiergate.tenants := tiergate.find_tenant(path[1]);
            BEGIN
                PERFORM tiergate_api.check_query(query);
                DELETE FROM tiergate.%1$s o WHERE o.tenant = t.name AND o.%3$s = delete_%2$s.path[2];
                IF NOT FOUND THEN
                    PERFORM tiergate.refuse(404, 'unknown-%2$s', '',
                                            format('tenant "%%s" has no %2$s "%%s"', t.name, path[2]));
                END IF;
                PERFORM tiergate_api.settle('tenant', t.id);
                RETURN tiergate_api.no_content();
            END
            $body$
            $f$, c.tab, c.kind, c.key);

        EXECUTE format('COMMENT ON FUNCTION tiergate_api.list_%s(text[], jsonb, jsonb) IS %L', c.tab,
                       format('GET /v1/tenants/{tenant}/%s', c.tab));
        EXECUTE format('COMMENT ON FUNCTION tiergate_api.get_%s(text[], jsonb, jsonb) IS %L', c.kind,
                       format('GET /v1/tenants/{tenant}/%s/{%s}', c.tab, c.key));
        EXECUTE format('COMMENT ON FUNCTION tiergate_api.put_%s(text[], jsonb, jsonb) IS %L', c.kind,
                       format('PUT /v1/tenants/{tenant}/%s/{%s}', c.tab, c.key));
        EXECUTE format('COMMENT ON FUNCTION tiergate_api.delete_%s(text[], jsonb, jsonb) IS %L', c.kind,
                       format('DELETE /v1/tenants/{tenant}/%s/{%s}', c.tab, c.key));
    END LOOP;
END
$$;


-- Tenants, continued

CREATE FUNCTION tiergate_api.list_tenants(path text[], query jsonb, body jsonb)
RETURNS tiergate_api.response
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    most  integer := tiergate_api.page_limit(query);
    after text    := coalesce(tiergate_api.page_after(query), '');
    p     record;
BEGIN
    PERFORM tiergate_api.check_query(query, 'limit', 'cursor', 'tier', 'state', 'host');
    SELECT array_agg(x.item) AS items, array_agg(x.name) AS keys INTO p
      FROM (SELECT t.name, tiergate.tenant_json(t) AS item FROM tiergate.tenants t
             WHERE t.name > after
               AND (NOT coalesce(query ? 'tier', false)  OR t.tier = query->>'tier')
               AND (NOT coalesce(query ? 'state', false) OR t.state = query->>'state')
               AND (NOT coalesce(query ? 'host', false)
                    OR t.name = (SELECT h.tenant FROM tiergate.hosts h WHERE h.host = query->>'host'))
             ORDER BY t.name LIMIT most + 1) x;
    RETURN tiergate_api.page(p.items, p.keys, most);
END
$$;

COMMENT ON FUNCTION tiergate_api.list_tenants(text[], jsonb, jsonb) IS 'GET /v1/tenants';


-- RFC 7396: null removes, an object is merged, anything else replaces.
CREATE FUNCTION tiergate.patch_tenant(tenant text, patch jsonb)
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
    SELECT k INTO h FROM unnest('{tier,state}'::text[]) k WHERE patch->k = 'null';
    IF FOUND THEN
        PERFORM tiergate.refuse(422, 'missing-field', '/' || h, format('/%s cannot be removed', h));
    END IF;

    UPDATE tiergate.tenants t
       SET tier         = coalesce(p.tier, t.tier),
           state        = coalesce(p.state, t.state),
           reason       = CASE WHEN patch ? 'reason' THEN p.reason ELSE t.reason END,
           display_name = CASE WHEN patch ? 'display_name' THEN p.display_name ELSE t.display_name END,
           labels       = CASE WHEN patch->'labels' = 'null' THEN '{}'
                               WHEN patch ? 'labels' THEN jsonb_strip_nulls(t.labels || (patch->'labels'))
                               ELSE t.labels END
     WHERE t.name = patch_tenant.tenant
       AND patch ?| '{tier,state,reason,display_name,labels}';

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
    'Changes a tenant by a JSON merge patch of tier, state, reason, display_name, labels, hosts';


CREATE FUNCTION tiergate_api.shown_tenant(name text, status integer DEFAULT 200)
RETURNS tiergate_api.response
LANGUAGE plpgsql
AS $$
DECLARE
    t        tiergate.tenants := tiergate.find_tenant(name);
    shown    jsonb  := tiergate.tenant_json(t);
    revision bigint := tiergate_api.settle('tenant', t.id);
BEGIN
    RETURN tiergate_api.ok(shown || jsonb_build_object('revision', revision), revision, status);
END
$$;

COMMENT ON FUNCTION tiergate_api.shown_tenant(text, integer) IS
    'Settles the change of a tenant and shows it';


CREATE FUNCTION tiergate_api.patch_tenant(path text[], query jsonb, body jsonb)
RETURNS tiergate_api.response
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    field text;
BEGIN
    PERFORM tiergate_api.check_query(query);
    IF current_setting('tiergate.scope', true) = 'tenant' THEN
        SELECT k INTO field FROM unnest('{tier,state,reason}'::text[]) k WHERE body ? k;
        IF FOUND THEN
            PERFORM tiergate.refuse(403, 'forbidden', '/' || field,
                                    format('/%s is for the platform to change', field), 'it takes scope admin');
        END IF;
    END IF;
    PERFORM tiergate.patch_tenant(path[1], body);
    RETURN tiergate_api.shown_tenant(path[1]);
END
$$;

COMMENT ON FUNCTION tiergate_api.patch_tenant(text[], jsonb, jsonb) IS 'PATCH /v1/tenants/{tenant}';


CREATE FUNCTION tiergate_api.delete_tenant(path text[], query jsonb, body jsonb)
RETURNS tiergate_api.response
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    t tiergate.tenants := tiergate.find_tenant(path[1]);
BEGIN
    PERFORM tiergate_api.check_query(query);
    PERFORM tiergate.delete_tenant(t.name);
    PERFORM tiergate_api.settle('tenant', t.id);
    RETURN tiergate_api.no_content();
END
$$;

COMMENT ON FUNCTION tiergate_api.delete_tenant(text[], jsonb, jsonb) IS 'DELETE /v1/tenants/{tenant}';


CREATE FUNCTION tiergate_api.suspend_tenant(path text[], query jsonb, body jsonb)
RETURNS tiergate_api.response
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    given tiergate.suspension_body := tiergate.parse_suspension(coalesce(body, '{}'));
BEGIN
    PERFORM tiergate_api.check_query(query);
    IF octet_length(given.reason) > 200 THEN
        PERFORM tiergate.refuse_body('suspension', body);
    END IF;
    PERFORM tiergate.suspend(path[1], given.reason);
    RETURN tiergate_api.shown_tenant(path[1]);
END
$$;

COMMENT ON FUNCTION tiergate_api.suspend_tenant(text[], jsonb, jsonb) IS 'POST /v1/tenants/{tenant}/suspend';


CREATE FUNCTION tiergate_api.resume_tenant(path text[], query jsonb, body jsonb)
RETURNS tiergate_api.response
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM tiergate_api.check_query(query);
    PERFORM tiergate.resume(path[1]);
    RETURN tiergate_api.shown_tenant(path[1]);
END
$$;

COMMENT ON FUNCTION tiergate_api.resume_tenant(text[], jsonb, jsonb) IS 'POST /v1/tenants/{tenant}/resume';


CREATE FUNCTION tiergate_api.put_boost(path text[], query jsonb, body jsonb)
RETURNS tiergate_api.response
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    given tiergate.boost_body := tiergate.parse_boost(coalesce(body, '{}'));
BEGIN
    PERFORM tiergate_api.check_query(query);
    PERFORM tiergate.refuse_body('boost', jsonb_strip_nulls(coalesce(body, '{}')));
    PERFORM tiergate.grant_boost(path[1], given.factor, tiergate.parse_time(given.until));
    RETURN tiergate_api.shown_tenant(path[1]);
END
$$;

COMMENT ON FUNCTION tiergate_api.put_boost(text[], jsonb, jsonb) IS 'PUT /v1/tenants/{tenant}/boost';


CREATE FUNCTION tiergate_api.delete_boost(path text[], query jsonb, body jsonb)
RETURNS tiergate_api.response
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    t tiergate.tenants := tiergate.find_tenant(path[1]);
BEGIN
    PERFORM tiergate_api.check_query(query);
    PERFORM tiergate.revoke_boost(t.name);
    PERFORM tiergate_api.settle('tenant', t.id);
    RETURN tiergate_api.no_content();
END
$$;

COMMENT ON FUNCTION tiergate_api.delete_boost(text[], jsonb, jsonb) IS 'DELETE /v1/tenants/{tenant}/boost';


-- Endpoints

CREATE FUNCTION tiergate_api.find_upstream(path text[])
RETURNS tiergate.upstreams
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    t tiergate.tenants := tiergate.find_tenant(path[1]);
    u tiergate.upstreams;
BEGIN
    SELECT * INTO u FROM tiergate.upstreams x WHERE x.tenant = t.name AND x.name = path[2];
    IF NOT FOUND THEN
        PERFORM tiergate.refuse(404, 'unknown-upstream', '',
                                format('tenant "%s" has no upstream "%s"', t.name, path[2]));
    END IF;
    RETURN u;
END
$$;

COMMENT ON FUNCTION tiergate_api.find_upstream(text[]) IS 'The upstream that a path names; refuses with 404';


CREATE FUNCTION tiergate_api.split_endpoint(name text, OUT address inet, OUT port integer)
LANGUAGE plpgsql IMMUTABLE
AS $$
DECLARE
    parts text[] := regexp_match(name, '^(?:\[([0-9A-Fa-f:.]+)\]|([0-9.]+)):([0-9]{1,5})$');
BEGIN
    address := tiergate.parse_address(coalesce(parts[1], parts[2]));
    port    := parts[3]::integer;
    IF address IS NULL OR port NOT BETWEEN 1 AND 65535 THEN
        PERFORM tiergate.refuse(422, 'invalid-address', '',
                                format('"%s" is no address with port', name),
                                'write 10.0.0.1:8080 or [fd00::1]:8080');
    END IF;
END
$$;

COMMENT ON FUNCTION tiergate_api.split_endpoint(text) IS 'Address and port of an endpoint''s name';


CREATE FUNCTION tiergate_api.list_endpoints(path text[], query jsonb, body jsonb)
RETURNS tiergate_api.response
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    u    tiergate.upstreams := tiergate_api.find_upstream(path);
    most integer := tiergate_api.page_limit(query);
    low  bigint  := coalesce(tiergate_api.page_number(query), 0);
    p    record;
BEGIN
    PERFORM tiergate_api.check_query(query, 'limit', 'cursor');
    SELECT array_agg(x.item) AS items, array_agg(x.id::text) AS keys INTO p
      FROM (SELECT e.id, tiergate.endpoint_json(e) AS item FROM tiergate.endpoints e
             WHERE e.tenant = u.tenant AND e.upstream = u.name AND e.id > low
             ORDER BY e.id LIMIT most + 1) x;
    RETURN tiergate_api.page(p.items, p.keys, most);
END
$$;

COMMENT ON FUNCTION tiergate_api.list_endpoints(text[], jsonb, jsonb) IS
    'GET /v1/tenants/{tenant}/upstreams/{name}/endpoints';


CREATE FUNCTION tiergate_api.put_endpoint(path text[], query jsonb, body jsonb)
RETURNS tiergate_api.response
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    u      tiergate.upstreams := tiergate_api.find_upstream(path);
    e      record             := tiergate_api.split_endpoint(path[3]);
    is_new boolean;
    given  jsonb := jsonb_strip_nulls(coalesce(body, '{}'));
    parsed tiergate.endpoint_body;
BEGIN
    PERFORM tiergate_api.check_query(query);
    IF jsonb_typeof(given) = 'object' THEN
        given := given || jsonb_build_object('address', host(e.address), 'port', e.port);
    END IF;
    parsed := tiergate.parse_endpoint(given);
    PERFORM tiergate.refuse_body('endpoint', given);
    is_new := NOT EXISTS (SELECT FROM tiergate.endpoints x
                           WHERE x.tenant = u.tenant AND x.upstream = u.name
                             AND x.address = e.address AND x.port = e.port);
    PERFORM tiergate.write_endpoints(ARRAY[u.tenant], ARRAY[u.name], ARRAY[parsed]);
    RETURN tiergate_api.ok(
        jsonb_build_object('address', host(e.address), 'port', e.port, 'weight', coalesce(parsed.weight, 1)),
        tiergate_api.settle('tenant', (tiergate.find_tenant(u.tenant)).id),
        CASE WHEN is_new THEN 201 ELSE 200 END);
END
$$;

COMMENT ON FUNCTION tiergate_api.put_endpoint(text[], jsonb, jsonb) IS
    'PUT /v1/tenants/{tenant}/upstreams/{name}/endpoints/{endpoint}';


CREATE FUNCTION tiergate_api.delete_endpoint(path text[], query jsonb, body jsonb)
RETURNS tiergate_api.response
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    u tiergate.upstreams := tiergate_api.find_upstream(path);
    e record             := tiergate_api.split_endpoint(path[3]);
BEGIN
    PERFORM tiergate_api.check_query(query);
    DELETE FROM tiergate.endpoints x
     WHERE x.tenant = u.tenant AND x.upstream = u.name AND x.address = e.address AND x.port = e.port;
    IF NOT FOUND THEN
        PERFORM tiergate.refuse(404, 'unknown-endpoint', '',
                                format('upstream "%s" has no endpoint %s', u.name, path[3]));
    END IF;
    PERFORM tiergate_api.settle('tenant', (tiergate.find_tenant(u.tenant)).id);
    RETURN tiergate_api.no_content();
END
$$;

COMMENT ON FUNCTION tiergate_api.delete_endpoint(text[], jsonb, jsonb) IS
    'DELETE /v1/tenants/{tenant}/upstreams/{name}/endpoints/{endpoint}';


-- API keys

CREATE FUNCTION tiergate_api.find_api_key(path text[])
RETURNS tiergate.api_keys
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    t tiergate.tenants := tiergate.find_tenant(path[1]);
    k tiergate.api_keys;
BEGIN
    IF path[2] ~ '^[0-9]{1,18}$' THEN
        SELECT * INTO k FROM tiergate.api_keys x WHERE x.id = path[2]::bigint AND x.tenant = t.name;
    END IF;
    IF k.id IS NULL THEN
        PERFORM tiergate.refuse(404, 'unknown-key', '', format('tenant "%s" has no API key %s', t.name, path[2]));
    END IF;
    RETURN k;
END
$$;

COMMENT ON FUNCTION tiergate_api.find_api_key(text[]) IS 'The API key that a path names; refuses with 404';


CREATE FUNCTION tiergate_api.list_keys(path text[], query jsonb, body jsonb)
RETURNS tiergate_api.response
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    t    tiergate.tenants := tiergate.find_tenant(path[1]);
    most integer := tiergate_api.page_limit(query);
    low  bigint  := coalesce(tiergate_api.page_number(query), 0);
    p    record;
BEGIN
    PERFORM tiergate_api.check_query(query, 'limit', 'cursor', 'consumer');
    SELECT array_agg(x.item) AS items, array_agg(x.id::text) AS keys INTO p
      FROM (SELECT k.id, tiergate.api_key_json(k) AS item FROM tiergate.api_keys k
             WHERE k.tenant = t.name AND k.id > low
               AND (NOT coalesce(query ? 'consumer', false) OR k.consumer = query->>'consumer')
             ORDER BY k.id LIMIT most + 1) x;
    RETURN tiergate_api.page(p.items, p.keys, most);
END
$$;

COMMENT ON FUNCTION tiergate_api.list_keys(text[], jsonb, jsonb) IS 'GET /v1/tenants/{tenant}/keys';


CREATE FUNCTION tiergate_api.create_key(path text[], query jsonb, body jsonb)
RETURNS tiergate_api.response
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    t      tiergate.tenants  := tiergate.find_tenant(path[1]);
    given  jsonb             := jsonb_strip_nulls(coalesce(body, '{}'));
    parsed tiergate.key_body := tiergate.parse_key(given);
    made   record;
    shown  jsonb;
    v      tiergate.violation;
BEGIN
    PERFORM tiergate_api.check_query(query);
    BEGIN
        SELECT * INTO made FROM tiergate.write_api_keys(ARRAY[t.name], ARRAY[parsed]);
    EXCEPTION WHEN OTHERS THEN
        GET STACKED DIAGNOSTICS v.state = RETURNED_SQLSTATE, v.message = MESSAGE_TEXT,
                                v.detail = PG_EXCEPTION_DETAIL, v.hint = PG_EXCEPTION_HINT,
                                v.constraint_name = CONSTRAINT_NAME, v.table_name = TABLE_NAME,
                                v.pointer = COLUMN_NAME;
        PERFORM tiergate.refuse_body('key', given);
        PERFORM tiergate.refuse_violation(v);
    END;
    SELECT tiergate.api_key_json(k) || jsonb_build_object('key', made.key) INTO shown
      FROM tiergate.api_keys k WHERE k.id = made.id;
    RETURN tiergate_api.ok(jsonb_strip_nulls(shown), tiergate_api.settle('tenant', t.id), 201,
                           format('/v1/tenants/%s/keys/%s', t.name, made.id));
END
$$;

COMMENT ON FUNCTION tiergate_api.create_key(text[], jsonb, jsonb) IS 'POST /v1/tenants/{tenant}/keys';


CREATE FUNCTION tiergate_api.rotate_key(path text[], query jsonb, body jsonb)
RETURNS tiergate_api.response
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    k     tiergate.api_keys      := tiergate_api.find_api_key(path);
    given tiergate.rotation_body := tiergate.parse_rotation(coalesce(body, '{}'));
    made  record;
    shown jsonb;
BEGIN
    PERFORM tiergate_api.check_query(query);
    PERFORM tiergate.refuse_body('rotation', jsonb_strip_nulls(coalesce(body, '{}')));
    SELECT * INTO made FROM tiergate.rotate_api_key(k.id, make_interval(secs => coalesce(given.grace, 0)));
    SELECT tiergate.api_key_json(x) || jsonb_build_object('key', made.key) INTO shown
      FROM tiergate.api_keys x WHERE x.id = made.new_id;
    RETURN tiergate_api.ok(shown, tiergate_api.settle('tenant', (tiergate.find_tenant(k.tenant)).id), 201,
                           format('/v1/tenants/%s/keys/%s', k.tenant, made.new_id));
END
$$;

COMMENT ON FUNCTION tiergate_api.rotate_key(text[], jsonb, jsonb) IS
    'POST /v1/tenants/{tenant}/keys/{id}/rotate';


CREATE FUNCTION tiergate_api.delete_key(path text[], query jsonb, body jsonb)
RETURNS tiergate_api.response
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    k tiergate.api_keys := tiergate_api.find_api_key(path);
BEGIN
    PERFORM tiergate_api.check_query(query);
    PERFORM tiergate.revoke_api_key(k.id);
    PERFORM tiergate_api.settle('tenant', (tiergate.find_tenant(k.tenant)).id);
    RETURN tiergate_api.no_content();
END
$$;

COMMENT ON FUNCTION tiergate_api.delete_key(text[], jsonb, jsonb) IS 'DELETE /v1/tenants/{tenant}/keys/{id}';


-- Usage, quota status, audit

CREATE FUNCTION tiergate_api.query_time(query jsonb, name text, fallback timestamptz)
RETURNS timestamptz
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    at timestamptz := tiergate.parse_time(query->>name);
BEGIN
    IF query ? name AND at IS NULL THEN
        PERFORM tiergate.refuse(400, 'invalid-parameter', '',
            format('query parameter %s is "%s", which is no time', name, query->>name),
            'use RFC 3339, as in 2030-01-31T12:00:00Z');
    END IF;
    RETURN coalesce(at, fallback);
END
$$;

COMMENT ON FUNCTION tiergate_api.query_time(jsonb, text, timestamptz) IS 'A query parameter as time';


CREATE FUNCTION tiergate_api.get_usage(path text[], query jsonb, body jsonb)
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
                     WHERE u.tenant = t.name AND u.minute >= date_trunc('minute', low) AND u.minute <= high
                       AND (NOT coalesce(query ? 'route', false) OR u.route = query->>'route')
                     GROUP BY 1) b
             WHERE b.start > after
             ORDER BY b.start LIMIT most + 1) x;
    RETURN tiergate_api.page(p.items, p.keys, most);
END
$$;

COMMENT ON FUNCTION tiergate_api.get_usage(text[], jsonb, jsonb) IS 'GET /v1/tenants/{tenant}/usage';


CREATE FUNCTION tiergate_api.get_quota_status(path text[], query jsonb, body jsonb)
RETURNS tiergate_api.response
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    t tiergate.tenants := tiergate.find_tenant(path[1]);
BEGIN
    PERFORM tiergate_api.check_query(query);
    RETURN tiergate_api.ok(jsonb_build_object('items',
        (SELECT coalesce(jsonb_agg(jsonb_strip_nulls(to_jsonb(s) - 'tenant') ORDER BY s.quota, s.consumer), '[]')
           FROM tiergate.quota_status s WHERE s.tenant = t.name)));
END
$$;

COMMENT ON FUNCTION tiergate_api.get_quota_status(text[], jsonb, jsonb) IS
    'GET /v1/tenants/{tenant}/quota-status';


-- newest first
CREATE FUNCTION tiergate_api.audit_page(tenant text, query jsonb)
RETURNS tiergate_api.response
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    most integer := tiergate_api.page_limit(query);
    high bigint  := coalesce(tiergate_api.page_number(query), 9223372036854775807);
    p    record;
BEGIN
    PERFORM tiergate_api.check_query(query, 'limit', 'cursor');
    IF tenant IS NULL THEN
        SELECT array_agg(x.item) AS items, array_agg(x.id::text) AS keys INTO p
          FROM (SELECT a.id, tiergate.audit_json(a) AS item FROM tiergate.audit a
                 WHERE a.id < high ORDER BY a.id DESC LIMIT most + 1) x;
    ELSE
        SELECT array_agg(x.item) AS items, array_agg(x.id::text) AS keys INTO p
          FROM (SELECT a.id, tiergate.audit_json(a) AS item FROM tiergate.audit a
                 WHERE a.tenant = audit_page.tenant AND a.id < high ORDER BY a.id DESC LIMIT most + 1) x;
    END IF;
    RETURN tiergate_api.page(p.items, p.keys, most);
END
$$;

COMMENT ON FUNCTION tiergate_api.audit_page(text, jsonb) IS
    'A page of the audit of a tenant, or of all, newest first';


CREATE FUNCTION tiergate_api.get_tenant_audit(path text[], query jsonb, body jsonb)
RETURNS tiergate_api.response
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN tiergate_api.audit_page((tiergate.find_tenant(path[1])).name, query);
END
$$;

COMMENT ON FUNCTION tiergate_api.get_tenant_audit(text[], jsonb, jsonb) IS 'GET /v1/tenants/{tenant}/audit';


CREATE FUNCTION tiergate_api.get_audit(path text[], query jsonb, body jsonb)
RETURNS tiergate_api.response
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN tiergate_api.audit_page(NULL, query);
END
$$;

COMMENT ON FUNCTION tiergate_api.get_audit(text[], jsonb, jsonb) IS 'GET /v1/audit';


-- Platform issuers

CREATE FUNCTION tiergate_api.find_platform_issuer(name text)
RETURNS tiergate.issuers
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    i tiergate.issuers;
BEGIN
    SELECT * INTO i FROM tiergate.issuers x WHERE x.tenant IS NULL AND x.name = find_platform_issuer.name;
    IF NOT FOUND THEN
        PERFORM tiergate.refuse(404, 'unknown-issuer', '', format('the platform has no issuer "%s"', name));
    END IF;
    RETURN i;
END
$$;

COMMENT ON FUNCTION tiergate_api.find_platform_issuer(text) IS
    'The issuer of the platform of this name; refuses with 404';


CREATE FUNCTION tiergate_api.list_platform_issuers(path text[], query jsonb, body jsonb)
RETURNS tiergate_api.response
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    most  integer := tiergate_api.page_limit(query);
    after text    := coalesce(tiergate_api.page_after(query), '');
    p     record;
BEGIN
    PERFORM tiergate_api.check_query(query, 'limit', 'cursor');
    SELECT array_agg(x.item) AS items, array_agg(x.name) AS keys INTO p
      FROM (SELECT i.name, tiergate.issuer_json(i) AS item FROM tiergate.issuers i
             WHERE i.tenant IS NULL AND i.name > after ORDER BY i.name LIMIT most + 1) x;
    RETURN tiergate_api.page(p.items, p.keys, most);
END
$$;

COMMENT ON FUNCTION tiergate_api.list_platform_issuers(text[], jsonb, jsonb) IS 'GET /v1/issuers';


CREATE FUNCTION tiergate_api.get_platform_issuer(path text[], query jsonb, body jsonb)
RETURNS tiergate_api.response
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    i tiergate.issuers := tiergate_api.find_platform_issuer(path[1]);
BEGIN
    PERFORM tiergate_api.check_query(query);
    RETURN tiergate_api.ok(tiergate.issuer_json(i), tiergate.revision_of('issuer', i.id));
END
$$;

COMMENT ON FUNCTION tiergate_api.get_platform_issuer(text[], jsonb, jsonb) IS 'GET /v1/issuers/{name}';


CREATE FUNCTION tiergate_api.put_platform_issuer(path text[], query jsonb, body jsonb)
RETURNS tiergate_api.response
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    is_new boolean := NOT EXISTS (SELECT FROM tiergate.issuers x WHERE x.tenant IS NULL AND x.name = path[1]);
    i      tiergate.issuers;
BEGIN
    PERFORM tiergate_api.check_query(query);
    PERFORM tiergate.put_object('issuer', NULL, path[1], body);
    i := tiergate_api.find_platform_issuer(path[1]);
    RETURN tiergate_api.ok(tiergate.issuer_json(i), tiergate_api.settle('issuer', i.id),
                           CASE WHEN is_new THEN 201 ELSE 200 END);
END
$$;

COMMENT ON FUNCTION tiergate_api.put_platform_issuer(text[], jsonb, jsonb) IS 'PUT /v1/issuers/{name}';


CREATE FUNCTION tiergate_api.delete_platform_issuer(path text[], query jsonb, body jsonb)
RETURNS tiergate_api.response
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    i tiergate.issuers := tiergate_api.find_platform_issuer(path[1]);
BEGIN
    PERFORM tiergate_api.check_query(query);
    DELETE FROM tiergate.issuers x WHERE x.id = i.id;
    PERFORM tiergate_api.settle('issuer', i.id);
    RETURN tiergate_api.no_content();
END
$$;

COMMENT ON FUNCTION tiergate_api.delete_platform_issuer(text[], jsonb, jsonb) IS 'DELETE /v1/issuers/{name}';


-- Tiers, gateways

CREATE FUNCTION tiergate_api.list_tiers(path text[], query jsonb, body jsonb)
RETURNS tiergate_api.response
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM tiergate_api.check_query(query);
    RETURN tiergate_api.ok(jsonb_build_object('items',
        (SELECT coalesce(jsonb_agg(to_jsonb(t) ORDER BY t.name), '[]') FROM tiergate.tiers t)));
END
$$;

COMMENT ON FUNCTION tiergate_api.list_tiers(text[], jsonb, jsonb) IS 'GET /v1/tiers';


CREATE FUNCTION tiergate_api.find_gateway(name text)
RETURNS tiergate.gateways
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    g tiergate.gateways;
BEGIN
    SELECT * INTO g FROM tiergate.gateways x WHERE x.name = find_gateway.name;
    IF NOT FOUND THEN
        PERFORM tiergate.refuse(404, 'unknown-gateway', '', format('there is no gateway "%s"', name));
    END IF;
    RETURN g;
END
$$;

COMMENT ON FUNCTION tiergate_api.find_gateway(text) IS 'The gateway of this name; refuses with 404';


CREATE FUNCTION tiergate_api.list_gateways(path text[], query jsonb, body jsonb)
RETURNS tiergate_api.response
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    most  integer := tiergate_api.page_limit(query);
    after text    := coalesce(tiergate_api.page_after(query), '');
    p     record;
BEGIN
    PERFORM tiergate_api.check_query(query, 'limit', 'cursor');
    SELECT array_agg(x.item) AS items, array_agg(x.name) AS keys INTO p
      FROM (SELECT g.name, tiergate.gateway_json(g) AS item FROM tiergate.gateways g
             WHERE g.name > after ORDER BY g.name LIMIT most + 1) x;
    RETURN tiergate_api.page(p.items, p.keys, most);
END
$$;

COMMENT ON FUNCTION tiergate_api.list_gateways(text[], jsonb, jsonb) IS 'GET /v1/gateways';


CREATE FUNCTION tiergate_api.get_gateway(path text[], query jsonb, body jsonb)
RETURNS tiergate_api.response
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM tiergate_api.check_query(query);
    RETURN tiergate_api.ok(tiergate.gateway_json(tiergate_api.find_gateway(path[1])));
END
$$;

COMMENT ON FUNCTION tiergate_api.get_gateway(text[], jsonb, jsonb) IS 'GET /v1/gateways/{gateway}';


CREATE FUNCTION tiergate_api.put_gateway(path text[], query jsonb, body jsonb)
RETURNS tiergate_api.response
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    given  jsonb                 := jsonb_strip_nulls(coalesce(body, '{}'));
    parsed tiergate.gateway_body := tiergate.parse_gateway(given);
    is_new boolean := NOT EXISTS (SELECT FROM tiergate.gateways g WHERE g.name = path[1]);
    v      tiergate.violation;
BEGIN
    PERFORM tiergate_api.check_query(query);
    BEGIN
        INSERT INTO tiergate.gateways (name, kind, tenant)
        VALUES (path[1], coalesce(parsed.kind, 'shared'), parsed.tenant)
            ON CONFLICT (name) DO UPDATE SET kind = EXCLUDED.kind, tenant = EXCLUDED.tenant;
    EXCEPTION WHEN integrity_constraint_violation THEN
        GET STACKED DIAGNOSTICS v.state = RETURNED_SQLSTATE, v.message = MESSAGE_TEXT,
                                v.constraint_name = CONSTRAINT_NAME, v.table_name = TABLE_NAME;
        PERFORM tiergate.refuse_body('gateway', given);
        PERFORM tiergate.refuse_violation(v);
    END;
    RETURN tiergate_api.ok(tiergate.gateway_json(tiergate_api.find_gateway(path[1])), NULL,
                           CASE WHEN is_new THEN 201 ELSE 200 END);
END
$$;

COMMENT ON FUNCTION tiergate_api.put_gateway(text[], jsonb, jsonb) IS 'PUT /v1/gateways/{gateway}';


CREATE FUNCTION tiergate_api.delete_gateway(path text[], query jsonb, body jsonb)
RETURNS tiergate_api.response
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    g tiergate.gateways := tiergate_api.find_gateway(path[1]);
BEGIN
    PERFORM tiergate_api.check_query(query);
    DELETE FROM tiergate.gateways x WHERE x.name = g.name;
    RETURN tiergate_api.no_content();
END
$$;

COMMENT ON FUNCTION tiergate_api.delete_gateway(text[], jsonb, jsonb) IS 'DELETE /v1/gateways/{gateway}';


CREATE FUNCTION tiergate_api.ack_gateway(path text[], query jsonb, body jsonb)
RETURNS tiergate_api.response
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM tiergate_api.check_query(query);
    PERFORM tiergate.gateway_ack(path[1], body->>'boot',
        CASE WHEN body->>'revision' ~ '^[0-9]{1,18}$' THEN (body->>'revision')::bigint END, body);
    RETURN tiergate_api.no_content();
END
$$;

COMMENT ON FUNCTION tiergate_api.ack_gateway(text[], jsonb, jsonb) IS 'POST /v1/gateways/{gateway}/ack';


CREATE FUNCTION tiergate_api.report_usage(path text[], query jsonb, body jsonb)
RETURNS tiergate_api.response
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM tiergate_api.check_query(query);
    PERFORM tiergate.record_usage(path[1], body);
    RETURN tiergate_api.no_content();
END
$$;

COMMENT ON FUNCTION tiergate_api.report_usage(text[], jsonb, jsonb) IS 'POST /v1/gateways/{gateway}/usage';


-- Tokens

CREATE FUNCTION tiergate_api.list_tokens(path text[], query jsonb, body jsonb)
RETURNS tiergate_api.response
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    most integer := tiergate_api.page_limit(query);
    low  bigint  := coalesce(tiergate_api.page_number(query), 0);
    p    record;
BEGIN
    PERFORM tiergate_api.check_query(query, 'limit', 'cursor');
    SELECT array_agg(x.item) AS items, array_agg(x.id::text) AS keys INTO p
      FROM (SELECT t.id, tiergate.token_json(t) AS item FROM tiergate.api_tokens t
             WHERE t.id > low ORDER BY t.id LIMIT most + 1) x;
    RETURN tiergate_api.page(p.items, p.keys, most);
END
$$;

COMMENT ON FUNCTION tiergate_api.list_tokens(text[], jsonb, jsonb) IS 'GET /v1/tokens';


CREATE FUNCTION tiergate_api.create_token(path text[], query jsonb, body jsonb)
RETURNS tiergate_api.response
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    given  jsonb               := jsonb_strip_nulls(coalesce(body, '{}'));
    parsed tiergate.token_body := tiergate.parse_token(given);
    token  text := CASE WHEN NOT given ? 'certificate' THEN tiergate.new_secret('tgt_') END;
    t      tiergate.api_tokens;
    v      tiergate.violation;
BEGIN
    PERFORM tiergate_api.check_query(query);
    PERFORM tiergate.refuse_body('token', given);
    BEGIN
        INSERT INTO tiergate.api_tokens
            (name, scope, tenant, gateway, expires_at, token_sha256, certificate_sha256, certificate_subject)
        VALUES (parsed.name, parsed.scope, parsed.tenant, parsed.gateway, tiergate.parse_time(parsed.expires_at),
                sha256(token::bytea), decode((parsed.certificate).sha256, 'hex'), (parsed.certificate).subject)
        RETURNING * INTO t;
    EXCEPTION WHEN integrity_constraint_violation THEN
        GET STACKED DIAGNOSTICS v.state = RETURNED_SQLSTATE, v.message = MESSAGE_TEXT,
                                v.constraint_name = CONSTRAINT_NAME, v.table_name = TABLE_NAME;
        PERFORM tiergate.refuse_violation(v);
    END;
    RETURN tiergate_api.ok(jsonb_strip_nulls(tiergate.token_json(t) || jsonb_build_object('token', token)),
                           NULL, 201, '/v1/tokens/' || t.id);
END
$$;

COMMENT ON FUNCTION tiergate_api.create_token(text[], jsonb, jsonb) IS 'POST /v1/tokens';


CREATE FUNCTION tiergate_api.delete_token(path text[], query jsonb, body jsonb)
RETURNS tiergate_api.response
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    name text;
BEGIN
    PERFORM tiergate_api.check_query(query);
    IF path[1] ~ '^[0-9]{1,18}$' THEN
        SELECT t.name INTO name FROM tiergate.api_tokens t WHERE t.id = path[1]::bigint AND t.revoked_at IS NULL;
    END IF;
    IF name IS NULL THEN
        PERFORM tiergate.refuse(404, 'unknown-token', '', format('there is no valid token %s', path[1]));
    END IF;
    PERFORM tiergate.revoke_token(name);
    RETURN tiergate_api.no_content();
END
$$;

COMMENT ON FUNCTION tiergate_api.delete_token(text[], jsonb, jsonb) IS 'DELETE /v1/tokens/{id}';

COMMIT;
