-- SPDX-License-Identifier: BSD-2-Clause
--
-- From JSON bodies to rows.  There is one writer for each kind of object; it
-- takes parallel arrays, so that one PUT, one new tenant and an import of
-- hundreds are the same statement.  With replace it is PUT: an object of that
-- name is overwritten; without, it is refused.
--
-- The outermost functions tell the planner two things.  The arrays differ in
-- length, which makes it believe that a plan of its own for each call were better.
-- And a plan that is made while a table is small scans it, also those that check
-- foreign keys; a session keeps it while the table grows to 100,000 tenants.
--
-- A new tenant is written kind by kind.  If anything is refused, it is written
-- again object by object, only to learn which one it was.

BEGIN;

INSERT INTO tiergate.schema_migrations (version, name) VALUES (7, 'tenants');

CREATE FUNCTION tiergate.refuse_taken(what text)
RETURNS void
LANGUAGE plpgsql
AS $$
BEGIN
    PERFORM tiergate.refuse(409, 'duplicate-name', '/name', format('the tenant has %s of this name already', what),
                            'choose another name, or replace it with PUT');
END
$$;

COMMENT ON FUNCTION tiergate.refuse_taken(text) IS 'Refuses a name that is taken within its tenant';


CREATE FUNCTION tiergate.write_hosts(tenants text[], hosts text[], replace boolean)
RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
    written bigint;
BEGIN
    INSERT INTO tiergate.hosts (tenant, host)
    SELECT n.tenant, n.host FROM unnest(tenants, write_hosts.hosts) n (tenant, host)
        ON CONFLICT (host) DO NOTHING;
    GET DIAGNOSTICS written = ROW_COUNT;

    IF written < cardinality(hosts) THEN
        IF NOT replace
           OR EXISTS (SELECT FROM unnest(tenants, write_hosts.hosts) n (tenant, host)
                        JOIN tiergate.hosts h ON h.host = n.host WHERE h.tenant <> n.tenant) THEN
            PERFORM tiergate.refuse(409, 'host-taken', '',
                format('hostname "%s" belongs to a tenant already', hosts[1]), 'choose another name');
        END IF;
    END IF;
END
$$;

COMMENT ON FUNCTION tiergate.write_hosts(text[], text[], boolean) IS
    'Gives hosts to tenants; refuses a host that another tenant has';


CREATE FUNCTION tiergate.write_issuers(tenants text[], bodies tiergate.issuer_body[], replace boolean)
RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
    written bigint;
BEGIN
    INSERT INTO tiergate.issuers AS i
        (tenant, name, ref, issuer, audiences, algorithms, leeway, consumer_claim, jwks_uri, keys)
    SELECT n.tenant, coalesce(n.name, n.ref),
           -- no issuer has the id 0, so the trigger refuses it
           CASE WHEN n.ref IS NOT NULL THEN
               coalesce((SELECT p.id FROM tiergate.issuers p WHERE p.tenant IS NULL AND p.name = n.ref), 0) END,
           n.issuer, n.audiences, n.algorithms, n.leeway, n.consumer_claim, n.jwks_uri,
           to_jsonb((n.jwks).keys)
      FROM ROWS FROM (unnest(tenants), unnest(bodies)) n (tenant)
        ON CONFLICT (tenant, name) DO UPDATE SET
           ref = EXCLUDED.ref, issuer = EXCLUDED.issuer, audiences = EXCLUDED.audiences,
           algorithms = EXCLUDED.algorithms, leeway = EXCLUDED.leeway,
           consumer_claim = EXCLUDED.consumer_claim, jwks_uri = EXCLUDED.jwks_uri,
           keys = CASE WHEN EXCLUDED.keys = '[]' AND i.jwks_uri = EXCLUDED.jwks_uri THEN i.keys
                       ELSE EXCLUDED.keys END
     WHERE replace;
    GET DIAGNOSTICS written = ROW_COUNT;
    IF written < cardinality(bodies) THEN
        PERFORM tiergate.refuse_taken('an issuer');
    END IF;
END
$$;

COMMENT ON FUNCTION tiergate.write_issuers(text[], tiergate.issuer_body[], boolean) IS
    'Writes issuers of tenants, or of the platform where the tenant is null';


CREATE FUNCTION tiergate.write_consumers(tenants text[], bodies tiergate.consumer_body[], replace boolean)
RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
    written bigint;
BEGIN
    INSERT INTO tiergate.consumers (tenant, name, labels)
    SELECT n.tenant, n.name, coalesce(n.labels, '{}')
      FROM ROWS FROM (unnest(tenants), unnest(bodies)) n (tenant)
        ON CONFLICT (tenant, name) DO UPDATE SET labels = EXCLUDED.labels
     WHERE replace;
    GET DIAGNOSTICS written = ROW_COUNT;
    IF written < cardinality(bodies) THEN
        PERFORM tiergate.refuse_taken('a consumer');
    END IF;
END
$$;

COMMENT ON FUNCTION tiergate.write_consumers(text[], tiergate.consumer_body[], boolean) IS
    'Writes consumers of tenants';


-- 256 bits out of three random UUIDs of 122 bits each, which PostgreSQL takes
-- from its strong random source: no extension is needed for it.
CREATE FUNCTION tiergate.new_secret(prefix text)
RETURNS text
LANGUAGE sql VOLATILE
AS $$
    SELECT prefix || translate(rtrim(encode(sha256(
               uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid())),
               'base64'), '='), '+/', '-_')
$$;

COMMENT ON FUNCTION tiergate.new_secret(text) IS
    'A new 256-bit secret in base64url behind the prefix';


CREATE FUNCTION tiergate.write_api_keys(tenants text[], bodies tiergate.key_body[])
RETURNS TABLE (tenant text, id bigint, consumer text, key text)
LANGUAGE plpgsql
AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    WITH made AS MATERIALIZED (
        SELECT n.tenant, n.consumer, n.scopes, n.expires_at, k.key,
               coalesce(sha256(k.key::bytea), decode(n.sha256, 'hex')) AS digest
          FROM ROWS FROM (unnest(tenants), unnest(bodies)) n (tenant)
         CROSS JOIN LATERAL (SELECT CASE WHEN n.sha256 IS NULL THEN tiergate.new_secret('tgk_') END AS key
                              OFFSET 0) k
    ), written AS (
        INSERT INTO tiergate.api_keys (tenant, consumer, hint, scopes, expires_at, sha256)
        SELECT m.tenant, m.consumer, left(m.key, 8), m.scopes,
               CASE WHEN m.expires_at IS NOT NULL THEN
                   coalesce(tiergate.parse_time(m.expires_at), '-infinity') END,
               m.digest
          FROM made m
        RETURNING api_keys.id, api_keys.sha256
    )
    SELECT m.tenant, w.id, m.consumer, m.key FROM made m JOIN written w ON w.sha256 = m.digest;
END
$$;

COMMENT ON FUNCTION tiergate.write_api_keys(text[], tiergate.key_body[]) IS
    'Makes API keys and returns them, the only time that they are seen; a body with sha256 registers a key that exists';


CREATE FUNCTION tiergate.write_endpoints(tenants text[], upstreams text[], bodies tiergate.endpoint_body[])
RETURNS void
LANGUAGE plpgsql
AS $$
BEGIN
    INSERT INTO tiergate.endpoints (tenant, upstream, address, port, weight)
    SELECT n.tenant, n.upstream, tiergate.parse_address(n.address), n.port, coalesce(n.weight, 1)
      FROM ROWS FROM (unnest(tenants), unnest(upstreams), unnest(bodies)) n (tenant, upstream)
        ON CONFLICT (tenant, upstream, address, port) DO UPDATE SET weight = EXCLUDED.weight;
END
$$;

COMMENT ON FUNCTION tiergate.write_endpoints(text[], text[], tiergate.endpoint_body[]) IS
    'Writes endpoints of upstreams';


-- An upstream that is replaced keeps its endpoints unless the body has some.
CREATE FUNCTION tiergate.write_upstreams(tenants text[], bodies tiergate.upstream_body[], replace boolean)
RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
    written bigint;
    e       record;
BEGIN
    INSERT INTO tiergate.upstreams
        (tenant, name, host, max_outstanding, max_fails, fail_timeout_ms, slow_start_ms)
    SELECT n.tenant, n.name, n.host, coalesce(n.max_outstanding, 0),
           coalesce((n.health).max_fails, 3), coalesce((n.health).fail_timeout_ms, 10000),
           coalesce((n.health).slow_start_ms, 10000)
      FROM ROWS FROM (unnest(tenants), unnest(bodies)) n (tenant)
        ON CONFLICT (tenant, name) DO UPDATE SET
           host = EXCLUDED.host, max_outstanding = EXCLUDED.max_outstanding,
           max_fails = EXCLUDED.max_fails, fail_timeout_ms = EXCLUDED.fail_timeout_ms,
           slow_start_ms = EXCLUDED.slow_start_ms
     WHERE replace;
    GET DIAGNOSTICS written = ROW_COUNT;
    IF written < cardinality(bodies) THEN
        PERFORM tiergate.refuse_taken('an upstream');
    END IF;

    IF replace THEN
        DELETE FROM tiergate.endpoints x
         USING ROWS FROM (unnest(tenants), unnest(bodies)) n (tenant)
         WHERE n.endpoints IS NOT NULL AND x.tenant = n.tenant AND x.upstream = n.name
           AND NOT EXISTS (SELECT FROM unnest(n.endpoints) k
                            WHERE tiergate.parse_address(k.address) = x.address AND k.port = x.port);
    END IF;

    SELECT array_agg(n.tenant) AS tenants, array_agg(n.name) AS upstreams, array_agg(k) AS bodies INTO e
      FROM ROWS FROM (unnest(tenants), unnest(bodies)) n (tenant), unnest(n.endpoints) k;
    IF e.tenants IS NOT NULL THEN
        PERFORM tiergate.write_endpoints(e.tenants, e.upstreams, e.bodies);
    END IF;
END
$$;

COMMENT ON FUNCTION tiergate.write_upstreams(text[], tiergate.upstream_body[], boolean) IS
    'Writes upstreams of tenants with their endpoints';


CREATE FUNCTION tiergate.write_routes(tenants text[], bodies tiergate.route_body[], replace boolean)
RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
    written bigint;
BEGIN
    INSERT INTO tiergate.routes
        (tenant, name, path_type, path, methods, headers, hosts,
         auth, auth_methods, scopes, claims, hide_credentials, rewrite, rewrite_value, backends, sticky,
         connect_ms, send_ms, read_ms, retries, websocket)
    SELECT n.tenant, n.name,
           coalesce((n.match).path.type, 'prefix'), coalesce((n.match).path.value, '/'),
           (n.match).methods,
           CASE WHEN (n.match).headers IS NOT NULL THEN
               (SELECT jsonb_agg(jsonb_build_object('name', h.name, 'type', coalesce(h.type, 'exact'),
                                                    'value', h.value) ORDER BY h.name, h.value)
                  FROM unnest((n.match).headers) h) END,
           (n.match).hosts,
           coalesce((n.auth).mode, 'required'), (n.auth).methods, (n.auth).scopes,
           to_jsonb((n.auth).claims), coalesce((n.auth).hide_credentials, true),
           (n.rewrite).type, (n.rewrite).value, to_jsonb(n.backends), coalesce(n.sticky, 'none'),
           coalesce((n.timeouts).connect_ms, 1000), coalesce((n.timeouts).send_ms, 30000),
           coalesce((n.timeouts).read_ms, 30000), coalesce(n.retries, 1), coalesce(n.websocket, false)
      FROM ROWS FROM (unnest(tenants), unnest(bodies)) n (tenant)
        ON CONFLICT (tenant, name) DO UPDATE SET
           path_type = EXCLUDED.path_type, path = EXCLUDED.path, methods = EXCLUDED.methods,
           headers = EXCLUDED.headers, hosts = EXCLUDED.hosts, auth = EXCLUDED.auth,
           auth_methods = EXCLUDED.auth_methods, scopes = EXCLUDED.scopes, claims = EXCLUDED.claims,
           hide_credentials = EXCLUDED.hide_credentials, rewrite = EXCLUDED.rewrite,
           rewrite_value = EXCLUDED.rewrite_value, backends = EXCLUDED.backends, sticky = EXCLUDED.sticky,
           connect_ms = EXCLUDED.connect_ms, send_ms = EXCLUDED.send_ms, read_ms = EXCLUDED.read_ms,
           retries = EXCLUDED.retries, websocket = EXCLUDED.websocket
     WHERE replace;
    GET DIAGNOSTICS written = ROW_COUNT;
    IF written < cardinality(bodies) THEN
        PERFORM tiergate.refuse_taken('a route');
    END IF;
END
$$;

COMMENT ON FUNCTION tiergate.write_routes(text[], tiergate.route_body[], boolean) IS
    'Writes routes of tenants';


CREATE FUNCTION tiergate.write_quotas(tenants text[], bodies tiergate.quota_body[], replace boolean)
RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
    written bigint;
BEGIN
    IF EXISTS (SELECT FROM unnest(bodies) q
                WHERE q.scope = 'tenant' AND num_nonnulls(q.route, q.consumer) > 0
                   OR q.scope = 'route' AND (q.route IS NULL OR q.consumer IS NOT NULL)) THEN
        PERFORM tiergate.refuse(422, 'invalid-scope', '/scope',
            'scope tenant takes neither route nor consumer, scope route takes a route and no consumer',
            'leave scope out: it follows from route and consumer');
    END IF;

    INSERT INTO tiergate.quotas
        (tenant, name, route, consumer, metric, requests, per, burst, concurrency, body_size, dry_run)
    SELECT n.tenant, n.name, n.route,
           CASE WHEN n.scope = 'consumer' THEN coalesce(n.consumer, '*') ELSE n.consumer END,
           m.metric,
           CASE m.metric WHEN 'requests' THEN n."limit" END,
           -- an unreadable window becomes one that the constraint refuses
           CASE WHEN n."window" IS NOT NULL THEN coalesce(tiergate.parse_window(n."window"), '0s') END,
           n.burst,
           CASE m.metric WHEN 'concurrency' THEN n."limit" END,
           CASE m.metric WHEN 'body_size' THEN n."limit" END,
           coalesce(n.dry_run, false)
      FROM ROWS FROM (unnest(tenants), unnest(bodies)) n (tenant)
     CROSS JOIN LATERAL (SELECT coalesce(n.metric, 'requests') AS metric) m
        ON CONFLICT (tenant, name) DO UPDATE SET
           route = EXCLUDED.route, consumer = EXCLUDED.consumer, metric = EXCLUDED.metric,
           requests = EXCLUDED.requests, per = EXCLUDED.per, burst = EXCLUDED.burst,
           concurrency = EXCLUDED.concurrency, body_size = EXCLUDED.body_size, dry_run = EXCLUDED.dry_run
     WHERE replace;
    GET DIAGNOSTICS written = ROW_COUNT;
    IF written < cardinality(bodies) THEN
        PERFORM tiergate.refuse_taken('a quota');
    END IF;
END
$$;

COMMENT ON FUNCTION tiergate.write_quotas(text[], tiergate.quota_body[], boolean) IS
    'Writes quotas of tenants';


CREATE FUNCTION tiergate.insert_tenants(bodies tiergate.tenant_body[])
RETURNS TABLE (tenant text, keys jsonb)
LANGUAGE plpgsql
AS $$
#variable_conflict use_column
DECLARE
    part record;
BEGIN
    INSERT INTO tiergate.tenants (name, tier, state, reason, display_name, labels)
    SELECT b.name, coalesce(b.tier, 'vcluster'), coalesce(b.state, 'active'), b.reason, b.display_name,
           coalesce(b.labels, '{}')
      FROM unnest(bodies) b;

    WITH b AS MATERIALIZED (SELECT * FROM unnest(bodies))
    SELECT * INTO part
      FROM (SELECT array_agg(b.name) AS host_tenants, array_agg(x) AS hosts FROM b, unnest(b.hosts) x) hosts,
           (SELECT array_agg(b.name) AS issuer_tenants, array_agg(x) AS issuers FROM b, unnest(b.issuers) x) issuers,
           (SELECT array_agg(b.name) AS consumer_tenants, array_agg(x) AS consumers FROM b, unnest(b.consumers) x) consumers,
           (SELECT array_agg(b.name) AS upstream_tenants, array_agg(x) AS upstreams FROM b, unnest(b.upstreams) x) upstreams,
           (SELECT array_agg(b.name) AS route_tenants, array_agg(x) AS routes FROM b, unnest(b.routes) x) routes,
           (SELECT array_agg(b.name) AS quota_tenants, array_agg(x) AS quotas FROM b, unnest(b.quotas) x) quotas,
           (SELECT array_agg(b.name) AS key_tenants, array_agg(x) AS keys FROM b, unnest(b.keys) x) keys;

    IF part.hosts IS NOT NULL THEN
        PERFORM tiergate.write_hosts(part.host_tenants, part.hosts, false);
    END IF;
    IF part.issuers IS NOT NULL THEN
        PERFORM tiergate.write_issuers(part.issuer_tenants, part.issuers, false);
    END IF;
    IF part.consumers IS NOT NULL THEN
        PERFORM tiergate.write_consumers(part.consumer_tenants, part.consumers, false);
    END IF;
    IF part.upstreams IS NOT NULL THEN
        PERFORM tiergate.write_upstreams(part.upstream_tenants, part.upstreams, false);
    END IF;
    IF part.routes IS NOT NULL THEN
        PERFORM tiergate.write_routes(part.route_tenants, part.routes, false);
    END IF;
    IF part.quotas IS NOT NULL THEN
        PERFORM tiergate.write_quotas(part.quota_tenants, part.quotas, false);
    END IF;
    IF part.keys IS NOT NULL THEN
        RETURN QUERY
        SELECT k.tenant,
               jsonb_agg(jsonb_strip_nulls(jsonb_build_object('id', k.id, 'consumer', k.consumer, 'key', k.key))
                         ORDER BY k.id)
          FROM tiergate.write_api_keys(part.key_tenants, part.keys) k
         GROUP BY k.tenant;
    END IF;
END
$$;

COMMENT ON FUNCTION tiergate.insert_tenants(tiergate.tenant_body[]) IS
    'Writes new tenants with all that they own, kind by kind; returns the keys that were made';


CREATE FUNCTION tiergate.insert_tenant_stepwise(body tiergate.tenant_body)
RETURNS jsonb
LANGUAGE plpgsql
AS $$
DECLARE
    owner   text[] := ARRAY[body.name];
    shell   tiergate.tenant_body := body;
    made    jsonb := '[]';
    base    text := '';
    u       tiergate.upstream_body;
    v       tiergate.violation;
BEGIN
    shell.hosts := NULL;
    shell.issuers := NULL;
    shell.consumers := NULL;
    shell.keys := NULL;
    shell.upstreams := NULL;
    shell.routes := NULL;
    shell.quotas := NULL;
    PERFORM tiergate.insert_tenants(ARRAY[shell]);

    FOR i IN 1 .. coalesce(cardinality(body.hosts), 0) LOOP
        base := '/hosts/' || i - 1;
        PERFORM tiergate.write_hosts(owner, body.hosts[i:i], false);
    END LOOP;
    FOR i IN 1 .. coalesce(cardinality(body.issuers), 0) LOOP
        base := '/issuers/' || i - 1;
        PERFORM tiergate.write_issuers(owner, body.issuers[i:i], false);
    END LOOP;
    FOR i IN 1 .. coalesce(cardinality(body.consumers), 0) LOOP
        base := '/consumers/' || i - 1;
        PERFORM tiergate.write_consumers(owner, body.consumers[i:i], false);
    END LOOP;
    FOR i IN 1 .. coalesce(cardinality(body.upstreams), 0) LOOP
        base := '/upstreams/' || i - 1;
        u := body.upstreams[i];
        u.endpoints := NULL;
        PERFORM tiergate.write_upstreams(owner, ARRAY[u], false);
        u := body.upstreams[i];
        FOR j IN 1 .. coalesce(cardinality(u.endpoints), 0) LOOP
            base := '/upstreams/' || i - 1 || '/endpoints/' || j - 1;
            PERFORM tiergate.write_endpoints(owner, ARRAY[u.name], u.endpoints[j:j]);
        END LOOP;
    END LOOP;
    FOR i IN 1 .. coalesce(cardinality(body.routes), 0) LOOP
        base := '/routes/' || i - 1;
        PERFORM tiergate.write_routes(owner, body.routes[i:i], false);
    END LOOP;
    FOR i IN 1 .. coalesce(cardinality(body.quotas), 0) LOOP
        base := '/quotas/' || i - 1;
        PERFORM tiergate.write_quotas(owner, body.quotas[i:i], false);
    END LOOP;
    FOR i IN 1 .. coalesce(cardinality(body.keys), 0) LOOP
        base := '/keys/' || i - 1;
        made := made || (SELECT jsonb_agg(jsonb_strip_nulls(jsonb_build_object(
                                    'id', k.id, 'consumer', k.consumer, 'key', k.key)))
                           FROM tiergate.write_api_keys(owner, body.keys[i:i]) k);
    END LOOP;
    RETURN made;
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS v.state = RETURNED_SQLSTATE, v.message = MESSAGE_TEXT,
                            v.detail = PG_EXCEPTION_DETAIL, v.hint = PG_EXCEPTION_HINT,
                            v.constraint_name = CONSTRAINT_NAME, v.table_name = TABLE_NAME,
                            v.pointer = COLUMN_NAME;
    PERFORM tiergate.refuse_violation(v, base);
END
$$;

COMMENT ON FUNCTION tiergate.insert_tenant_stepwise(tiergate.tenant_body) IS
    'Writes a new tenant object by object, so that a refusal can name the one that is wrong; returns the keys that were made';


CREATE FUNCTION tiergate.onboard(body jsonb)
RETURNS jsonb
LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off
SET jit = off
AS $$
DECLARE
    parsed tiergate.tenant_body := tiergate.parse_tenant(body);
    made   jsonb;
BEGIN
    BEGIN
        SELECT i.keys INTO made FROM tiergate.insert_tenants(ARRAY[parsed]) i;
    EXCEPTION WHEN OTHERS THEN
        PERFORM tiergate.refuse_body('tenant', jsonb_strip_nulls(body));
        made := tiergate.insert_tenant_stepwise(parsed);
    END;
    RETURN jsonb_build_object('name', parsed.name, 'keys', coalesce(made, '[]'));
END
$$;

COMMENT ON FUNCTION tiergate.onboard(jsonb) IS
    'Creates a tenant from the body of POST /v1/tenants, with hosts, issuers, consumers, keys, upstreams, routes and quotas; returns its name and the API keys, which are shown only here';


-- Import.  A chunk is written as one; if anything in it is refused, its halves
-- are tried, down to the line that is wrong.

CREATE FUNCTION tiergate.problem_title(slug text)
RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT upper(left(slug, 1)) || replace(substr(slug, 2), '-', ' ')
$$;

COMMENT ON FUNCTION tiergate.problem_title(text) IS 'Title of a problem type';


-- What is only judged at commit, such as a host below a wildcard that another
-- transaction has claimed meanwhile.
CREATE FUNCTION tiergate.settle_import()
RETURNS void
LANGUAGE plpgsql
AS $$
BEGIN
    SET CONSTRAINTS ALL IMMEDIATE;
    SET CONSTRAINTS ALL DEFERRED;
END
$$;

COMMENT ON FUNCTION tiergate.settle_import() IS
    'Judges now what is otherwise judged at commit, and draws the revision of what was imported so far';


CREATE FUNCTION tiergate.import_one(body jsonb, settle boolean, OUT status integer, OUT result jsonb)
LANGUAGE plpgsql
AS $$
DECLARE
    v tiergate.violation;
BEGIN
    result := tiergate.onboard(body);
    status := 201;
    IF settle THEN
        PERFORM tiergate.settle_import();
    END IF;
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS v.state = RETURNED_SQLSTATE, v.message = MESSAGE_TEXT,
                            v.detail = PG_EXCEPTION_DETAIL, v.pointer = COLUMN_NAME;
    IF v.state NOT LIKE 'TG%' THEN
        RAISE;
    END IF;
    status := substr(v.state, 3)::integer;
    result := jsonb_build_object(
        'type',   'urn:tiergate:problem:' || v.detail,
        'title',  tiergate.problem_title(v.detail),
        'status', status,
        'detail', v.message,
        'errors', CASE WHEN v.pointer = '' THEN '[]'::jsonb
                       ELSE jsonb_build_array(jsonb_build_object('pointer', v.pointer, 'detail', v.message)) END);
END
$$;

COMMENT ON FUNCTION tiergate.import_one(jsonb, boolean) IS
    'Creates one tenant, or says as a problem document why not';


CREATE TYPE tiergate.import_answer AS (
    line   integer,
    status integer,
    result jsonb
);

COMMENT ON TYPE tiergate.import_answer IS 'What became of a line: 201 with name and keys, or a problem document';


CREATE FUNCTION tiergate.import_range(bodies jsonb[], first integer, last integer, settle boolean)
RETURNS SETOF tiergate.import_answer
LANGUAGE plpgsql
AS $$
DECLARE
    middle  integer := (first + last) / 2;
    refused boolean := false;
    made    jsonb;
BEGIN
    IF first = last THEN
        RETURN QUERY SELECT first, o.status, o.result FROM tiergate.import_one(bodies[first], settle) o;
        RETURN;
    END IF;

    -- what RETURN QUERY has returned is not taken back with the block
    BEGIN
        made := (SELECT jsonb_object_agg(i.tenant, i.keys)
                   FROM tiergate.insert_tenants(ARRAY(SELECT tiergate.parse_tenant(bodies[n])
                                                        FROM generate_series(first, last) n ORDER BY n)) i);
        IF settle THEN
            PERFORM tiergate.settle_import();
        END IF;
    EXCEPTION WHEN OTHERS THEN
        refused := true;    -- which line is found out below
    END;

    IF refused THEN
        RETURN QUERY SELECT * FROM tiergate.import_range(bodies, first, middle, settle);
        RETURN QUERY SELECT * FROM tiergate.import_range(bodies, middle + 1, last, settle);
    ELSE
        RETURN QUERY
        SELECT n, 201, jsonb_build_object('name', bodies[n]->'name', 'keys', coalesce(made->(bodies[n]->>'name'), '[]'))
          FROM generate_series(first, last) n;
    END IF;
END
$$;

COMMENT ON FUNCTION tiergate.import_range(jsonb[], integer, integer, boolean) IS
    'Creates the tenants of some lines at once, or of the halves of them where one is refused';


-- At first everything is written without the revision lock, which nobody else can
-- do without; line by line under the lock only if that was in vain.
CREATE FUNCTION tiergate.import_tenants(lines jsonb)
RETURNS TABLE (line integer, status integer, body text)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off
SET jit = off
AS $$
DECLARE
    bodies  jsonb[] := ARRAY(SELECT l.value FROM jsonb_array_elements(lines) WITH ORDINALITY l
                              ORDER BY l.ordinality);
    last    integer := cardinality(bodies);
    answers tiergate.import_answer[];
BEGIN
    IF last = 0 THEN
        RETURN;
    END IF;

    BEGIN
        answers := ARRAY(SELECT r FROM tiergate.import_range(bodies, 1, last, false) r);
        SET CONSTRAINTS ALL IMMEDIATE;
    EXCEPTION WHEN OTHERS THEN
        answers := NULL;
    END;

    IF answers IS NULL THEN
        answers := ARRAY(SELECT r FROM tiergate.import_range(bodies, 1, last, true) r);
    END IF;

    RETURN QUERY SELECT a.line, a.status, a.result::text FROM unnest(answers) a ORDER BY a.line;
END
$$;

COMMENT ON FUNCTION tiergate.import_tenants(jsonb) IS
    'Creates tenants from an array of bodies of POST /v1/tenants; one row for each, with 201 and its keys, or a problem document; a bad one does not stop the others';

COMMIT;
