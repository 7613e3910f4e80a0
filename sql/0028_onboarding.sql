-- SPDX-License-Identifier: BSD-2-Clause
--
-- New tenants come by the hundred in one transaction.  What follows from their
-- rows is done by the statement here, where it was done row by row: so it costs
-- one look-up where it cost a query.
--
-- A statement that marks many tenants as changed queues the trigger that draws
-- the revision for its first row only: changes.leads.  A row that follows is
-- never without one that leads: both are of one statement, so a savepoint takes
-- back both or neither.

BEGIN;

INSERT INTO tiergate.schema_migrations (version, name) VALUES (28, 'onboarding');

ALTER TABLE tiergate.changes ADD COLUMN leads boolean NOT NULL DEFAULT true;

COMMENT ON COLUMN tiergate.changes.leads IS
    'Whether the revision was drawn for it; false for those that came with it in one statement';

DROP TRIGGER changes_assign_revision ON tiergate.changes;
CREATE CONSTRAINT TRIGGER changes_assign_revision
    AFTER INSERT ON tiergate.changes
    DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW WHEN (NEW.leads) EXECUTE FUNCTION tiergate.assign_revision();


-- As in 0003_revisions_and_audit, with two differences.  Whether the transaction
-- has marked a tenant already is read once for all rows; a tenant is marked by its
-- own row, so the name will do.  And rows are counted by one index scan: a bitmap
-- costs more than the few rows of a tenant.
DO $$
DECLARE
    t record;
BEGIN
    FOR t IN
        SELECT * FROM (VALUES
            ('hosts',     'n.host',     'hosts_per_tenant',       '{tenant}', '', ''),
            ('consumers', 'n.name',     'consumers_per_tenant',   '{tenant}', '', ''),
            ('api_keys',  'n.id::text', 'api_keys_per_tenant',    '{tenant}', '', ''),
            ('upstreams', 'n.name',     'upstreams_per_tenant',   '{tenant}', '', ''),
            ('endpoints', 'n.upstream || ''/'' || host(n.address) || '':'' || n.port',
                                        'endpoints_per_upstream', '{tenant,upstream}', '', ''),
            ('routes',    'n.name',     'routes_per_tenant',      '{tenant}', '', ''),
            ('quotas',    'n.name',     'quotas_per_tenant',      '{tenant}', '', 'holds_per_request'),
            ('issuers',   'n.name',     'issuers_per_tenant',     '{tenant}', $m$
                 UNION ALL
                SELECT CASE WHEN n.tenant IS NULL THEN 'issuer' ELSE 'tenant_issuer' END, n.id, n.name, true
                  FROM new_rows n WHERE n.ref IS NULL$m$, '')
        ) AS v (tab, label, lim, owner, marks, meet)
    LOOP
        EXECUTE format($f$
            CREATE OR REPLACE FUNCTION tiergate.%1$s_inserted()
            RETURNS trigger
            LANGUAGE plpgsql SECURITY DEFINER
            SET search_path = pg_catalog, pg_temp
            SET enable_seqscan = off
            SET enable_bitmapscan = off
            SET jit = off
            AS $body$
            DECLARE
                full_ones text[];
                one       record;
            BEGIN
                WITH audited AS (
                    INSERT INTO tiergate.audit (db_role, actor, request_id, action, object, tenant, name, new)
                    SELECT (SELECT tiergate.current_db_role()), (SELECT tiergate.current_actor()),
                           coalesce((SELECT tiergate.current_request_ids()) ->> n.tenant,
                                    (SELECT nullif(current_setting('tiergate.request_id', true), ''))),
                           'insert', '%1$s', n.tenant, %2$s,
                           tiergate.redact('%1$s', jsonb_strip_nulls(to_jsonb(n)))
                      FROM new_rows n
                ), owners AS MATERIALIZED (
                    SELECT DISTINCT %4$s FROM new_rows n WHERE n.tenant IS NOT NULL
                ), marked AS (
                    INSERT INTO tiergate.changes (kind, object_id, name, leads)
                    SELECT 'tenant', t.id, t.name, row_number() OVER () = 1
                      FROM (SELECT DISTINCT o.tenant FROM owners o
                             WHERE o.tenant NOT IN (SELECT c.name FROM tiergate.changes c
                                                     WHERE c.xid = pg_current_xact_id() AND c.kind = 'tenant'
                                                       AND c.revision IS NULL)) o
                      JOIN tiergate.tenants t ON t.name = o.tenant
                    %6$s
                        ON CONFLICT DO NOTHING
                )
                SELECT array_agg(o.tenant) INTO full_ones
                  FROM owners o
                 WHERE (SELECT count(*) FROM tiergate.%1$s x WHERE %5$s)
                       > (SELECT min(CASE l.name WHEN %3$L THEN l.value / 2 ELSE l.value END)
                            FROM tiergate.limits l WHERE l.name IN (%3$L, %8$L));

                IF full_ones IS NOT NULL THEN
                    FOR one IN SELECT DISTINCT %4$s FROM new_rows n WHERE n.tenant = ANY (full_ones) LOOP
                        PERFORM tiergate.hold_limit(%3$L, one::text);
                        PERFORM tiergate.refuse_excess(%3$L,
                            (SELECT count(*) FROM tiergate.%1$s x WHERE %7$s));
                        IF %8$L <> '' THEN
                            PERFORM tiergate.refuse_crowd(one.tenant);
                        END IF;
                    END LOOP;
                END IF;
                RETURN NULL;
            END
            $body$
            $f$, t.tab, t.label, t.lim,
                 (SELECT string_agg('n.' || c, ', ') FROM unnest(t.owner::text[]) c),
                 (SELECT string_agg(format('x.%1$s = o.%1$s', c), ' AND ') FROM unnest(t.owner::text[]) c),
                 t.marks,
                 (SELECT string_agg(format('x.%1$s = one.%1$s', c), ' AND ') FROM unnest(t.owner::text[]) c),
                 t.meet);
    END LOOP;
END
$$;


CREATE OR REPLACE FUNCTION tiergate.tenants_inserted()
RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
SET jit = off
AS $$
BEGIN
    WITH audited AS (
        INSERT INTO tiergate.audit (db_role, actor, request_id, action, object, tenant, name, new)
        SELECT (SELECT tiergate.current_db_role()), (SELECT tiergate.current_actor()),
               coalesce((SELECT tiergate.current_request_ids()) ->> n.name,
                        (SELECT nullif(current_setting('tiergate.request_id', true), ''))),
               'insert', 'tenants', n.name, n.name,
               jsonb_strip_nulls(to_jsonb(n))
          FROM new_rows n
    )
    INSERT INTO tiergate.changes (kind, object_id, name, leads)
    SELECT 'tenant', n.id, n.name, row_number() OVER () = 1 FROM new_rows n;
    RETURN NULL;
END
$$;


-- Hosts: what overlaps is looked for once in a statement.  Without wildcards,
-- which few platforms have, one look-up tells that nothing does.

CREATE OR REPLACE FUNCTION tiergate.host_rival(host text, tenant text)
RETURNS text
LANGUAGE plpgsql STABLE
SET enable_seqscan = off
SET jit = off
AS $$
DECLARE
    rival text;
    below text;
BEGIN
    IF left(host, 2) <> '*.' AND NOT tiergate.has_wildcards() THEN
        RETURN NULL;
    END IF;
    -- OFFSET keeps this a lookup for each label
    SELECT r.host INTO rival
      FROM (SELECT string_to_array(host_rival.host, '.') AS labels) l,
           generate_series(2, cardinality(l.labels)) n,
           LATERAL (SELECT h.host FROM tiergate.hosts h
                     WHERE h.host = '*.' || array_to_string(l.labels[n:], '.')
                       AND h.tenant <> host_rival.tenant OFFSET 0) r
     LIMIT 1;
    IF rival IS NULL AND left(host, 2) = '*.' THEN
        -- names that end in what follows the asterisk; "~" sorts behind their letters
        below := reverse(substr(host, 2));
        SELECT h.host INTO rival FROM tiergate.hosts h
         WHERE reverse(h.host) >= below AND reverse(h.host) < below || '~'
           AND h.tenant <> host_rival.tenant LIMIT 1;
    END IF;
    RETURN rival;
END
$$;


CREATE FUNCTION tiergate.has_wildcards()
RETURNS boolean
LANGUAGE plpgsql STABLE
AS $$
BEGIN
    -- "/" is the letter behind "."
    RETURN EXISTS (SELECT FROM tiergate.hosts h WHERE h.host >= '*.' AND h.host < '*/');
END
$$;

COMMENT ON FUNCTION tiergate.has_wildcards() IS 'Whether any tenant has a wildcard';


CREATE OR REPLACE FUNCTION tiergate.check_host()
RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    broken text := CASE
        WHEN NOT tiergate.is_hostname(NEW.host) THEN 'hosts_host'
        WHEN strpos(NEW.host, '.') = 0
             AND tiergate.setting('hosts.allow_single_label') IS DISTINCT FROM 'true' THEN 'hosts_one_label'
        END;
BEGIN
    IF broken IS NOT NULL THEN
        PERFORM tiergate.refuse_row(broken, NEW.host);
    END IF;
    RETURN NEW;
END
$$;

COMMENT ON FUNCTION tiergate.check_host() IS 'Trigger: a host is a hostname';


CREATE FUNCTION tiergate.check_host_rivals()
RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
SET jit = off
AS $$
DECLARE
    loser text;
BEGIN
    IF NOT tiergate.has_wildcards() THEN
        RETURN NULL;
    END IF;
    SELECT n.host INTO loser FROM new_rows n WHERE tiergate.host_rival(n.host, n.tenant) IS NOT NULL LIMIT 1;
    IF FOUND AND tiergate.setting('hosts.allow_nested_claims') IS DISTINCT FROM 'true' THEN
        PERFORM tiergate.refuse_row('hosts_rival', loser);
    END IF;
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION tiergate.check_host_rivals() IS
    'Trigger: new hosts do not overlap a wildcard of another tenant';

CREATE TRIGGER hosts_check_insert AFTER INSERT ON tiergate.hosts REFERENCING NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION tiergate.check_host_rivals();
CREATE TRIGGER hosts_check_update AFTER UPDATE ON tiergate.hosts REFERENCING NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION tiergate.check_host_rivals();


-- Routes: rivals and upstreams likewise.  What a row trigger still does with the
-- backends takes no look-up.

CREATE OR REPLACE FUNCTION tiergate.check_route()
RETURNS trigger
LANGUAGE plpgsql
AS $$
DECLARE
    broken text := CASE
        WHEN NOT tiergate.is_name(NEW.name) THEN 'routes_name'
        WHEN NEW.path_type NOT IN ('exact', 'prefix', 'regex') THEN 'routes_path_type'
        WHEN NOT CASE NEW.path_type WHEN 'regex' THEN octet_length(NEW.path) BETWEEN 1 AND 512
                                                     AND NEW.path !~ '[\x01-\x20\x7f]'
                                    ELSE tiergate.is_path(NEW.path) END THEN 'routes_path'
        WHEN NEW.methods IS NOT NULL AND NOT (cardinality(NEW.methods) BETWEEN 1 AND 16
                                              AND tiergate.are_methods(NEW.methods)) THEN 'routes_methods'
        WHEN NEW.hosts IS NOT NULL AND NOT (cardinality(NEW.hosts) BETWEEN 1 AND 16
                                            AND tiergate.are_hostnames(NEW.hosts)) THEN 'routes_hosts'
        WHEN NEW.headers IS NOT NULL AND NOT tiergate.are_headers(NEW.headers) THEN 'routes_headers'
        WHEN NEW.auth NOT IN ('required', 'optional', 'none') THEN 'routes_auth'
        WHEN cardinality(NEW.auth_methods) = 0 OR array_ndims(NEW.auth_methods) > 1 OR NOT NEW.auth_methods <@ '{jwt,api_key}' THEN 'routes_auth_methods'
        WHEN NEW.scopes IS NOT NULL AND NOT (cardinality(NEW.scopes) <= 64
                                             AND tiergate.are_tokens(NEW.scopes, 128)) THEN 'routes_scopes'
        WHEN NEW.claims IS NOT NULL AND NOT tiergate.are_claims(NEW.claims) THEN 'routes_claims'
        WHEN NEW.rewrite NOT IN ('strip_prefix', 'replace_prefix', 'replace_path') THEN 'routes_rewrite'
        WHEN CASE WHEN NEW.rewrite IS NULL OR NEW.rewrite = 'strip_prefix' THEN NEW.rewrite_value IS NOT NULL
                  ELSE NEW.rewrite_value IS NULL OR NOT tiergate.is_path(NEW.rewrite_value) END THEN 'routes_rewrite_value'
        WHEN NEW.rewrite IN ('strip_prefix', 'replace_prefix') AND NEW.path_type <> 'prefix' THEN 'routes_rewrite_match'
        WHEN NEW.sticky NOT IN ('none', 'consumer') THEN 'routes_sticky'
        WHEN least(NEW.connect_ms, NEW.send_ms, NEW.read_ms) < 1
             OR greatest(NEW.connect_ms, NEW.send_ms, NEW.read_ms) > 3600000 THEN 'routes_timeouts'
        WHEN NEW.retries NOT BETWEEN 0 AND 5 THEN 'routes_retries'
        WHEN NOT CASE jsonb_typeof(NEW.backends) WHEN 'array' THEN jsonb_array_length(NEW.backends) BETWEEN 1 AND 16
                                                 ELSE NEW.backends IS NULL END THEN 'routes_backends'
        END;
BEGIN
    IF broken IS NOT NULL THEN
        PERFORM tiergate.refuse_row(broken, NEW.name);
    END IF;

    IF NEW.methods IS NOT NULL OR NEW.hosts IS NOT NULL THEN
        NEW.methods := tiergate.sorted(NEW.methods);
        NEW.hosts   := tiergate.sorted(NEW.hosts);
    END IF;

    -- check_routes() decides; here the index has not spoken yet, which says less
    IF current_setting('tiergate.bulk', true) = 'on' THEN
        RETURN NEW;
    END IF;
    PERFORM FROM tiergate.routes r
      WHERE r.tenant = NEW.tenant AND r.path = NEW.path AND r.path_type = NEW.path_type
        AND r.name <> NEW.name AND r.id <> NEW.id
        AND r.headers IS NOT DISTINCT FROM NEW.headers
        AND r.methods IS NOT DISTINCT FROM NEW.methods AND r.hosts IS NOT DISTINCT FROM NEW.hosts;
    IF FOUND THEN
        PERFORM tiergate.refuse_row('routes_rival', NEW.name);
    END IF;
    RETURN NEW;
END
$$;

COMMENT ON FUNCTION tiergate.check_route() IS
    'Trigger: what a route may be; none of its tenant has the same match';


CREATE OR REPLACE FUNCTION tiergate.check_backends()
RETURNS trigger
LANGUAGE plpgsql
AS $$
DECLARE
    sound  jsonb := '[]';
    total  bigint := 0;
    b      jsonb;
BEGIN
    -- as nearly every route has it
    IF NEW.backends = jsonb_build_array(jsonb_build_object('upstream', NEW.backends #> '{0,upstream}', 'weight', 1))
       AND jsonb_typeof(NEW.backends #> '{0,upstream}') = 'string' THEN
        RETURN NEW;
    END IF;

    FOR nth IN 0 .. jsonb_array_length(NEW.backends) - 1 LOOP
        b := NEW.backends->nth;
        IF (jsonb_typeof(b) = 'object' AND b - '{upstream,weight}'::text[] = '{}'
            AND jsonb_typeof(b->'upstream') = 'string'
            AND coalesce(b->>'weight', '1') ~ '^([0-9]{1,6}|1000000)$') IS NOT TRUE THEN
            PERFORM tiergate.refuse_row('routes_backends', NEW.name);
        END IF;
        IF sound @> jsonb_build_array(jsonb_build_object('upstream', b->'upstream')) THEN
            PERFORM tiergate.refuse_row('routes_same_backend', NEW.name);
        END IF;
        sound := sound || jsonb_build_array(jsonb_build_object(
                     'upstream', b->'upstream', 'weight', coalesce(b->>'weight', '1')::integer));
        total := total + coalesce(b->>'weight', '1')::integer;
    END LOOP;

    IF total = 0 THEN
        PERFORM tiergate.refuse_row('routes_no_weight', NEW.name);
    END IF;
    NEW.backends := sound;
    RETURN NEW;
END
$$;

COMMENT ON FUNCTION tiergate.check_backends() IS
    'Trigger: a route goes to upstreams by weight; fills in the weight 1';


CREATE FUNCTION tiergate.check_routes()
RETURNS trigger
LANGUAGE plpgsql
SET enable_seqscan = off
SET enable_bitmapscan = off
SET jit = off
AS $$
DECLARE
    wanted bigint := (SELECT sum(jsonb_array_length(n.backends)) FROM new_rows n);
    held   bigint;
    r      record;
BEGIN
    -- locked as a foreign key would lock them; LATERAL keeps it a look-up for each
    PERFORM FROM new_rows n
      CROSS JOIN LATERAL jsonb_array_elements(n.backends) b
      CROSS JOIN LATERAL (SELECT FROM tiergate.upstreams u
                           WHERE u.tenant = n.tenant AND u.name = b->>'upstream' FOR KEY SHARE) u;
    GET DIAGNOSTICS held = ROW_COUNT;
    IF held < wanted THEN
        SELECT n.name, b.ordinality - 1 AS nth, b.value->>'upstream' AS upstream INTO r
          FROM new_rows n
         CROSS JOIN LATERAL jsonb_array_elements(n.backends) WITH ORDINALITY b
         WHERE NOT EXISTS (SELECT FROM tiergate.upstreams u WHERE u.tenant = n.tenant AND u.name = b.value->>'upstream')
         LIMIT 1;
        PERFORM tiergate.refuse(422, 'unknown-upstream', '/backends/' || r.nth || '/upstream',
            format('route "%s" names upstream "%s", which its tenant does not have', r.name, r.upstream),
            'make the upstream first');
    END IF;

    -- the same path under the same conditions leaves open which of two is meant
    SELECT n.name INTO r
      FROM new_rows n
      CROSS JOIN LATERAL (SELECT x.methods, x.hosts FROM tiergate.routes x
                           WHERE x.tenant = n.tenant AND x.path = n.path AND x.path_type = n.path_type
                             AND x.id <> n.id AND x.headers IS NOT DISTINCT FROM n.headers OFFSET 0) x
     WHERE CASE WHEN x.methods IS NULL OR n.methods IS NULL THEN x.methods IS NULL AND n.methods IS NULL
                ELSE x.methods && n.methods END
       AND CASE WHEN x.hosts IS NULL OR n.hosts IS NULL THEN x.hosts IS NULL AND n.hosts IS NULL
                ELSE x.hosts && n.hosts END
     LIMIT 1;
    IF FOUND THEN
        PERFORM tiergate.refuse_row('routes_rival', r.name);
    END IF;
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION tiergate.check_routes() IS
    'Trigger: new routes go to upstreams that their tenants have, and overlap no other route of their tenants';

CREATE TRIGGER routes_check_insert AFTER INSERT ON tiergate.routes REFERENCING NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION tiergate.check_routes();
CREATE TRIGGER routes_check_update AFTER UPDATE ON tiergate.routes REFERENCING NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION tiergate.check_routes();


-- Bodies to rows.  The bodies of a chunk are parsed by one expression each, and
-- only when one is no good, one by one.

CREATE FUNCTION tiergate.parse_tenants(bodies jsonb[])
RETURNS tiergate.tenant_body[]
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    parsed tiergate.tenant_body[];
    sound  boolean;
BEGIN
    IF EXISTS (SELECT FROM unnest(bodies) b WHERE jsonb_typeof(b) = 'object') THEN
        SELECT array_agg(x.body ORDER BY x.nth),
               bool_and(jsonb_strip_nulls(to_jsonb(x.body)) = x.given AND strpos(x.given::text, '[[') = 0)
          INTO parsed, sound
          FROM (SELECT b.nth, b.given, jsonb_populate_record(NULL::tiergate.tenant_body, b.given) AS body
                  FROM (SELECT n.ordinality AS nth, jsonb_strip_nulls(n.value) AS given
                          FROM unnest(bodies) WITH ORDINALITY n (value)) b
                OFFSET 0) x;
    END IF;
    IF sound IS NOT TRUE THEN
        parsed := ARRAY(SELECT tiergate.parse_tenant(n.value)
                          FROM unnest(bodies) WITH ORDINALITY n (value) ORDER BY n.ordinality);
    END IF;
    RETURN parsed;
END
$$;

COMMENT ON FUNCTION tiergate.parse_tenants(jsonb[]) IS
    'JSON bodies of new tenants as tiergate.tenant_body; refuses unknown members and wrong types';


-- As the writers of each kind would, but nothing here can be there already, so
-- these are plain inserts: what is refused is a new tenant, and which of its
-- objects is to blame insert_tenant_stepwise() finds out.
CREATE OR REPLACE FUNCTION tiergate.insert_tenants(bodies tiergate.tenant_body[])
RETURNS TABLE (tenant text, keys jsonb)
LANGUAGE plpgsql
SET tiergate.bulk = 'on'
AS $$
#variable_conflict use_column
DECLARE
    part record;
BEGIN
    INSERT INTO tiergate.tenants (name, tier, state, reason, display_name, labels)
    SELECT b.name, coalesce(b.tier, 'vcluster'), coalesce(b.state, 'active'), b.reason, b.display_name,
           coalesce(b.labels, '{}')
      FROM unnest(bodies) b;

    INSERT INTO tiergate.hosts (tenant, host)
    SELECT b.name, h FROM unnest(bodies) b, unnest(b.hosts) h;

    -- no issuer has the id 0, so the trigger refuses it
    INSERT INTO tiergate.issuers
        (tenant, name, ref, issuer, audiences, algorithms, leeway, consumer_claim, jwks_uri, keys)
    SELECT b.name, coalesce(n.name, n.ref),
           CASE WHEN n.ref IS NOT NULL THEN
               coalesce((SELECT p.id FROM tiergate.issuers p WHERE p.tenant IS NULL AND p.name = n.ref), 0) END,
           n.issuer, n.audiences, n.algorithms, n.leeway, n.consumer_claim, n.jwks_uri, to_jsonb((n.jwks).keys)
      FROM unnest(bodies) b, unnest(b.issuers) n;

    INSERT INTO tiergate.upstreams
        (tenant, name, host, max_outstanding, max_fails, fail_timeout_ms, slow_start_ms)
    SELECT b.name, n.name, n.host, coalesce(n.max_outstanding, 0), coalesce((n.health).max_fails, 3),
           coalesce((n.health).fail_timeout_ms, 10000), coalesce((n.health).slow_start_ms, 10000)
      FROM unnest(bodies) b, unnest(b.upstreams) n;

    INSERT INTO tiergate.endpoints (tenant, upstream, address, port, weight)
    SELECT b.name, u.name, tiergate.parse_address(n.address), n.port, coalesce(n.weight, 1)
      FROM unnest(bodies) b, unnest(b.upstreams) u, unnest(u.endpoints) n;

    INSERT INTO tiergate.routes
        (tenant, name, path_type, path, methods, headers, hosts,
         auth, auth_methods, scopes, claims, hide_credentials, rewrite, rewrite_value, backends, sticky,
         connect_ms, send_ms, read_ms, retries, websocket)
    SELECT b.name, n.name,
           coalesce((n.match).path.type, 'prefix'), coalesce((n.match).path.value, '/'),
           (n.match).methods,
           CASE WHEN (n.match).headers IS NOT NULL THEN
               (SELECT jsonb_agg(jsonb_build_object('name', h.name, 'type', coalesce(h.type, 'exact'),
                                                    'value', h.value) ORDER BY h.name, h.value)
                  FROM unnest((n.match).headers) h) END,
           (n.match).hosts,
           coalesce((n.auth).mode, 'required'), (n.auth).methods, (n.auth).scopes,
           to_jsonb((n.auth).claims), coalesce((n.auth).hide_credentials, true),
           (n.rewrite).type, (n.rewrite).value,
           CASE WHEN cardinality(n.backends) = 1 THEN jsonb_build_array(jsonb_build_object(
                         'upstream', n.backends[1].upstream, 'weight', coalesce(n.backends[1].weight, 1)))
                ELSE to_jsonb(n.backends) END,
           coalesce(n.sticky, 'none'),
           coalesce((n.timeouts).connect_ms, 1000), coalesce((n.timeouts).send_ms, 30000),
           coalesce((n.timeouts).read_ms, 30000), coalesce(n.retries, 1), coalesce(n.websocket, false)
      FROM unnest(bodies) b, unnest(b.routes) n;

    IF EXISTS (SELECT FROM unnest(bodies) b, unnest(b.quotas) q
                WHERE q.scope = 'tenant' AND num_nonnulls(q.route, q.consumer) > 0
                   OR q.scope = 'route' AND (q.route IS NULL OR q.consumer IS NOT NULL)) THEN
        PERFORM tiergate.refuse(422, 'invalid-scope', '', 'the scope of a quota does not fit it');
    END IF;
    INSERT INTO tiergate.quotas
        (tenant, name, route, consumer, metric, requests, per, burst, concurrency, body_size, dry_run)
    SELECT b.name, n.name, n.route,
           CASE WHEN n.scope = 'consumer' THEN coalesce(n.consumer, '*') ELSE n.consumer END,
           m.metric,
           CASE m.metric WHEN 'requests' THEN n."limit" END,
           -- an unreadable window becomes one that the constraint refuses
           CASE WHEN n."window" IS NOT NULL THEN coalesce(tiergate.parse_window(n."window"), '0s') END,
           n.burst,
           CASE m.metric WHEN 'concurrency' THEN n."limit" END,
           CASE m.metric WHEN 'body_size' THEN n."limit" END,
           coalesce(n.dry_run, false)
      FROM unnest(bodies) b, unnest(b.quotas) n
     CROSS JOIN LATERAL (SELECT coalesce(n.metric, 'requests') AS metric) m;

    SELECT array_agg(b.name) AS consumer_tenants, array_agg(x) AS consumers INTO part
      FROM unnest(bodies) b, unnest(b.consumers) x;
    IF part.consumers IS NOT NULL THEN
        PERFORM tiergate.write_consumers(part.consumer_tenants, part.consumers, false);
    END IF;

    SELECT array_agg(b.name) AS key_tenants, array_agg(x) AS keys INTO part
      FROM unnest(bodies) b, unnest(b.keys) x;
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


CREATE OR REPLACE FUNCTION tiergate.import_range(bodies jsonb[], first integer, last integer, settle boolean)
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
                   FROM tiergate.insert_tenants(tiergate.parse_tenants(bodies[first:last])) i);
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
        SELECT first + n.ordinality::integer - 1, 201,
               jsonb_build_object('name', n.value->'name', 'keys', coalesce(made->(n.value->>'name'), '[]'))
          FROM unnest(bodies[first:last]) WITH ORDINALITY n (value);
    END IF;
END
$$;


-- Who may do what, see 0013_security

REVOKE ALL ON FUNCTION
    tiergate.has_wildcards(), tiergate.check_host_rivals(), tiergate.check_routes(), tiergate.parse_tenants(jsonb[])
    FROM PUBLIC;
GRANT EXECUTE ON FUNCTION
    tiergate.has_wildcards(), tiergate.check_host_rivals(), tiergate.check_routes(), tiergate.parse_tenants(jsonb[])
    TO tiergate_admin;

COMMIT;
