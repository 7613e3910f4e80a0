-- SPDX-License-Identifier: BSD-2-Clause
--
-- What rows may hold.  The rules are triggers, so that plain INSERT and UPDATE
-- obey them as REST does, and one table says what is told when one is broken: by
-- whom, to whom, and with the JSON pointer of the field, relative to the row's
-- REST object.  Whoever handles a larger body puts the rest in front.
--
-- Each trigger judges a row in one expression, whose value is the broken rule.
-- PL/pgSQL prepares an expression once a transaction, and that costs more than
-- to evaluate it: one for each rule would make onboarding half as fast.
--
-- Invariant: body_problems() is no stricter than these triggers.

BEGIN;

INSERT INTO tiergate.schema_migrations (version, name) VALUES (6, 'rules');

CREATE TABLE tiergate.refusals (
    name    text    PRIMARY KEY,
    status  integer NOT NULL DEFAULT 422,
    slug    text    NOT NULL,
    pointer text    NOT NULL,
    detail  text,
    hint    text    NOT NULL DEFAULT ''
);

COMMENT ON TABLE  tiergate.refusals         IS 'What is told when a rule is broken or a constraint violated';
COMMENT ON COLUMN tiergate.refusals.name    IS 'Rule, constraint or unique index';
COMMENT ON COLUMN tiergate.refusals.status  IS 'HTTP status';
COMMENT ON COLUMN tiergate.refusals.slug    IS 'Problem type';
COMMENT ON COLUMN tiergate.refusals.pointer IS 'Field, relative to the object';
COMMENT ON COLUMN tiergate.refusals.detail  IS 'Sentence, with %s where the row is named; null for the comment of the constraint';
COMMENT ON COLUMN tiergate.refusals.hint    IS 'What to do';

INSERT INTO tiergate.refusals (name, status, slug, pointer, detail, hint) VALUES
    ('tenants_name',      422, 'invalid-label',  '/name',         'tenant name "%s" is no DNS label', 'use lower-case letters, digits and inner hyphens, at most 63'),
    ('tenants_state',     422, 'unknown-value',  '/state',        'state of tenant "%s" is not known', 'use active or suspended'),
    ('tenants_reason',    422, 'wrong-length',   '/reason',       'reason of tenant "%s" has more than 200 bytes, or control characters', 'the refused client is shown it: write one short line'),
    ('tenants_display',   422, 'wrong-length',   '/display_name', 'display_name of tenant "%s" has more than 200 bytes', ''),
    ('tenants_labels',    422, 'invalid-labels', '/labels',       'labels of tenant "%s" are no object of strings, or have more than 16384 bytes', ''),
    ('tenants_boost',     422, 'invalid-boost',  '/boost',        'the boost of tenant "%s" needs both a factor and an end', ''),
    ('tenants_until',     422, 'out-of-range',   '/boost/until',  'the boost of tenant "%s" has no finite end', 'until => now() + ''2 hours'''),
    ('tenants_factor',    422, 'out-of-range',   '/boost/factor', 'the boost factor of tenant "%s" does not lie between 0.001 and 1000', ''),
    ('tenants_pkey',      409, 'tenant-exists',  '/name',         'there is a tenant of this name already', 'choose another name, or PATCH the tenant'),
    ('tenants_tier',      422, 'unknown-tier',   '/tier',         'the tier of tenant "%s" is not known', 'list the tiers with GET /v1/tiers'),
    ('tiers_in_use',      409, 'tier-in-use',    '/name',         'tenants are of tier "%s"', 'change their tier first'),

    ('hosts_host',        422, 'invalid-hostname', '', '"%s" is no hostname', 'use a DNS name in lower case, without port or final dot, non-ASCII labels as xn--; a wildcard is *.name'),
    ('hosts_one_label',   422, 'invalid-hostname', '', 'hostname "%s" has one label only, which no public name has', 'give the full name, or set hosts.allow_single_label'),
    ('hosts_rival',       409, 'host-taken',       '', 'hostname "%s" overlaps a hostname of another tenant', 'choose another name, or set hosts.allow_nested_claims'),
    ('hosts_pkey',        409, 'host-taken',       '', 'this hostname belongs to a tenant already', 'choose another name'),

    ('issuers_name',       422, 'invalid-name',      '/name',           'issuer name "%s" is no name', 'use lower-case letters, digits and inner -._, at most 63'),
    ('issuers_audiences',  422, 'invalid-audiences', '/audiences',      'audiences of issuer "%s" are not 1 to 16 strings of 1 to 256 bytes without blanks', ''),
    ('issuers_ref',        422, 'invalid-reference', '/ref',            'issuer "%s" refers to one of the platform: only audiences may be set beside', ''),
    ('issuers_unknown',    422, 'unknown-issuer',    '/ref',            'issuer "%s" refers to an issuer that the platform does not have', 'list the issuers of the platform with GET /v1/issuers'),
    ('issuers_own',        422, 'missing-field',     '/issuer',         'issuer "%s" has no issuer, the iss claim of its tokens', 'give issuer, or ref to refer to an issuer of the platform'),
    ('issuers_issuer',     422, 'invalid-issuer',    '/issuer',         'the iss claim of issuer "%s" has not 1 to 512 bytes without blanks', ''),
    ('issuers_algorithms', 422, 'unknown-value',     '/algorithms',     'issuer "%s" has no algorithm, or one that is not known', 'use RS, PS, ES or HS with 256, 384 or 512, or EdDSA'),
    ('issuers_leeway',     422, 'out-of-range',      '/leeway',         'leeway of issuer "%s" does not lie between 0 and 300 seconds', ''),
    ('issuers_claim',      422, 'wrong-length',      '/consumer_claim', 'consumer_claim of issuer "%s" has not 1 to 128 bytes without control characters', ''),
    ('issuers_jwks_uri',   422, 'invalid-jwks-uri',  '/jwks_uri',       'jwks_uri of issuer "%s" is no http or https URL of at most 2048 bytes', ''),
    ('issuers_insecure',   422, 'insecure-uri',      '/jwks_uri',       'jwks_uri of issuer "%s" is not https', 'use https, or set jwks.allow_http'),
    ('issuers_keys',       422, 'wrong-type',        '/jwks/keys',      'keys of issuer "%s" are no array', ''),
    ('issuers_keyless',    422, 'missing-field',     '/jwks',           'issuer "%s" has neither keys nor a jwks_uri', 'give jwks with its keys, or the jwks_uri where they are'),
    ('issuers_in_use',     409, 'issuer-in-use',     '',                'tenants refer to issuer "%s"', 'remove their references first'),
    ('issuers_tenant_ref', 409, 'duplicate-reference', '/ref',          'the tenant refers to this issuer already', ''),
    ('issuers_tenant_name_key', 409, 'duplicate-name', '/name',         'there is an issuer of this name already', ''),

    ('consumers_name',    422, 'invalid-consumer', '/name',   'consumer "%s" has not 1 to 128 visible ASCII characters', ''),
    ('consumers_labels',  422, 'invalid-labels',   '/labels', 'labels of consumer "%s" are no object of strings, or have more than 16384 bytes', ''),

    ('api_keys_consumer', 422, 'invalid-consumer', '/consumer',   'consumer "%s" has not 1 to 128 visible ASCII characters', ''),
    ('api_keys_scopes',   422, 'invalid-scopes',   '/scopes',     'scopes of a key of "%s" are not at most 64 strings of 1 to 128 bytes without blanks', ''),
    ('api_keys_sha256',   422, 'invalid-sha256',   '/sha256',     'sha256 of a key of "%s" has not 32 bytes', ''),
    ('api_keys_expires',  422, 'invalid-time',     '/expires_at', 'expires_at of a key of "%s" is no finite time', ''),
    ('api_keys_sha256_key', 409, 'duplicate-key',  '/sha256',     'this key is registered already', 'every key must be different'),

    ('upstreams_name',         422, 'invalid-name',      '/name',                   'upstream name "%s" is no name', 'use lower-case letters, digits and inner -._, at most 63'),
    ('upstreams_host',         422, 'invalid-authority', '/host',                   'host of upstream "%s" is no host for a Host header', 'use a hostname, with :port if need be'),
    ('upstreams_outstanding',  422, 'out-of-range',      '/max_outstanding',        'max_outstanding of upstream "%s" does not lie between 0 and 1000000', ''),
    ('upstreams_max_fails',    422, 'out-of-range',      '/health/max_fails',       'max_fails of upstream "%s" does not lie between 0 and 1000', ''),
    ('upstreams_fail_timeout', 422, 'out-of-range',      '/health/fail_timeout_ms', 'fail_timeout_ms of upstream "%s" does not lie between 100 and 3600000', ''),
    ('upstreams_slow_start',   422, 'out-of-range',      '/health/slow_start_ms',   'slow_start_ms of upstream "%s" does not lie between 0 and 3600000', ''),
    ('upstreams_in_use',       409, 'upstream-in-use',   '',                        'upstream "%s" is a backend of a route', 'change the route first'),

    ('endpoints_address', 422, 'invalid-address', '/address', 'address %s is a network, not an address', ''),
    ('endpoints_port',    422, 'out-of-range',    '/port',    'port of endpoint %s does not lie between 1 and 65535', ''),
    ('endpoints_weight',  422, 'out-of-range',    '/weight',  'weight of endpoint %s does not lie between 0 and 1000000', ''),
    ('endpoints_policy',  422, 'address-refused', '/address', 'address %s is not one that upstreams may have', 'settings endpoints.allow and endpoints.deny say which networks may be used'),

    ('routes_name',          422, 'invalid-name',      '/name',             'route name "%s" is no name', 'use lower-case letters, digits and inner -._, at most 63'),
    ('routes_path_type',     422, 'unknown-value',     '/match/path/type',  'path type of route "%s" is not known', 'use exact, prefix or regex'),
    ('routes_path',          422, 'invalid-path',      '/match/path/value', 'path of route "%s" is not one that a request could have', 'write 1 to 512 bytes that begin with /, without blanks, ?, #, backslash, // and dot segments'),
    ('routes_methods',       422, 'invalid-method',    '/match/methods',    'methods of route "%s" are not 1 to 16 request methods', 'use GET, HEAD, POST, PUT, DELETE, PATCH, OPTIONS'),
    ('routes_hosts',         422, 'invalid-hostname',  '/match/hosts',      'hosts of route "%s" are not 1 to 16 hostnames', ''),
    ('routes_headers',       422, 'invalid-header',    '/match/headers',    'headers of route "%s" are not 1 to 16 of {name, type, value}', 'type is exact or regex'),
    ('routes_auth',          422, 'unknown-value',     '/auth/mode',        'auth of route "%s" is not known', 'use required, optional or none'),
    ('routes_auth_methods',  422, 'unknown-value',     '/auth/methods',     'auth methods of route "%s" are not jwt and api_key', ''),
    ('routes_scopes',        422, 'invalid-scopes',    '/auth/scopes',      'scopes of route "%s" are not at most 64 strings of 1 to 128 bytes without blanks', ''),
    ('routes_claims',        422, 'invalid-claims',    '/auth/claims',      'claims of route "%s" are not at most 16 of {name, values}, with 1 to 64 values each', 'write names and values without control characters'),
    ('routes_rewrite',       422, 'unknown-value',     '/rewrite/type',     'rewrite of route "%s" is not known', 'use strip_prefix, replace_prefix or replace_path'),
    ('routes_rewrite_value', 422, 'invalid-rewrite',   '/rewrite/value',    'rewrite value of route "%s" does not go with its rewrite', 'replace_prefix and replace_path take a normalised path of at most 512 bytes, strip_prefix takes none'),
    ('routes_rewrite_match', 422, 'invalid-rewrite',   '/rewrite/type',     'this rewrite of route "%s" needs a path of type prefix', ''),
    ('routes_sticky',        422, 'unknown-value',     '/sticky',           'sticky of route "%s" is not known', 'use none or consumer'),
    ('routes_timeouts',      422, 'out-of-range',      '/timeouts',         'a time limit of route "%s" does not lie between 1 and 3600000 milliseconds', ''),
    ('routes_retries',       422, 'out-of-range',      '/retries',          'retries of route "%s" does not lie between 0 and 5', ''),
    ('routes_backends',      422, 'invalid-backend',   '/backends',         'backends of route "%s" are not 1 to 16 of {upstream, weight}', 'name an upstream, and a weight from 0 to 1000000'),
    ('routes_same_backend',  422, 'duplicate-item',    '/backends',         'route "%s" names an upstream twice', 'give it one weight'),
    ('routes_no_weight',     422, 'no-weight',         '/backends',         'no backend of route "%s" has a weight above 0', 'give one a weight'),
    ('routes_rival',         409, 'overlapping-route', '/match',            'route "%s" matches the same requests as another route of its tenant', 'tell them apart by path, methods, headers or hosts'),
    ('routes_match',         409, 'overlapping-route', '/match',            'another route of the tenant matches the same requests', 'tell them apart by path, methods, headers or hosts'),

    ('quotas_name',      422, 'invalid-name',     '/name',     'quota name "%s" is no name', 'use lower-case letters, digits and inner -._, at most 63'),
    ('quotas_consumer',  422, 'invalid-consumer', '/consumer', 'consumer of quota "%s" has not 1 to 128 visible ASCII characters', ''),
    ('quotas_metric',    422, 'unknown-value',    '/metric',   'metric of quota "%s" is not known', 'use requests, concurrency or body_size'),
    ('quotas_limit',     422, 'invalid-quota',    '',          'quota "%s" lacks what its metric needs, or has what it may not have', 'requests takes a limit and a window, and may have a burst; concurrency and body_size take a limit only'),
    ('quotas_range',     422, 'out-of-range',     '/limit',    'limit of quota "%s" is out of range', 'requests lies between 1 and 10^12, concurrency between 1 and 10^6, body_size between 0 and 2^40'),
    ('quotas_per',       422, 'invalid-window',   '/window',   'window of quota "%s" is not one that can be counted', 'use 1 to 86399 whole seconds, 1 day or 1 month'),
    ('quotas_burst',     422, 'out-of-range',     '/burst',    'burst of quota "%s" does not lie between 0 and 10^9, or its window is not in seconds', ''),
    ('quotas_same',      409, 'duplicate-quota',  '',          NULL, 'change that quota'),
    ('quotas_tenant_route_fkey', 422, 'unknown-route', '/route', 'the tenant has no route of this name', 'make the route first'),

    ('gateways_name',         422, 'invalid-name',    '/name',   'gateway name "%s" is no name', 'use lower-case letters, digits and inner -._, at most 63'),
    ('gateways_tenant',       422, 'invalid-gateway', '/tenant', NULL, ''),
    ('gateways_tenant_fkey',  422, 'unknown-tenant',  '/tenant', 'there is no tenant of this name', ''),
    ('api_tokens_name_key',   409, 'token-exists',    '/name',   'there is a token of this name already', 'choose another name, or revoke that one'),
    ('api_tokens_scope',      422, 'unknown-value',   '/scope',  NULL, ''),
    ('api_tokens_tenant',     422, 'invalid-token',   '/tenant', NULL, ''),
    ('api_tokens_gateway',    422, 'invalid-token',   '/gateway', NULL, ''),
    ('api_tokens_tenant_fkey', 422, 'unknown-tenant', '/tenant', 'there is no tenant of this name', ''),
    ('api_tokens_secret',     422, 'invalid-token',   '/certificate', NULL, '');


CREATE FUNCTION tiergate.refuse_row(rule text, named text)
RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
    r tiergate.refusals;
BEGIN
    SELECT * INTO STRICT r FROM tiergate.refusals x WHERE x.name = rule;
    PERFORM tiergate.refuse(r.status, r.slug, r.pointer, replace(r.detail, '%s', coalesce(left(named, 200), '')), r.hint);
END
$$;

COMMENT ON FUNCTION tiergate.refuse_row(text, text) IS
    'Refuses a row that breaks a rule, as tiergate.refusals says';


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
DECLARE
    broken text := CASE
        WHEN NOT tiergate.is_label(NEW.name)                          THEN 'tenants_name'
        WHEN NEW.state NOT IN ('active', 'suspended')                 THEN 'tenants_state'
        WHEN octet_length(NEW.reason) > 200 OR NEW.reason ~ '[\x01-\x1f\x7f]' THEN 'tenants_reason'
        WHEN octet_length(NEW.display_name) > 200                     THEN 'tenants_display'
        WHEN NOT tiergate.are_labels(NEW.labels)                      THEN 'tenants_labels'
        WHEN (NEW.boost_factor IS NULL) <> (NEW.boost_until IS NULL)  THEN 'tenants_boost'
        WHEN NEW.boost_factor NOT BETWEEN 0.001 AND 1000              THEN 'tenants_factor'
        WHEN NOT isfinite(NEW.boost_until)                            THEN 'tenants_until'
        END;
BEGIN
    IF broken IS NULL AND NOT EXISTS (SELECT FROM tiergate.tiers s WHERE s.name = NEW.tier)
       AND NEW.tier IS NOT NULL THEN
        broken := 'tenants_tier';
    END IF;
    IF broken IS NOT NULL THEN
        PERFORM tiergate.refuse_row(broken, NEW.name);
    END IF;
    IF NEW.reason IS NOT NULL AND NEW.state = 'active' THEN
        NEW.reason := NULL;
    END IF;
    RETURN NEW;
END
$$;

COMMENT ON FUNCTION tiergate.check_tenant() IS
    'Trigger: what a tenant may be; an active one has no reason for its suspension';

CREATE TRIGGER tenants_check BEFORE INSERT OR UPDATE ON tiergate.tenants
    FOR EACH ROW EXECUTE FUNCTION tiergate.check_tenant();


CREATE FUNCTION tiergate.keep_used_tier()
RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
    IF EXISTS (SELECT FROM tiergate.tenants t WHERE t.tier = OLD.name) THEN
        PERFORM tiergate.refuse_row('tiers_in_use', OLD.name);
    END IF;
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION tiergate.keep_used_tier() IS 'Trigger: a tier that tenants have is not deleted or renamed';

CREATE TRIGGER tiers_keep_used AFTER DELETE ON tiergate.tiers
    FOR EACH ROW EXECUTE FUNCTION tiergate.keep_used_tier();
CREATE TRIGGER tiers_keep_used_name AFTER UPDATE OF name ON tiergate.tiers
    FOR EACH ROW WHEN (OLD.name <> NEW.name) EXECUTE FUNCTION tiergate.keep_used_tier();


-- Hosts.  The primary key settles who owns a name.  A name below another
-- tenant's wildcard would take requests from it, so that is refused too: at once
-- for the usual case, and again at commit, under the revision lock, for two
-- transactions that could not see each other.

CREATE FUNCTION tiergate.host_rival(host text, tenant text)
RETURNS text
LANGUAGE plpgsql STABLE
SET enable_seqscan = off
SET jit = off
AS $$
DECLARE
    rival text;
    below text;
BEGIN
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

COMMENT ON FUNCTION tiergate.host_rival(text, text) IS
    'A wildcard of another tenant that covers this host, or a host of another tenant that this wildcard covers';


CREATE FUNCTION tiergate.check_host()
RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    broken text := CASE
        WHEN NOT tiergate.is_hostname(NEW.host) THEN 'hosts_host'
        WHEN strpos(NEW.host, '.') = 0
             AND tiergate.setting('hosts.allow_single_label') IS DISTINCT FROM 'true' THEN 'hosts_one_label'
        WHEN tiergate.host_rival(NEW.host, NEW.tenant) IS NOT NULL
             AND tiergate.setting('hosts.allow_nested_claims') IS DISTINCT FROM 'true' THEN 'hosts_rival'
        END;
BEGIN
    IF broken IS NOT NULL THEN
        PERFORM tiergate.refuse_row(broken, NEW.host);
    END IF;
    RETURN NEW;
END
$$;

COMMENT ON FUNCTION tiergate.check_host() IS
    'Trigger: a host is a hostname, and does not overlap a wildcard of another tenant';

CREATE TRIGGER hosts_check BEFORE INSERT OR UPDATE ON tiergate.hosts
    FOR EACH ROW EXECUTE FUNCTION tiergate.check_host();


CREATE FUNCTION tiergate.check_host_commit()
RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM tiergate.lock_revision();
    IF tiergate.host_rival(NEW.host, NEW.tenant) IS NOT NULL
       AND tiergate.setting('hosts.allow_nested_claims') IS DISTINCT FROM 'true' THEN
        PERFORM tiergate.refuse_row('hosts_rival', NEW.host);
    END IF;
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION tiergate.check_host_commit() IS
    'Trigger: at commit a host does still not overlap a wildcard of another tenant';

CREATE CONSTRAINT TRIGGER hosts_check_commit AFTER INSERT OR UPDATE ON tiergate.hosts
    DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION tiergate.check_host_commit();


CREATE FUNCTION tiergate.check_issuer()
RETURNS trigger
LANGUAGE plpgsql
AS $$
DECLARE
    broken text;
    k      record;
BEGIN
    IF NEW.ref IS NULL THEN
        NEW.algorithms     := coalesce(NEW.algorithms, '{RS256,ES256}');
        NEW.leeway         := coalesce(NEW.leeway, 60);
        NEW.consumer_claim := coalesce(NEW.consumer_claim, 'sub');
        NEW.keys           := coalesce(NEW.keys, '[]');
    END IF;

    broken := CASE
        WHEN NOT tiergate.is_name(NEW.name) THEN 'issuers_name'
        WHEN NEW.audiences IS NOT NULL AND NOT (cardinality(NEW.audiences) BETWEEN 1 AND 16
                                                AND tiergate.are_tokens(NEW.audiences, 256)) THEN 'issuers_audiences'
        WHEN NEW.ref IS NOT NULL THEN CASE
            WHEN NEW.tenant IS NULL
                 OR num_nonnulls(NEW.issuer, NEW.algorithms, NEW.leeway, NEW.consumer_claim, NEW.jwks_uri,
                                 NEW.keys) > 0 THEN 'issuers_ref' END
        WHEN NEW.issuer IS NULL THEN 'issuers_own'
        WHEN octet_length(NEW.issuer) NOT BETWEEN 1 AND 512 OR NEW.issuer ~ '[\x01-\x20\x7f]' THEN 'issuers_issuer'
        WHEN cardinality(NEW.algorithms) = 0 OR array_ndims(NEW.algorithms) > 1 OR NOT NEW.algorithms <@
             '{RS256,RS384,RS512,PS256,PS384,PS512,ES256,ES384,ES512,HS256,HS384,HS512,EdDSA}' THEN 'issuers_algorithms'
        WHEN NEW.leeway NOT BETWEEN 0 AND 300 THEN 'issuers_leeway'
        WHEN octet_length(NEW.consumer_claim) NOT BETWEEN 1 AND 128
             OR NEW.consumer_claim ~ '[\x01-\x1f\x7f]' THEN 'issuers_claim'
        WHEN octet_length(NEW.jwks_uri) > 2048 OR NEW.jwks_uri !~ '^https?://[!-~]+$' THEN 'issuers_jwks_uri'
        WHEN NEW.jwks_uri ~ '^http:' AND tiergate.setting('jwks.allow_http') IS DISTINCT FROM 'true' THEN 'issuers_insecure'
        WHEN jsonb_typeof(NEW.keys) <> 'array' THEN 'issuers_keys'
        WHEN NEW.keys = '[]' AND NEW.jwks_uri IS NULL THEN 'issuers_keyless'
        END;
    IF broken IS NOT NULL THEN
        PERFORM tiergate.refuse_row(broken, NEW.name);
    END IF;

    IF NEW.ref IS NOT NULL THEN
        PERFORM pg_advisory_xact_lock_shared(hashtextextended('tiergate.issuer', NEW.ref));
        IF NOT EXISTS (SELECT FROM tiergate.issuers i
                        WHERE i.id = NEW.ref AND i.tenant IS NULL AND i.ref IS NULL) THEN
            PERFORM tiergate.refuse_row('issuers_unknown', NEW.name);
        END IF;
    ELSIF NEW.keys <> '[]' THEN
        PERFORM tiergate.refuse_excess('keys_per_issuer', jsonb_array_length(NEW.keys));
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
    'Trigger: what an issuer may be; fills in defaults, checks what it refers to and the shape of its keys';

CREATE TRIGGER issuers_check BEFORE INSERT OR UPDATE ON tiergate.issuers
    FOR EACH ROW EXECUTE FUNCTION tiergate.check_issuer();


-- Who deletes an issuer waits for those who are about to refer to it.
CREATE FUNCTION tiergate.keep_used_issuer()
RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('tiergate.issuer', OLD.id));
    IF EXISTS (SELECT FROM tiergate.issuers i WHERE i.ref = OLD.id) THEN
        PERFORM tiergate.refuse_row('issuers_in_use', OLD.name);
    END IF;
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION tiergate.keep_used_issuer() IS
    'Trigger: an issuer of the platform that tenants refer to is not deleted';

CREATE TRIGGER issuers_keep_used AFTER DELETE ON tiergate.issuers
    FOR EACH ROW WHEN (OLD.tenant IS NULL) EXECUTE FUNCTION tiergate.keep_used_issuer();


CREATE FUNCTION tiergate.check_consumer()
RETURNS trigger
LANGUAGE plpgsql
AS $$
DECLARE
    broken text := CASE
        WHEN NOT tiergate.is_consumer(NEW.name)  THEN 'consumers_name'
        WHEN NOT tiergate.are_labels(NEW.labels) THEN 'consumers_labels'
        END;
BEGIN
    IF broken IS NOT NULL THEN
        PERFORM tiergate.refuse_row(broken, NEW.name);
    END IF;
    RETURN NEW;
END
$$;

COMMENT ON FUNCTION tiergate.check_consumer() IS 'Trigger: what a consumer may be';

CREATE TRIGGER consumers_check BEFORE INSERT OR UPDATE ON tiergate.consumers
    FOR EACH ROW EXECUTE FUNCTION tiergate.check_consumer();


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


CREATE FUNCTION tiergate.check_api_key()
RETURNS trigger
LANGUAGE plpgsql
AS $$
DECLARE
    broken text := CASE
        WHEN NOT tiergate.is_consumer(NEW.consumer) THEN 'api_keys_consumer'
        WHEN NEW.scopes IS NOT NULL AND NOT (cardinality(NEW.scopes) <= 64
                                             AND tiergate.are_tokens(NEW.scopes, 128)) THEN 'api_keys_scopes'
        WHEN octet_length(NEW.sha256) <> 32         THEN 'api_keys_sha256'
        WHEN NOT isfinite(NEW.expires_at)           THEN 'api_keys_expires'
        END;
BEGIN
    IF broken IS NOT NULL THEN
        PERFORM tiergate.refuse_row(broken, NEW.consumer);
    END IF;
    RETURN NEW;
END
$$;

COMMENT ON FUNCTION tiergate.check_api_key() IS 'Trigger: what an API key may be';

CREATE TRIGGER api_keys_check BEFORE INSERT OR UPDATE ON tiergate.api_keys
    FOR EACH ROW EXECUTE FUNCTION tiergate.check_api_key();


CREATE FUNCTION tiergate.check_upstream()
RETURNS trigger
LANGUAGE plpgsql
AS $$
DECLARE
    broken text := CASE
        WHEN NOT tiergate.is_name(NEW.name)                      THEN 'upstreams_name'
        WHEN octet_length(NEW.host) > 255
             OR NEW.host !~ '^[-A-Za-z0-9._]+(:[0-9]{1,5})?$'    THEN 'upstreams_host'
        WHEN NEW.max_outstanding NOT BETWEEN 0 AND 1000000       THEN 'upstreams_outstanding'
        WHEN NEW.max_fails NOT BETWEEN 0 AND 1000                THEN 'upstreams_max_fails'
        WHEN NEW.fail_timeout_ms NOT BETWEEN 100 AND 3600000     THEN 'upstreams_fail_timeout'
        WHEN NEW.slow_start_ms NOT BETWEEN 0 AND 3600000         THEN 'upstreams_slow_start'
        END;
BEGIN
    IF broken IS NOT NULL THEN
        PERFORM tiergate.refuse_row(broken, NEW.name);
    END IF;
    RETURN NEW;
END
$$;

COMMENT ON FUNCTION tiergate.check_upstream() IS 'Trigger: what an upstream may be';

CREATE TRIGGER upstreams_check BEFORE INSERT OR UPDATE ON tiergate.upstreams
    FOR EACH ROW EXECUTE FUNCTION tiergate.check_upstream();


CREATE FUNCTION tiergate.check_endpoint()
RETURNS trigger
LANGUAGE plpgsql
AS $$
DECLARE
    broken text := CASE
        WHEN masklen(NEW.address) <> CASE family(NEW.address) WHEN 4 THEN 32 ELSE 128 END THEN 'endpoints_address'
        WHEN NEW.port NOT BETWEEN 1 AND 65535              THEN 'endpoints_port'
        WHEN NEW.weight NOT BETWEEN 0 AND 1000000          THEN 'endpoints_weight'
        END;
BEGIN
    IF broken IS NOT NULL THEN
        PERFORM tiergate.refuse_row(broken, host(NEW.address));
    END IF;
    RETURN NEW;
END
$$;

COMMENT ON FUNCTION tiergate.check_endpoint() IS 'Trigger: an endpoint is an address with port';

CREATE TRIGGER endpoints_check BEFORE INSERT OR UPDATE ON tiergate.endpoints
    FOR EACH ROW EXECUTE FUNCTION tiergate.check_endpoint();


-- By the statement: reading the networks costs more than comparing with them.
CREATE FUNCTION tiergate.check_addresses()
RETURNS trigger
LANGUAGE plpgsql
AS $$
DECLARE
    outside inet;
BEGIN
    WITH networks AS MATERIALIZED (
        SELECT s.name = 'endpoints.allow' AS allow, n::inet AS network
          FROM tiergate.settings s, jsonb_array_elements_text(s.value) n
         WHERE s.name IN ('endpoints.allow', 'endpoints.deny')
    )
    SELECT r.address INTO outside
      FROM new_rows r
     WHERE (SELECT bool_and(n.allow) FROM networks n WHERE r.address <<= n.network) IS NOT TRUE
     LIMIT 1;
    IF FOUND THEN
        PERFORM tiergate.refuse_row('endpoints_policy', host(outside));
    END IF;
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION tiergate.check_addresses() IS
    'Trigger: endpoints lie where settings endpoints.allow and endpoints.deny let them';

CREATE TRIGGER endpoints_check_insert AFTER INSERT ON tiergate.endpoints REFERENCING NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION tiergate.check_addresses();
CREATE TRIGGER endpoints_check_update AFTER UPDATE ON tiergate.endpoints REFERENCING NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION tiergate.check_addresses();


CREATE FUNCTION tiergate.sorted(list text[])
RETURNS text[]
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT array_agg(DISTINCT l ORDER BY l) FROM unnest(list) l
$$;

COMMENT ON FUNCTION tiergate.sorted(text[]) IS 'The array as a set: sorted, each element once';


CREATE FUNCTION tiergate.check_route()
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

    -- the same path under the same conditions leaves open which of two is meant
    PERFORM FROM tiergate.routes r
      WHERE r.tenant = NEW.tenant AND r.path = NEW.path AND r.path_type = NEW.path_type
        AND r.name <> NEW.name AND r.id <> NEW.id
        AND r.headers IS NOT DISTINCT FROM NEW.headers
        AND CASE WHEN r.methods IS NULL OR NEW.methods IS NULL THEN r.methods IS NULL AND NEW.methods IS NULL
                 ELSE r.methods && NEW.methods END
        AND CASE WHEN r.hosts IS NULL OR NEW.hosts IS NULL THEN r.hosts IS NULL AND NEW.hosts IS NULL
                 ELSE r.hosts && NEW.hosts END;
    IF FOUND THEN
        PERFORM tiergate.refuse_row('routes_rival', NEW.name);
    END IF;
    RETURN NEW;
END
$$;

COMMENT ON FUNCTION tiergate.check_route() IS
    'Trigger: what a route may be; it overlaps no other route of its tenant';

CREATE TRIGGER routes_check BEFORE INSERT OR UPDATE ON tiergate.routes
    FOR EACH ROW EXECUTE FUNCTION tiergate.check_route();


-- Upstreams are named inside jsonb, so the two halves of a foreign key are
-- written out: a route locks the upstreams that it names as a foreign key would,
-- and an upstream that is named cannot go.

CREATE FUNCTION tiergate.check_backends()
RETURNS trigger
LANGUAGE plpgsql
AS $$
DECLARE
    sound  jsonb := '[]';
    total  bigint := 0;
    b      jsonb;
BEGIN
    FOR nth IN 0 .. jsonb_array_length(NEW.backends) - 1 LOOP
        b := NEW.backends->nth;
        IF (jsonb_typeof(b) = 'object' AND b - '{upstream,weight}'::text[] = '{}'
            AND jsonb_typeof(b->'upstream') = 'string'
            AND coalesce(b->>'weight', '1') ~ '^([0-9]{1,6}|1000000)$') IS NOT TRUE THEN
            PERFORM tiergate.refuse_row('routes_backends', NEW.name);
        END IF;

        PERFORM FROM tiergate.upstreams u
          WHERE u.tenant = NEW.tenant AND u.name = b->>'upstream' FOR KEY SHARE;
        IF NOT FOUND THEN
            PERFORM tiergate.refuse(422, 'unknown-upstream', '/backends/' || nth || '/upstream',
                format('route "%s" names upstream "%s", which its tenant does not have', NEW.name, b->>'upstream'),
                'make the upstream first');
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
    'Trigger: a route goes to upstreams of its tenant, by weight';

-- fires after routes_check, by name
CREATE TRIGGER routes_check_backends BEFORE INSERT OR UPDATE ON tiergate.routes
    FOR EACH ROW WHEN (NEW.backends IS NOT NULL) EXECUTE FUNCTION tiergate.check_backends();


CREATE FUNCTION tiergate.keep_used_upstream()
RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
    PERFORM FROM tiergate.routes r
      WHERE r.tenant = OLD.tenant AND r.backends @> jsonb_build_array(jsonb_build_object('upstream', OLD.name))
        AND EXISTS (SELECT FROM tiergate.tenants t WHERE t.name = OLD.tenant);
    IF FOUND THEN
        PERFORM tiergate.refuse_row('upstreams_in_use', OLD.name);
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

-- UPDATE quotas SET requests = 100 WHERE tenant = 'acme' shall do what it says
-- even if acme has quotas of other metrics beside: those keep what they have.
CREATE FUNCTION tiergate.check_quota()
RETURNS trigger
LANGUAGE plpgsql
AS $$
DECLARE
    broken text;
BEGIN
    IF TG_OP = 'INSERT' THEN
        IF NEW.metric = 'requests' AND NEW.requests IS NULL THEN
            NEW.metric := CASE WHEN NEW.concurrency IS NOT NULL THEN 'concurrency'
                               WHEN NEW.body_size IS NOT NULL THEN 'body_size' ELSE NEW.metric END;
        END IF;
        IF NEW.name IS NULL THEN
            NEW.name := tiergate.quota_name(NEW.metric, NEW.per, NEW.route, NEW.consumer);
        END IF;
    ELSIF NEW.metric = OLD.metric AND OLD.metric <> 'requests' AND NEW.requests IS NOT NULL THEN
        RAISE NOTICE 'quota "%" of tenant "%" counts %, not requests: left as it was',
            OLD.name, OLD.tenant, OLD.metric;
        NEW.requests := NULL;
        NEW.per      := OLD.per;
        NEW.burst    := OLD.burst;
    END IF;

    broken := CASE
        WHEN NOT tiergate.is_name(NEW.name) THEN 'quotas_name'
        WHEN NOT tiergate.is_consumer(NEW.consumer) THEN 'quotas_consumer'
        WHEN NEW.metric NOT IN ('requests', 'concurrency', 'body_size') THEN 'quotas_metric'
        WHEN CASE NEW.metric
                 WHEN 'requests'    THEN num_nulls(NEW.requests, NEW.per) > 0
                                         OR num_nonnulls(NEW.concurrency, NEW.body_size) > 0
                 WHEN 'concurrency' THEN NEW.concurrency IS NULL
                                         OR num_nonnulls(NEW.requests, NEW.per, NEW.burst, NEW.body_size) > 0
                 ELSE                    NEW.body_size IS NULL
                                         OR num_nonnulls(NEW.requests, NEW.per, NEW.burst, NEW.concurrency) > 0
                 END THEN 'quotas_limit'
        WHEN NEW.requests NOT BETWEEN 1 AND 1000000000000 OR NEW.concurrency NOT BETWEEN 1 AND 1000000
             OR NEW.body_size NOT BETWEEN 0 AND 1099511627776 THEN 'quotas_range'
        WHEN NEW.per IS NOT NULL AND tiergate.quota_window(NEW.per) IS NULL THEN 'quotas_per'
        WHEN NEW.burst IS NOT NULL AND (NEW.burst NOT BETWEEN 0 AND 1000000000
                                        OR tiergate.quota_window(NEW.per) IN ('day', 'month')) THEN 'quotas_burst'
        END;
    IF broken IS NOT NULL THEN
        PERFORM tiergate.refuse_row(broken, NEW.name);
    END IF;
    RETURN NEW;
END
$$;

COMMENT ON FUNCTION tiergate.check_quota() IS
    'Trigger: what a quota may be; names it, and keeps limits of another metric out of it';

CREATE TRIGGER quotas_check BEFORE INSERT OR UPDATE ON tiergate.quotas
    FOR EACH ROW EXECUTE FUNCTION tiergate.check_quota();


CREATE FUNCTION tiergate.check_gateway()
RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
    IF NOT tiergate.is_name(NEW.name) THEN
        PERFORM tiergate.refuse_row('gateways_name', NEW.name);
    END IF;
    RETURN NEW;
END
$$;

COMMENT ON FUNCTION tiergate.check_gateway() IS 'Trigger: what a gateway may be called';

CREATE TRIGGER gateways_check BEFORE INSERT ON tiergate.gateways
    FOR EACH ROW EXECUTE FUNCTION tiergate.check_gateway();


CREATE FUNCTION tiergate.check_setting()
RETURNS trigger
LANGUAGE plpgsql
AS $$
DECLARE
    word  text := NEW.value #>> '{}';
    sound boolean;
    wants text;
BEGIN
    IF NEW.name <> OLD.name THEN
        PERFORM tiergate.refuse(422, 'name-immutable', '/name', 'settings are not renamed', '');
    END IF;

    -- who makes changes must not be able to forget them
    IF NEW.name = 'audit.retention' AND NOT pg_has_role(
           (SELECT c.relowner FROM pg_class c WHERE c.oid = 'tiergate.audit'::regclass), 'USAGE') THEN
        PERFORM tiergate.refuse(403, 'audit-immutable', '/value',
                                'only the owner of the registry decides how long the audit is kept', '');
    END IF;

    wants := CASE
        WHEN NEW.name LIKE 'endpoints.%'   THEN 'an array of networks: ["10.0.0.0/8", "fd00::/8"]'
        WHEN NEW.name = 'audit.retention'  THEN '"forever", or an interval of at most a thousand years: "400 days"'
        WHEN NEW.name LIKE '%.retention'   THEN 'an interval of at most a thousand years: "24 hours"'
        WHEN NEW.name LIKE '%\_seconds'    THEN 'a whole number from 10 to 86400'
        ELSE 'true or false' END;
    BEGIN
        sound := CASE
            WHEN NEW.name LIKE 'endpoints.%' THEN
                CASE WHEN jsonb_typeof(NEW.value) = 'array' THEN
                    (SELECT coalesce(bool_and(n::inet IS NOT NULL), true) FROM jsonb_array_elements_text(NEW.value) n) END
            WHEN NEW.name = 'audit.retention' AND NEW.value = '"forever"' THEN true
            WHEN NEW.name LIKE '%.retention' THEN
                jsonb_typeof(NEW.value) = 'string' AND word::interval BETWEEN '0' AND '1000 years'
            WHEN NEW.name LIKE '%\_seconds' THEN
                jsonb_typeof(NEW.value) = 'number' AND word::numeric BETWEEN 10 AND 86400 AND word::numeric % 1 = 0
            ELSE jsonb_typeof(NEW.value) = 'boolean' END;
    EXCEPTION WHEN data_exception THEN
        sound := false;
    END;

    IF sound IS NOT TRUE THEN
        PERFORM tiergate.refuse(422, 'invalid-setting', '/value',
                                format('setting "%s" cannot be %s', NEW.name, left(NEW.value::text, 100)),
                                'write ' || wants);
    END IF;
    RETURN NEW;
END
$$;

COMMENT ON FUNCTION tiergate.check_setting() IS
    'Trigger: a setting has a value that its readers can use';

CREATE TRIGGER settings_check BEFORE UPDATE ON tiergate.settings
    FOR EACH ROW EXECUTE FUNCTION tiergate.check_setting();


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
