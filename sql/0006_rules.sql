-- SPDX-License-Identifier: BSD-2-Clause
--
-- Rules that a check constraint cannot say: they look at other rows, at
-- settings, or set a value right.  They are triggers, so that plain INSERT and
-- UPDATE obey them too.  A refusal names the field with a JSON pointer relative
-- to the row's REST object; whoever handles a larger body puts the rest in front.

BEGIN;

INSERT INTO tiergate.schema_migrations (version, name) VALUES (6, 'rules');

CREATE FUNCTION tiergate.keep_identity()
RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
    IF NEW.id <> OLD.id OR NEW.name <> OLD.name THEN
        PERFORM tiergate.refuse(422, 'name-immutable', '/name',
                                format('the name and id of %s "%s" cannot be changed', TG_ARGV[0], OLD.name),
                                'make a new one and delete the old one');
    END IF;
    RETURN NEW;
END
$$;

COMMENT ON FUNCTION tiergate.keep_identity() IS
    'Trigger: refuses to change the name or id of what gateways know by them';

CREATE TRIGGER tenants_keep_identity BEFORE UPDATE OF id, name ON tiergate.tenants
    FOR EACH ROW EXECUTE FUNCTION tiergate.keep_identity('tenant');
CREATE TRIGGER issuers_keep_identity BEFORE UPDATE OF id, name ON tiergate.issuers
    FOR EACH ROW EXECUTE FUNCTION tiergate.keep_identity('issuer');


CREATE FUNCTION tiergate.check_tenant()
RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
    IF NEW.state = 'active' THEN
        NEW.reason := NULL;
    END IF;
    RETURN NEW;
END
$$;

COMMENT ON FUNCTION tiergate.check_tenant() IS
    'Trigger: an active tenant has no reason for its suspension';

CREATE TRIGGER tenants_check BEFORE INSERT OR UPDATE ON tiergate.tenants
    FOR EACH ROW WHEN (NEW.reason IS NOT NULL) EXECUTE FUNCTION tiergate.check_tenant();


-- Hosts.  The primary key settles who owns a name.  A name below another
-- tenant's wildcard would take requests from it, so that is refused too: at once
-- for the usual case, and again at commit, under the revision lock, for two
-- transactions that could not see each other.

CREATE FUNCTION tiergate.host_rival(host text, tenant text)
RETURNS text
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    labels text[] := string_to_array(host, '.');
    above  text[] := '{}';
    rival  text;
BEGIN
    FOR i IN 2 .. cardinality(labels) LOOP
        above := above || ('*.' || array_to_string(labels[i:], '.'));
    END LOOP;
    SELECT h.host INTO rival FROM tiergate.hosts h
     WHERE h.host = ANY (above) AND h.tenant <> host_rival.tenant LIMIT 1;
    IF rival IS NULL AND labels[1] = '*' THEN
        SELECT h.host INTO rival FROM tiergate.hosts h
         WHERE reverse(h.host) LIKE reverse(substr(host_rival.host, 2)) || '%'
           AND h.tenant <> host_rival.tenant LIMIT 1;
    END IF;
    RETURN rival;
END
$$;

COMMENT ON FUNCTION tiergate.host_rival(text, text) IS
    'A wildcard of another tenant that covers this host, or a host of another tenant that this wildcard covers';


CREATE FUNCTION tiergate.check_host()
RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF TG_WHEN = 'BEFORE' AND strpos(NEW.host, '.') = 0
       AND tiergate.setting('hosts.allow_single_label') IS DISTINCT FROM 'true' THEN
        PERFORM tiergate.refuse(422, 'invalid-hostname', '',
            format('hostname "%s" has one label only, which no public name has', NEW.host),
            'give the full name, or set hosts.allow_single_label');
    END IF;

    IF TG_WHEN = 'AFTER' THEN
        PERFORM tiergate.lock_revision();
    END IF;
    IF tiergate.host_rival(NEW.host, NEW.tenant) IS NOT NULL
       AND tiergate.setting('hosts.allow_nested_claims') IS DISTINCT FROM 'true' THEN
        PERFORM tiergate.refuse(409, 'host-taken', '',
            format('hostname "%s" overlaps a hostname of another tenant', NEW.host),
            'choose another name, or set hosts.allow_nested_claims');
    END IF;
    RETURN NEW;
END
$$;

COMMENT ON FUNCTION tiergate.check_host() IS
    'Trigger: a host is no single label and does not overlap a wildcard of another tenant';

CREATE TRIGGER hosts_check BEFORE INSERT OR UPDATE ON tiergate.hosts
    FOR EACH ROW EXECUTE FUNCTION tiergate.check_host();
CREATE CONSTRAINT TRIGGER hosts_check_commit AFTER INSERT OR UPDATE ON tiergate.hosts
    DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION tiergate.check_host();


CREATE FUNCTION tiergate.check_issuer()
RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    k record;
BEGIN
    IF NEW.ref IS NOT NULL THEN
        IF NOT EXISTS (SELECT FROM tiergate.issuers i
                        WHERE i.id = NEW.ref AND i.tenant IS NULL AND i.ref IS NULL) THEN
            PERFORM tiergate.refuse(422, 'unknown-issuer', '/ref',
                format('issuer "%s" refers to %s, which is no issuer of the platform', NEW.name, NEW.ref),
                'list the issuers of the platform with GET /v1/issuers');
        END IF;
        RETURN NEW;
    END IF;

    NEW.algorithms     := coalesce(NEW.algorithms, '{RS256,ES256}');
    NEW.leeway         := coalesce(NEW.leeway, 60);
    NEW.consumer_claim := coalesce(NEW.consumer_claim, 'sub');
    NEW.keys           := coalesce(NEW.keys, '[]');

    IF NEW.jwks_uri ~ '^http:' AND tiergate.setting('jwks.allow_http') IS DISTINCT FROM 'true' THEN
        PERFORM tiergate.refuse(422, 'insecure-uri', '/jwks_uri',
            format('jwks_uri "%s" is not https', NEW.jwks_uri), 'use https, or set jwks.allow_http');
    END IF;

    IF jsonb_typeof(NEW.keys) = 'array' AND NEW.keys <> '[]' THEN
        IF jsonb_array_length(NEW.keys) > (SELECT l.value FROM tiergate.limits l WHERE l.name = 'keys_per_issuer') THEN
            PERFORM tiergate.refuse(422, 'limit-exceeded', '/jwks/keys',
                format('issuer "%s" has %s keys, more than keys_per_issuer allows', NEW.name,
                       jsonb_array_length(NEW.keys)), 'remove keys that are no longer used');
        END IF;
        FOR k IN SELECT j.ordinality - 1 AS nth, tiergate.jwk_problem(j.value) AS problem
                   FROM jsonb_array_elements(NEW.keys) WITH ORDINALITY j LOOP
            IF k.problem IS NOT NULL THEN
                PERFORM tiergate.refuse(422, 'invalid-jwk', '/jwks/keys/' || k.nth,
                    format('key %s of issuer "%s" %s', k.nth, NEW.name, k.problem),
                    'RFC 7517 describes JSON Web Keys');
            END IF;
        END LOOP;
    END IF;
    RETURN NEW;
END
$$;

COMMENT ON FUNCTION tiergate.check_issuer() IS
    'Trigger: fills in defaults, checks what it refers to and the shape of its keys';

CREATE TRIGGER issuers_check BEFORE INSERT OR UPDATE ON tiergate.issuers
    FOR EACH ROW EXECUTE FUNCTION tiergate.check_issuer();


CREATE FUNCTION tiergate.revoke_keys_of_consumer()
RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    DELETE FROM tiergate.api_keys k WHERE k.tenant = OLD.tenant AND k.consumer = OLD.name;
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION tiergate.revoke_keys_of_consumer() IS
    'Trigger: the keys of a deleted consumer go with it';

CREATE TRIGGER consumers_revoke_keys AFTER DELETE ON tiergate.consumers
    FOR EACH ROW EXECUTE FUNCTION tiergate.revoke_keys_of_consumer();


CREATE FUNCTION tiergate.check_endpoint()
RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF EXISTS (SELECT FROM jsonb_array_elements_text(tiergate.setting('endpoints.deny')) d
                WHERE NEW.address <<= d::inet)
       OR NOT EXISTS (SELECT FROM jsonb_array_elements_text(tiergate.setting('endpoints.allow')) a
                       WHERE NEW.address <<= a::inet) THEN
        PERFORM tiergate.refuse(422, 'address-refused', '/address',
            format('address %s is not one that upstreams may have', host(NEW.address)),
            'settings endpoints.allow and endpoints.deny say which networks may be used');
    END IF;
    RETURN NEW;
END
$$;

COMMENT ON FUNCTION tiergate.check_endpoint() IS
    'Trigger: an endpoint lies where settings endpoints.allow and endpoints.deny let it';

CREATE TRIGGER endpoints_check BEFORE INSERT OR UPDATE ON tiergate.endpoints
    FOR EACH ROW EXECUTE FUNCTION tiergate.check_endpoint();


CREATE FUNCTION tiergate.sorted(list text[])
RETURNS text[]
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT array_agg(DISTINCT l ORDER BY l) FROM unnest(list) l
$$;

COMMENT ON FUNCTION tiergate.sorted(text[]) IS 'The array as a set: sorted, each element once';


-- Upstreams are named inside jsonb, so the two halves of a foreign key are
-- written out: a route locks the upstreams that it names as a foreign key would,
-- and an upstream that is named cannot go.

CREATE FUNCTION tiergate.check_route()
RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    b     jsonb;
    nth   integer := 0;
    total bigint  := 0;
    rival text;
BEGIN
    IF NEW.methods IS NOT NULL THEN
        NEW.methods := tiergate.sorted(NEW.methods);
    END IF;
    IF NEW.hosts IS NOT NULL THEN
        NEW.hosts := tiergate.sorted(NEW.hosts);
    END IF;

    IF jsonb_typeof(NEW.backends) = 'array' THEN
        WHILE nth < jsonb_array_length(NEW.backends) LOOP
            b := NEW.backends->nth;
            IF jsonb_typeof(b) <> 'object' OR b - '{upstream,weight}'::text[] <> '{}'
               OR jsonb_typeof(b->'upstream') IS DISTINCT FROM 'string'
               OR coalesce(b->>'weight', '1') !~ '^[0-9]{1,7}$'
               OR coalesce(b->>'weight', '1')::integer > 1000000 THEN
                PERFORM tiergate.refuse(422, 'invalid-backend', '/backends/' || nth,
                    format('backend %s of route "%s" is not {upstream, weight}', nth, NEW.name),
                    'name an upstream, and a weight from 0 to 1000000');
            END IF;
            PERFORM FROM tiergate.upstreams u
              WHERE u.tenant = NEW.tenant AND u.name = b->>'upstream' FOR KEY SHARE;
            IF NOT FOUND THEN
                PERFORM tiergate.refuse(422, 'unknown-upstream', '/backends/' || nth || '/upstream',
                    format('route "%s" names upstream "%s", which its tenant does not have', NEW.name, b->>'upstream'),
                    'make the upstream first');
            END IF;
            IF NOT b ? 'weight' THEN
                NEW.backends := jsonb_set(NEW.backends, ARRAY[nth::text, 'weight'], '1');
                total := total + 1;
            ELSE
                total := total + (b->>'weight')::integer;
            END IF;
            nth := nth + 1;
        END LOOP;
        IF total = 0 AND nth > 0 THEN
            PERFORM tiergate.refuse(422, 'no-weight', '/backends',
                format('no backend of route "%s" has a weight above 0', NEW.name), 'give one a weight');
        END IF;
    END IF;

    -- the same path under the same conditions leaves open which of two is meant
    SELECT r.name INTO rival FROM tiergate.routes r
     WHERE r.tenant = NEW.tenant AND r.path = NEW.path AND r.path_type = NEW.path_type AND r.name <> NEW.name
       AND r.headers IS NOT DISTINCT FROM NEW.headers
       AND CASE WHEN r.methods IS NULL OR NEW.methods IS NULL THEN r.methods IS NULL AND NEW.methods IS NULL
                ELSE r.methods && NEW.methods END
       AND CASE WHEN r.hosts IS NULL OR NEW.hosts IS NULL THEN r.hosts IS NULL AND NEW.hosts IS NULL
                ELSE r.hosts && NEW.hosts END
     LIMIT 1;
    IF FOUND THEN
        PERFORM tiergate.refuse(409, 'overlapping-route', '/match',
            format('route "%s" matches the same requests as route "%s"', NEW.name, rival),
            'tell them apart by path, methods, headers or hosts');
    END IF;
    RETURN NEW;
END
$$;

COMMENT ON FUNCTION tiergate.check_route() IS
    'Trigger: a route goes to upstreams of its tenant, and overlaps no other route';

CREATE TRIGGER routes_check BEFORE INSERT OR UPDATE ON tiergate.routes
    FOR EACH ROW EXECUTE FUNCTION tiergate.check_route();


CREATE FUNCTION tiergate.keep_used_upstream()
RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    route text;
BEGIN
    SELECT r.name INTO route FROM tiergate.routes r
     WHERE r.tenant = OLD.tenant AND r.backends @> jsonb_build_array(jsonb_build_object('upstream', OLD.name))
       AND EXISTS (SELECT FROM tiergate.tenants t WHERE t.name = OLD.tenant)
     LIMIT 1;
    IF FOUND THEN
        PERFORM tiergate.refuse(409, 'upstream-in-use', '',
            format('upstream "%s" is a backend of route "%s"', OLD.name, route),
            'change the route first');
    END IF;
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION tiergate.keep_used_upstream() IS
    'Trigger: an upstream that a route names is not deleted or renamed, unless its tenant goes';

CREATE TRIGGER upstreams_keep_used AFTER DELETE ON tiergate.upstreams
    FOR EACH ROW EXECUTE FUNCTION tiergate.keep_used_upstream();
CREATE TRIGGER upstreams_keep_used_name AFTER UPDATE OF tenant, name ON tiergate.upstreams
    FOR EACH ROW WHEN (OLD.tenant <> NEW.tenant OR OLD.name <> NEW.name)
    EXECUTE FUNCTION tiergate.keep_used_upstream();


-- UPDATE quotas SET requests = 100 WHERE tenant = 'acme' shall do what it says
-- even if acme has quotas of other metrics beside: those keep what they have.
CREATE FUNCTION tiergate.check_quota()
RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        IF NEW.metric = 'requests' AND NEW.requests IS NULL THEN
            NEW.metric := CASE WHEN NEW.concurrency IS NOT NULL THEN 'concurrency'
                               WHEN NEW.body_size IS NOT NULL THEN 'body_size' ELSE NEW.metric END;
        END IF;
        NEW.name := coalesce(NEW.name, tiergate.quota_name(NEW.metric, NEW.per, NEW.route, NEW.consumer));
    ELSIF NEW.metric = OLD.metric AND OLD.metric <> 'requests' AND NEW.requests IS NOT NULL THEN
        RAISE NOTICE 'quota "%" of tenant "%" counts %, not requests: left as it was',
            OLD.name, OLD.tenant, OLD.metric;
        NEW.requests := NULL;
        NEW.per      := OLD.per;
        NEW.burst    := OLD.burst;
    END IF;
    RETURN NEW;
END
$$;

COMMENT ON FUNCTION tiergate.check_quota() IS
    'Trigger: names a quota, and keeps limits of another metric out of it';


CREATE FUNCTION tiergate.quota_name(metric text, per interval, route text, consumer text)
RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT left(concat_ws('.',
        CASE WHEN consumer = '*' THEN 'each' WHEN consumer IS NOT NULL THEN 'c' || left(md5(consumer), 8) END,
        left(route, 30),
        replace(metric, '_', '-') || coalesce('-' || CASE tiergate.quota_window(per)
            WHEN '1s' THEN 'second' WHEN '60s' THEN 'minute' WHEN '3600s' THEN 'hour'
            ELSE tiergate.quota_window(per) END, '')), 63)
$$;

COMMENT ON FUNCTION tiergate.quota_name(text, interval, text, text) IS
    'Name that a quota gets when none is given, such as orders.requests-minute';

CREATE TRIGGER quotas_check BEFORE INSERT OR UPDATE ON tiergate.quotas
    FOR EACH ROW EXECUTE FUNCTION tiergate.check_quota();


-- How much one tenant may hold.  Two transactions that cannot see each other
-- could together pass a limit, so from half of it on they take turns.
DO $$
DECLARE
    t record;
BEGIN
    FOR t IN
        SELECT * FROM (VALUES
            ('hosts',     'hosts_per_tenant',       'tenant'),
            ('issuers',   'issuers_per_tenant',     'tenant'),
            ('consumers', 'consumers_per_tenant',   'tenant'),
            ('api_keys',  'api_keys_per_tenant',    'tenant'),
            ('upstreams', 'upstreams_per_tenant',   'tenant'),
            ('endpoints', 'endpoints_per_upstream', 'tenant, upstream'),
            ('routes',    'routes_per_tenant',      'tenant'),
            ('quotas',    'quotas_per_tenant',      'tenant')
        ) AS v (tab, lim, owner)
    LOOP
        EXECUTE format($f$
            CREATE FUNCTION tiergate.limit_%1$s()
            RETURNS trigger
            LANGUAGE plpgsql SECURITY DEFINER
            SET search_path = pg_catalog, pg_temp
            AS $body$
            DECLARE
                c record;
            BEGIN
                FOR c IN
                    SELECT n.*, l.value AS most
                      FROM (SELECT DISTINCT %3$s FROM new_rows WHERE tenant IS NOT NULL) n, tiergate.limits l
                     WHERE l.name = %2$L
                       AND (SELECT count(*) FROM tiergate.%1$s x WHERE (%4$s) = (%5$s)) > l.value / 2
                LOOP
                    PERFORM pg_advisory_xact_lock(hashtextextended(%1$L || concat_ws('/', %6$s), 0));
                    IF (SELECT count(*) FROM tiergate.%1$s x WHERE (%4$s) = (%6$s)) > c.most THEN
                        PERFORM tiergate.refuse(422, 'limit-exceeded', '',
                            format('%1$s of "%%s": more than %%s, which %2$s allows', concat_ws('/', %6$s), c.most),
                            'remove some, or raise the limit in tiergate.limits');
                    END IF;
                END LOOP;
                RETURN NULL;
            END
            $body$
            $f$, t.tab, t.lim, t.owner, regexp_replace(t.owner, '(\w+)', 'x.\1', 'g'),
                 regexp_replace(t.owner, '(\w+)', 'n.\1', 'g'), regexp_replace(t.owner, '(\w+)', 'c.\1', 'g'));
        EXECUTE format('COMMENT ON FUNCTION tiergate.limit_%s() IS %L', t.tab,
                       format('Trigger: limit %s', t.lim));
        EXECUTE format(
            'CREATE TRIGGER %1$s_limit AFTER INSERT ON tiergate.%1$s REFERENCING NEW TABLE AS new_rows
             FOR EACH STATEMENT EXECUTE FUNCTION tiergate.limit_%1$s()', t.tab);
    END LOOP;
END
$$;


-- What REST callers are told when a constraint refuses a row.  A check
-- constraint that is not listed is 422 and speaks through its comment.
CREATE TABLE tiergate.refusals (
    name    text    PRIMARY KEY,
    status  integer NOT NULL,
    slug    text    NOT NULL,
    pointer text    NOT NULL,
    detail  text,
    hint    text    NOT NULL DEFAULT ''
);

COMMENT ON TABLE  tiergate.refusals         IS 'Problems that stand for violated constraints';
COMMENT ON COLUMN tiergate.refusals.name    IS 'Constraint or unique index';
COMMENT ON COLUMN tiergate.refusals.status  IS 'HTTP status';
COMMENT ON COLUMN tiergate.refusals.slug    IS 'Problem type';
COMMENT ON COLUMN tiergate.refusals.pointer IS 'Field, relative to the object';
COMMENT ON COLUMN tiergate.refusals.detail  IS 'Sentence; null for the comment of the constraint';
COMMENT ON COLUMN tiergate.refusals.hint    IS 'What to do';

INSERT INTO tiergate.refusals (name, status, slug, pointer, detail, hint) VALUES
    ('tenants_pkey',          409, 'tenant-exists',    '/name', 'there is a tenant of this name already', 'choose another name, or PATCH the tenant'),
    ('tenants_name',          422, 'invalid-label',    '/name', NULL, ''),
    ('tenants_tier_fkey',     422, 'unknown-tier',     '/tier', 'there is no tier of this name', 'list the tiers with GET /v1/tiers'),
    ('tenants_labels',        422, 'invalid-labels',   '/labels', NULL, ''),
    ('tenants_factor',        422, 'out-of-range',     '/factor', NULL, ''),
    ('hosts_pkey',            409, 'host-taken',       '', 'this hostname belongs to a tenant already', 'choose another name'),
    ('hosts_host',            422, 'invalid-hostname', '', NULL, ''),
    ('issuers_own',           422, 'missing-field',    '/issuer', 'an issuer needs issuer, or ref to refer to one of the platform', ''),
    ('issuers_ref',           422, 'invalid-reference', '/ref', NULL, ''),
    ('issuers_ref_fkey',      409, 'issuer-in-use',    '', 'tenants refer to this issuer', 'remove their references first'),
    ('issuers_tenant_name_key', 409, 'duplicate-name', '/name', 'there is an issuer of this name already', ''),
    ('consumers_labels',      422, 'invalid-labels',   '/labels', NULL, ''),
    ('api_keys_sha256_key',   409, 'duplicate-key',    '/sha256', 'this key is registered already', 'every key must be different'),
    ('routes_match',          409, 'overlapping-route', '/match', 'another route of the tenant matches the same requests', 'tell them apart by path, methods, headers or hosts'),
    ('routes_path',           422, 'invalid-path',     '/match/path/value', NULL, ''),
    ('routes_rewrite_value',  422, 'invalid-rewrite',  '/rewrite/value', NULL, ''),
    ('routes_rewrite_match',  422, 'invalid-rewrite',  '/rewrite/type', NULL, ''),
    ('quotas_same',           409, 'duplicate-quota',  '', NULL, 'change that quota'),
    ('quotas_limit',          422, 'invalid-quota',    '', NULL, ''),
    ('quotas_range',          422, 'out-of-range',     '/limit', NULL, ''),
    ('quotas_per',            422, 'invalid-window',   '/window', NULL, ''),
    ('quotas_burst',          422, 'out-of-range',     '/burst', NULL, ''),
    ('quotas_tenant_route_fkey', 422, 'unknown-route', '/route', 'the tenant has no route of this name', 'make the route first'),
    ('gateways_tenant',       422, 'invalid-gateway',  '/tenant', NULL, ''),
    ('gateways_tenant_fkey',  422, 'unknown-tenant',   '/tenant', 'there is no tenant of this name', ''),
    ('api_tokens_name_key',   409, 'token-exists',     '/name', 'there is a token of this name already', 'choose another name, or revoke that one'),
    ('api_tokens_tenant',     422, 'invalid-token',    '/tenant', NULL, ''),
    ('api_tokens_gateway',    422, 'invalid-token',    '/gateway', NULL, ''),
    ('api_tokens_tenant_fkey', 422, 'unknown-tenant',  '/tenant', 'there is no tenant of this name', ''),
    ('api_tokens_secret',     422, 'invalid-token',    '/certificate', NULL, '');


-- What GET STACKED DIAGNOSTICS says of a caught error.
CREATE TYPE tiergate.violation AS (
    state           text,
    message         text,
    detail          text,
    hint            text,
    constraint_name text,
    table_name      text,
    pointer         text
);

COMMENT ON TYPE tiergate.violation IS 'A caught error: SQLSTATE, message, detail, hint, constraint, table, column';


CREATE FUNCTION tiergate.refuse_violation(v tiergate.violation, base text DEFAULT '')
RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
    r tiergate.refusals;
BEGIN
    IF v.state LIKE 'TG%' THEN
        PERFORM tiergate.refuse(substr(v.state, 3)::integer, v.detail, base || v.pointer, v.message, v.hint);
    END IF;

    IF v.state LIKE '23%' THEN
        SELECT * INTO r FROM tiergate.refusals x WHERE x.name = v.constraint_name;
        IF FOUND OR v.state = '23514' THEN
            PERFORM tiergate.refuse(coalesce(r.status, 422), coalesce(r.slug, 'invalid-value'),
                base || coalesce(r.pointer, ''),
                coalesce(r.detail,
                         (SELECT obj_description(c.oid, 'pg_constraint') FROM pg_constraint c
                           WHERE c.conname = v.constraint_name
                             AND c.conrelid = to_regclass('tiergate.' || quote_ident(v.table_name))),
                         v.message),
                coalesce(r.hint, ''));
        END IF;
    END IF;

    RAISE EXCEPTION USING ERRCODE = v.state, MESSAGE = v.message, DETAIL = coalesce(v.detail, ''),
                          HINT = coalesce(v.hint, '');
END
$$;

COMMENT ON FUNCTION tiergate.refuse_violation(tiergate.violation, text) IS
    'Raises a caught error again: a constraint as the problem that stands for it, a refusal with its pointer made absolute, anything else unchanged';

COMMIT;
