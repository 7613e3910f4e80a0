-- SPDX-License-Identifier: BSD-2-Clause
--
-- What rows may hold.  The rules are triggers, so that plain INSERT and UPDATE
-- obey them as REST does.  A refusal names the field with a JSON pointer relative
-- to the row's REST object; whoever handles a larger body puts the rest in front.
--
-- Invariant: body_problems() is no stricter than these triggers.

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
    IF NOT tiergate.is_label(NEW.name) THEN
        PERFORM tiergate.refuse(422, 'invalid-label', '/name',
            format('tenant name "%s" is no DNS label', left(NEW.name, 100)),
            'use lower-case letters, digits and inner hyphens, at most 63');
    END IF;
    IF NEW.state NOT IN ('active', 'suspended') THEN
        PERFORM tiergate.refuse(422, 'unknown-value', '/state',
            format('state "%s" is not known', NEW.state), 'use active or suspended');
    END IF;
    IF octet_length(NEW.reason) > 200 THEN
        PERFORM tiergate.refuse(422, 'wrong-length', '/reason', 'reason has more than 200 bytes');
    END IF;
    IF octet_length(NEW.display_name) > 200 THEN
        PERFORM tiergate.refuse(422, 'wrong-length', '/display_name', 'display_name has more than 200 bytes');
    END IF;
    IF NOT tiergate.are_labels(NEW.labels) THEN
        PERFORM tiergate.refuse(422, 'invalid-labels', '/labels',
                                'labels is no object of strings, or has more than 16384 bytes');
    END IF;
    IF (NEW.boost_factor IS NULL) <> (NEW.boost_until IS NULL) THEN
        PERFORM tiergate.refuse(422, 'invalid-boost', '/boost', 'a boost needs both a factor and an end');
    END IF;
    IF NEW.boost_factor <= 0 OR NEW.boost_factor > 1000 THEN
        PERFORM tiergate.refuse(422, 'out-of-range', '/boost/factor',
            format('boost factor %s does not lie above 0 and at most at 1000', NEW.boost_factor));
    END IF;
    IF NEW.state = 'active' THEN
        NEW.reason := NULL;
    END IF;
    RETURN NEW;
END
$$;

COMMENT ON FUNCTION tiergate.check_tenant() IS 'Trigger: what a tenant may be';

CREATE TRIGGER tenants_check BEFORE INSERT OR UPDATE ON tiergate.tenants
    FOR EACH ROW EXECUTE FUNCTION tiergate.check_tenant();


-- Hosts.  The primary key settles who owns a name.  A name below another
-- tenant's wildcard would take requests from it, so that is refused too: at once
-- for the usual case, and again at commit, under the revision lock, for two
-- transactions that could not see each other.

CREATE FUNCTION tiergate.host_rival(host text, tenant text)
RETURNS text
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    rest  text := host;
    rival text;
    below text;
BEGIN
    WHILE strpos(rest, '.') > 0 LOOP
        rest := substr(rest, strpos(rest, '.') + 1);
        SELECT h.host INTO rival FROM tiergate.hosts h
         WHERE h.host = '*.' || rest AND h.tenant <> host_rival.tenant;
        IF FOUND THEN
            RETURN rival;
        END IF;
    END LOOP;
    IF left(host, 2) = '*.' THEN
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
LANGUAGE plpgsql
AS $$
BEGIN
    IF TG_WHEN = 'AFTER' THEN
        PERFORM tiergate.lock_revision();
    ELSIF NOT tiergate.is_hostname(NEW.host) THEN
        PERFORM tiergate.refuse(422, 'invalid-hostname', '',
            format('hostname "%s" %s', left(NEW.host, 100), tiergate.format_problem('hostname', NEW.host)));
    ELSIF strpos(NEW.host, '.') = 0
          AND tiergate.setting('hosts.allow_single_label') IS DISTINCT FROM 'true' THEN
        PERFORM tiergate.refuse(422, 'invalid-hostname', '',
            format('hostname "%s" has one label only, which no public name has', NEW.host),
            'give the full name, or set hosts.allow_single_label');
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
    'Trigger: a host is a hostname, and does not overlap a wildcard of another tenant';

CREATE TRIGGER hosts_check BEFORE INSERT OR UPDATE ON tiergate.hosts
    FOR EACH ROW EXECUTE FUNCTION tiergate.check_host();
CREATE CONSTRAINT TRIGGER hosts_check_commit AFTER INSERT OR UPDATE ON tiergate.hosts
    DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION tiergate.check_host();


CREATE FUNCTION tiergate.check_issuer()
RETURNS trigger
LANGUAGE plpgsql
AS $$
DECLARE
    k record;
BEGIN
    IF NOT tiergate.is_name(NEW.name) THEN
        PERFORM tiergate.refuse(422, 'invalid-name', '/name',
            format('issuer name "%s" is no name', left(NEW.name, 100)),
            'use lower-case letters, digits and inner -._, at most 63');
    END IF;
    IF NEW.audiences IS NOT NULL
       AND NOT (cardinality(NEW.audiences) BETWEEN 1 AND 16 AND tiergate.are_tokens(NEW.audiences, 256)) THEN
        PERFORM tiergate.refuse(422, 'invalid-audiences', '/audiences',
            format('audiences of issuer "%s" are not 1 to 16 strings of 1 to 256 bytes without blanks', NEW.name));
    END IF;

    IF NEW.ref IS NOT NULL THEN
        IF NEW.tenant IS NULL
           OR num_nonnulls(NEW.issuer, NEW.algorithms, NEW.leeway, NEW.consumer_claim, NEW.jwks_uri, NEW.keys) > 0 THEN
            PERFORM tiergate.refuse(422, 'invalid-reference', '/ref',
                format('issuer "%s" refers to one of the platform: only audiences may be set beside', NEW.name));
        END IF;
        IF NOT EXISTS (SELECT FROM tiergate.issuers i
                        WHERE i.id = NEW.ref AND i.tenant IS NULL AND i.ref IS NULL) THEN
            PERFORM tiergate.refuse(422, 'unknown-issuer', '/ref',
                format('issuer "%s" refers to an issuer that the platform does not have', NEW.name),
                'list the issuers of the platform with GET /v1/issuers');
        END IF;
        RETURN NEW;
    END IF;

    NEW.algorithms     := coalesce(NEW.algorithms, '{RS256,ES256}');
    NEW.leeway         := coalesce(NEW.leeway, 60);
    NEW.consumer_claim := coalesce(NEW.consumer_claim, 'sub');
    NEW.keys           := coalesce(NEW.keys, '[]');

    IF NEW.issuer IS NULL THEN
        PERFORM tiergate.refuse(422, 'missing-field', '/issuer',
            format('issuer "%s" has no issuer, the iss claim of its tokens', NEW.name),
            'give issuer, or ref to refer to an issuer of the platform');
    END IF;
    IF octet_length(NEW.issuer) NOT BETWEEN 1 AND 512 OR NEW.issuer ~ '[\x01-\x20\x7f]' THEN
        PERFORM tiergate.refuse(422, 'invalid-issuer', '/issuer',
            format('the iss claim of issuer "%s" has not 1 to 512 bytes without blanks', NEW.name));
    END IF;
    IF cardinality(NEW.algorithms) = 0 OR NOT NEW.algorithms <@
           '{RS256,RS384,RS512,PS256,PS384,PS512,ES256,ES384,ES512,HS256,HS384,HS512,EdDSA}' THEN
        PERFORM tiergate.refuse(422, 'unknown-value', '/algorithms',
            format('issuer "%s" has an algorithm that is not known', NEW.name),
            'use RS, PS, ES or HS with 256, 384 or 512, or EdDSA');
    END IF;
    IF NEW.leeway NOT BETWEEN 0 AND 300 THEN
        PERFORM tiergate.refuse(422, 'out-of-range', '/leeway',
            format('leeway of issuer "%s" does not lie between 0 and 300 seconds', NEW.name));
    END IF;
    IF octet_length(NEW.consumer_claim) NOT BETWEEN 1 AND 128 THEN
        PERFORM tiergate.refuse(422, 'wrong-length', '/consumer_claim',
            format('consumer_claim of issuer "%s" has not 1 to 128 bytes', NEW.name));
    END IF;
    IF octet_length(NEW.jwks_uri) > 2048 OR NEW.jwks_uri !~ '^https?://[!-~]+$' THEN
        PERFORM tiergate.refuse(422, 'invalid-jwks_uri', '/jwks_uri',
            format('jwks_uri of issuer "%s" is no http or https URL of at most 2048 bytes', NEW.name));
    END IF;
    IF jsonb_typeof(NEW.keys) <> 'array' THEN
        PERFORM tiergate.refuse(422, 'wrong-type', '/jwks/keys',
            format('keys of issuer "%s" is no array', NEW.name));
    END IF;
    IF NEW.keys = '[]' AND NEW.jwks_uri IS NULL THEN
        PERFORM tiergate.refuse(422, 'missing-field', '/jwks',
            format('issuer "%s" has neither keys nor a jwks_uri', NEW.name),
            'give jwks with its keys, or the jwks_uri where they are');
    END IF;

    IF NEW.jwks_uri ~ '^http:' AND tiergate.setting('jwks.allow_http') IS DISTINCT FROM 'true' THEN
        PERFORM tiergate.refuse(422, 'insecure-uri', '/jwks_uri',
            format('jwks_uri "%s" is not https', NEW.jwks_uri), 'use https, or set jwks.allow_http');
    END IF;

    IF NEW.keys <> '[]' THEN
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


CREATE FUNCTION tiergate.check_consumer()
RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
    IF NOT tiergate.is_consumer(NEW.name) THEN
        PERFORM tiergate.refuse(422, 'invalid-consumer', '/name',
            format('consumer "%s" has not 1 to 128 visible ASCII characters', left(NEW.name, 200)));
    END IF;
    IF NOT tiergate.are_labels(NEW.labels) THEN
        PERFORM tiergate.refuse(422, 'invalid-labels', '/labels',
                                'labels is no object of strings, or has more than 16384 bytes');
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
BEGIN
    IF NOT tiergate.is_consumer(NEW.consumer) THEN
        PERFORM tiergate.refuse(422, 'invalid-consumer', '/consumer',
            format('consumer "%s" has not 1 to 128 visible ASCII characters', left(NEW.consumer, 200)));
    END IF;
    IF NEW.scopes IS NOT NULL
       AND NOT (cardinality(NEW.scopes) <= 64 AND tiergate.are_tokens(NEW.scopes, 128)) THEN
        PERFORM tiergate.refuse(422, 'invalid-scopes', '/scopes',
            'scopes are not at most 64 strings of 1 to 128 bytes without blanks');
    END IF;
    IF octet_length(NEW.sha256) <> 32 THEN
        PERFORM tiergate.refuse(422, 'invalid-sha256', '/sha256', 'sha256 has not 32 bytes');
    END IF;
    IF NEW.expires_at IS NOT NULL AND NOT isfinite(NEW.expires_at) THEN
        PERFORM tiergate.refuse(422, 'invalid-time', '/expires_at', 'expires_at is no finite time');
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
BEGIN
    IF NOT tiergate.is_name(NEW.name) THEN
        PERFORM tiergate.refuse(422, 'invalid-name', '/name',
            format('upstream name "%s" is no name', left(NEW.name, 100)),
            'use lower-case letters, digits and inner -._, at most 63');
    END IF;
    IF octet_length(NEW.host) > 255 OR NEW.host !~ '^[-A-Za-z0-9._]+(:[0-9]{1,5})?$' THEN
        PERFORM tiergate.refuse(422, 'invalid-authority', '/host',
            format('host of upstream "%s" is no host for a Host header', NEW.name),
            'use a hostname, with :port if need be');
    END IF;
    IF NEW.max_outstanding NOT BETWEEN 0 AND 1000000 THEN
        PERFORM tiergate.refuse(422, 'out-of-range', '/max_outstanding',
            format('max_outstanding of upstream "%s" does not lie between 0 and 1000000', NEW.name));
    END IF;
    IF NEW.max_fails NOT BETWEEN 0 AND 1000 THEN
        PERFORM tiergate.refuse(422, 'out-of-range', '/health/max_fails',
            format('max_fails of upstream "%s" does not lie between 0 and 1000', NEW.name));
    END IF;
    IF NEW.fail_timeout_ms NOT BETWEEN 100 AND 3600000 THEN
        PERFORM tiergate.refuse(422, 'out-of-range', '/health/fail_timeout_ms',
            format('fail_timeout_ms of upstream "%s" does not lie between 100 and 3600000', NEW.name));
    END IF;
    IF NEW.slow_start_ms NOT BETWEEN 0 AND 3600000 THEN
        PERFORM tiergate.refuse(422, 'out-of-range', '/health/slow_start_ms',
            format('slow_start_ms of upstream "%s" does not lie between 0 and 3600000', NEW.name));
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
BEGIN
    IF masklen(NEW.address) <> (CASE family(NEW.address) WHEN 4 THEN 32 ELSE 128 END) THEN
        PERFORM tiergate.refuse(422, 'invalid-address', '/address',
            format('address %s is a network, not an address', NEW.address));
    END IF;
    IF NEW.port NOT BETWEEN 1 AND 65535 THEN
        PERFORM tiergate.refuse(422, 'out-of-range', '/port',
            format('port %s does not lie between 1 and 65535', NEW.port));
    END IF;
    IF NEW.weight NOT BETWEEN 0 AND 1000000 THEN
        PERFORM tiergate.refuse(422, 'out-of-range', '/weight',
            format('weight %s does not lie between 0 and 1000000', NEW.weight));
    END IF;
    IF NEW.address IS NOT NULL AND NOT (
            SELECT bool_or(s.name = 'endpoints.allow') AND NOT bool_or(s.name = 'endpoints.deny')
              FROM tiergate.settings s, jsonb_array_elements_text(s.value) n
             WHERE s.name IN ('endpoints.allow', 'endpoints.deny') AND NEW.address <<= n::inet) IS TRUE THEN
        PERFORM tiergate.refuse(422, 'address-refused', '/address',
            format('address %s is not one that upstreams may have', host(NEW.address)),
            'settings endpoints.allow and endpoints.deny say which networks may be used');
    END IF;
    RETURN NEW;
END
$$;

COMMENT ON FUNCTION tiergate.check_endpoint() IS
    'Trigger: an endpoint is an address with port, where settings endpoints.allow and endpoints.deny let it be';

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

CREATE FUNCTION tiergate.check_route_match()
RETURNS trigger
LANGUAGE plpgsql
AS $$
DECLARE
    rival text;
BEGIN
    IF NEW.path_type NOT IN ('exact', 'prefix', 'regex') THEN
        PERFORM tiergate.refuse(422, 'unknown-value', '/match/path/type',
            format('path type "%s" of route "%s" is not known', NEW.path_type, NEW.name),
            'use exact, prefix or regex');
    END IF;
    IF octet_length(NEW.path) NOT BETWEEN 1 AND 512 OR NEW.path ~ '[\x01-\x20\x7f]'
       OR (NEW.path_type <> 'regex' AND (left(NEW.path, 1) <> '/' OR NEW.path ~ '//|[?#\\]|/\.\.?(/|$)')) THEN
        PERFORM tiergate.refuse(422, 'invalid-path', '/match/path/value',
            format('path "%s" of route "%s" is not one that a request could have', left(NEW.path, 100), NEW.name),
            'write 1 to 512 bytes that begin with /, without blanks, ?, #, backslash, // and dot segments');
    END IF;

    IF NEW.methods IS NOT NULL THEN
        IF NOT (cardinality(NEW.methods) BETWEEN 1 AND 16 AND tiergate.are_methods(NEW.methods)) THEN
            PERFORM tiergate.refuse(422, 'invalid-method', '/match/methods',
                format('methods of route "%s" are not 1 to 16 request methods in capital letters', NEW.name));
        END IF;
        NEW.methods := tiergate.sorted(NEW.methods);
    END IF;
    IF NEW.hosts IS NOT NULL THEN
        IF NOT (cardinality(NEW.hosts) BETWEEN 1 AND 16 AND tiergate.are_hostnames(NEW.hosts)) THEN
            PERFORM tiergate.refuse(422, 'invalid-hostname', '/match/hosts',
                format('hosts of route "%s" are not 1 to 16 hostnames', NEW.name));
        END IF;
        NEW.hosts := tiergate.sorted(NEW.hosts);
    END IF;
    IF NEW.headers IS NOT NULL AND NOT tiergate.are_headers(NEW.headers) THEN
        PERFORM tiergate.refuse(422, 'invalid-header', '/match/headers',
            format('headers of route "%s" are not 1 to 16 of {name, type, value}', NEW.name),
            'type is exact or regex');
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

COMMENT ON FUNCTION tiergate.check_route_match() IS
    'Trigger: what a route may match; it overlaps no other route';


CREATE FUNCTION tiergate.check_route()
RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
    IF NOT tiergate.is_name(NEW.name) THEN
        PERFORM tiergate.refuse(422, 'invalid-name', '/name',
            format('route name "%s" is no name', left(NEW.name, 100)),
            'use lower-case letters, digits and inner -._, at most 63');
    END IF;
    IF NEW.auth NOT IN ('required', 'optional', 'none') THEN
        PERFORM tiergate.refuse(422, 'unknown-value', '/auth/mode',
            format('auth "%s" of route "%s" is not known', NEW.auth, NEW.name), 'use required, optional or none');
    END IF;
    IF cardinality(NEW.auth_methods) = 0 OR NOT NEW.auth_methods <@ '{jwt,api_key}' THEN
        PERFORM tiergate.refuse(422, 'unknown-value', '/auth/methods',
            format('auth methods of route "%s" are not jwt and api_key', NEW.name));
    END IF;
    IF NEW.scopes IS NOT NULL
       AND NOT (cardinality(NEW.scopes) <= 64 AND tiergate.are_tokens(NEW.scopes, 128)) THEN
        PERFORM tiergate.refuse(422, 'invalid-scopes', '/auth/scopes',
            format('scopes of route "%s" are not at most 64 strings of 1 to 128 bytes without blanks', NEW.name));
    END IF;
    IF NEW.claims IS NOT NULL AND NOT tiergate.are_claims(NEW.claims) THEN
        PERFORM tiergate.refuse(422, 'invalid-claims', '/auth/claims',
            format('claims of route "%s" are not at most 16 of {name, values}, with 1 to 64 values each', NEW.name));
    END IF;

    IF NEW.rewrite NOT IN ('strip_prefix', 'replace_prefix', 'replace_path') THEN
        PERFORM tiergate.refuse(422, 'unknown-value', '/rewrite/type',
            format('rewrite "%s" of route "%s" is not known', NEW.rewrite, NEW.name),
            'use strip_prefix, replace_prefix or replace_path');
    END IF;
    IF (CASE WHEN NEW.rewrite IS NULL OR NEW.rewrite = 'strip_prefix' THEN NEW.rewrite_value IS NOT NULL
            ELSE NEW.rewrite_value IS NULL OR left(NEW.rewrite_value, 1) <> '/'
                 OR octet_length(NEW.rewrite_value) > 512 OR NEW.rewrite_value ~ '[\x01-\x20\x7f?#]' END) THEN
        PERFORM tiergate.refuse(422, 'invalid-rewrite', '/rewrite/value',
            format('rewrite value of route "%s" does not go with rewrite "%s"', NEW.name, NEW.rewrite),
            'replace_prefix and replace_path take a path of at most 512 bytes, strip_prefix takes none');
    END IF;
    IF NEW.rewrite IN ('strip_prefix', 'replace_prefix') AND NEW.path_type <> 'prefix' THEN
        PERFORM tiergate.refuse(422, 'invalid-rewrite', '/rewrite/type',
            format('rewrite "%s" of route "%s" needs a path of type prefix', NEW.rewrite, NEW.name));
    END IF;

    IF NEW.sticky NOT IN ('none', 'consumer') THEN
        PERFORM tiergate.refuse(422, 'unknown-value', '/sticky',
            format('sticky "%s" of route "%s" is not known', NEW.sticky, NEW.name), 'use none or consumer');
    END IF;
    IF least(NEW.connect_ms, NEW.send_ms, NEW.read_ms) < 1
       OR greatest(NEW.connect_ms, NEW.send_ms, NEW.read_ms) > 3600000 THEN
        PERFORM tiergate.refuse(422, 'out-of-range', '/timeouts',
            format('a time limit of route "%s" does not lie between 1 and 3600000 milliseconds', NEW.name));
    END IF;
    IF NEW.retries NOT BETWEEN 0 AND 5 THEN
        PERFORM tiergate.refuse(422, 'out-of-range', '/retries',
            format('retries of route "%s" does not lie between 0 and 5', NEW.name));
    END IF;
    RETURN NEW;
END
$$;

COMMENT ON FUNCTION tiergate.check_route() IS 'Trigger: what a route may be';


CREATE FUNCTION tiergate.check_route_backends()
RETURNS trigger
LANGUAGE plpgsql
AS $$
DECLARE
    b     jsonb;
    nth   integer := 0;
    total bigint  := 0;
BEGIN
    IF jsonb_typeof(NEW.backends) <> 'array' OR jsonb_array_length(NEW.backends) NOT BETWEEN 1 AND 16 THEN
        PERFORM tiergate.refuse(422, 'invalid-backend', '/backends',
            format('backends of route "%s" are not 1 to 16 of {upstream, weight}', NEW.name));
    END IF;

    IF NEW.backends IS NOT NULL THEN
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
            IF b->>'weight' IS NULL THEN
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
    RETURN NEW;
END
$$;

COMMENT ON FUNCTION tiergate.check_route_backends() IS
    'Trigger: a route goes to upstreams of its tenant, by weight';

CREATE TRIGGER routes_check BEFORE INSERT OR UPDATE ON tiergate.routes
    FOR EACH ROW EXECUTE FUNCTION tiergate.check_route();
CREATE TRIGGER routes_check_backends BEFORE INSERT OR UPDATE ON tiergate.routes
    FOR EACH ROW EXECUTE FUNCTION tiergate.check_route_backends();
CREATE TRIGGER routes_check_match BEFORE INSERT OR UPDATE ON tiergate.routes
    FOR EACH ROW EXECUTE FUNCTION tiergate.check_route_match();


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

    IF NOT tiergate.is_name(NEW.name) THEN
        PERFORM tiergate.refuse(422, 'invalid-name', '/name',
            format('quota name "%s" is no name', left(NEW.name, 100)),
            'use lower-case letters, digits and inner -._, at most 63');
    END IF;
    IF NOT tiergate.is_consumer(NEW.consumer) THEN
        PERFORM tiergate.refuse(422, 'invalid-consumer', '/consumer',
            format('consumer "%s" has not 1 to 128 visible ASCII characters', left(NEW.consumer, 200)));
    END IF;
    IF NEW.metric NOT IN ('requests', 'concurrency', 'body_size') THEN
        PERFORM tiergate.refuse(422, 'unknown-value', '/metric',
            format('metric "%s" of quota "%s" is not known', NEW.metric, NEW.name),
            'use requests, concurrency or body_size');
    END IF;
    IF (CASE NEW.metric
           WHEN 'requests'    THEN num_nulls(NEW.requests, NEW.per) > 0
                                   OR num_nonnulls(NEW.concurrency, NEW.body_size) > 0
           WHEN 'concurrency' THEN NEW.concurrency IS NULL
                                   OR num_nonnulls(NEW.requests, NEW.per, NEW.burst, NEW.body_size) > 0
           ELSE                    NEW.body_size IS NULL
                                   OR num_nonnulls(NEW.requests, NEW.per, NEW.burst, NEW.concurrency) > 0 END) THEN
        PERFORM tiergate.refuse(422, 'invalid-quota', '',
            format('quota "%s" of metric %s has not what it needs, or what it may not have', NEW.name, NEW.metric),
            'requests takes a limit and a window, and may have a burst; concurrency and body_size take a limit only');
    END IF;
    IF NEW.requests NOT BETWEEN 1 AND 1000000000000 OR NEW.concurrency NOT BETWEEN 1 AND 1000000
       OR NEW.body_size NOT BETWEEN 0 AND 1099511627776 THEN
        PERFORM tiergate.refuse(422, 'out-of-range', '/limit',
            format('limit of quota "%s" is out of range', NEW.name),
            'requests lies between 1 and 10^12, concurrency between 1 and 10^6, body_size between 0 and 2^40');
    END IF;
    IF NEW.per IS NOT NULL AND tiergate.quota_window(NEW.per) IS NULL THEN
        PERFORM tiergate.refuse(422, 'invalid-window', '/window',
            format('window %s of quota "%s" is not one that can be counted', NEW.per, NEW.name),
            'use 1 to 86399 whole seconds, 1 day or 1 month');
    END IF;
    IF NEW.burst IS NOT NULL AND (NEW.burst NOT BETWEEN 0 AND 1000000000
                                  OR tiergate.quota_window(NEW.per) IN ('day', 'month')) THEN
        PERFORM tiergate.refuse(422, 'out-of-range', '/burst',
            format('burst of quota "%s" does not lie between 0 and 10^9, or its window is not in seconds', NEW.name));
    END IF;
    RETURN NEW;
END
$$;

COMMENT ON FUNCTION tiergate.check_quota() IS
    'Trigger: what a quota may be; names it, and keeps limits of another metric out of it';


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


CREATE FUNCTION tiergate.check_gateway()
RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
    IF NOT tiergate.is_name(NEW.name) THEN
        PERFORM tiergate.refuse(422, 'invalid-name', '/name',
            format('gateway name "%s" is no name', left(NEW.name, 100)),
            'use lower-case letters, digits and inner -._, at most 63');
    END IF;
    RETURN NEW;
END
$$;

COMMENT ON FUNCTION tiergate.check_gateway() IS 'Trigger: what a gateway may be called';

CREATE TRIGGER gateways_check BEFORE INSERT ON tiergate.gateways
    FOR EACH ROW EXECUTE FUNCTION tiergate.check_gateway();


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
    ('tenants_tier_fkey',     422, 'unknown-tier',     '/tier', 'there is no tier of this name', 'list the tiers with GET /v1/tiers'),
    ('hosts_pkey',            409, 'host-taken',       '', 'this hostname belongs to a tenant already', 'choose another name'),
    ('issuers_ref_fkey',      409, 'issuer-in-use',    '', 'tenants refer to this issuer', 'remove their references first'),
    ('issuers_tenant_name_key', 409, 'duplicate-name', '/name', 'there is an issuer of this name already', ''),
    ('api_keys_sha256_key',   409, 'duplicate-key',    '/sha256', 'this key is registered already', 'every key must be different'),
    ('routes_match',          409, 'overlapping-route', '/match', 'another route of the tenant matches the same requests', 'tell them apart by path, methods, headers or hosts'),
    ('quotas_same',           409, 'duplicate-quota',  '', NULL, 'change that quota'),
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
