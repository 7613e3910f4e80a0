-- SPDX-License-Identifier: BSD-2-Clause
--
-- Schemas, roles, the list of migrations, settings, limits, and the two helpers
-- that everything else rests on: how a rule is refused, and what a well-formed
-- name looks like.
--
-- Each migration is one transaction and records itself first, so that applying
-- it twice fails before it touches anything.  Plain psql is enough:
--     psql -v ON_ERROR_STOP=1 -f 0001_foundation.sql -f 0002_tables.sql ...

BEGIN;

CREATE SCHEMA tiergate;
CREATE SCHEMA tiergate_api;

COMMENT ON SCHEMA tiergate IS
    'Tiergate registry: tables, views, and the functions that operators call from psql';
COMMENT ON SCHEMA tiergate_api IS
    'One function per REST route; called by tenantd only, holds no rules of its own';

CREATE TABLE tiergate.schema_migrations (
    version    integer     PRIMARY KEY,
    name       text        NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now(),
    checksum   text
);

COMMENT ON TABLE  tiergate.schema_migrations            IS 'Migrations that this database has';
COMMENT ON COLUMN tiergate.schema_migrations.version    IS 'Number in front of the file name';
COMMENT ON COLUMN tiergate.schema_migrations.name       IS 'Rest of the file name';
COMMENT ON COLUMN tiergate.schema_migrations.applied_at IS 'When it was applied';
COMMENT ON COLUMN tiergate.schema_migrations.checksum   IS
    'SHA-256 of the file in hex, filled in by "tenantd migrate"; null when applied by psql';

INSERT INTO tiergate.schema_migrations (version, name) VALUES (1, 'foundation');


-- Roles belong to the cluster, not to the database: another database, or an
-- administrator without CREATEROLE, may have brought them already.
DO $$
DECLARE
    r text;
BEGIN
    FOREACH r IN ARRAY ARRAY['tiergate_admin', 'tiergate_quota_admin', 'tiergate_reader',
                             'tiergate_daemon', 'tiergate_tenant'] LOOP
        IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = r) THEN
            BEGIN
                EXECUTE format('CREATE ROLE %I NOLOGIN', r);
            EXCEPTION WHEN duplicate_object OR unique_violation THEN
                NULL;
            END;
        END IF;
    END LOOP;
END
$$;


CREATE TABLE tiergate.settings (
    name        text  PRIMARY KEY,
    value       jsonb NOT NULL,
    description text  NOT NULL
);

COMMENT ON TABLE  tiergate.settings             IS 'Policy of this site; change with UPDATE';
COMMENT ON COLUMN tiergate.settings.name        IS 'Name of the setting';
COMMENT ON COLUMN tiergate.settings.value       IS 'Its value, as JSON';
COMMENT ON COLUMN tiergate.settings.description IS 'What it decides, and in which unit';

INSERT INTO tiergate.settings (name, value, description) VALUES
    ('endpoints.allow', '["0.0.0.0/0", "::/0"]',
     'Networks in which upstream endpoints may lie'),
    ('endpoints.deny',
     '["0.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4", "240.0.0.0/4", "::/128", "::ffff:0:0/96",
       "fe80::/10", "ff00::/8", "fd00:ec2::254/128"]',
     'Networks in which they may not, whatever endpoints.allow says: link-local and metadata services, multicast'),
    ('hosts.allow_single_label', 'false',
     'Whether a tenant may own a hostname without a dot'),
    ('hosts.allow_nested_claims', 'false',
     'Whether a tenant may own a hostname below another tenant''s wildcard'),
    ('jwks.allow_http', 'false',
     'Whether a jwks_uri may be plain http'),
    ('jwks.refresh_seconds', '300',
     'How often a key set is fetched'),
    ('changes.retention', '"24 hours"',
     'How long a gateway may be away and still resume by delta'),
    ('usage.retention', '"62 days"',
     'How long usage by the minute is kept'),
    ('audit.retention', '"forever"',
     'How long the audit is kept: forever, or an interval'),
    ('idempotency.retention', '"24 hours"',
     'How long an answer is remembered for its Idempotency-Key');


CREATE TABLE tiergate.limits (
    name        text   PRIMARY KEY,
    value       bigint NOT NULL,
    maximum     bigint NOT NULL,
    description text   NOT NULL,
    CONSTRAINT limits_value_range CHECK (value BETWEEN 0 AND maximum)
);

COMMENT ON TABLE  tiergate.limits             IS 'How much one tenant may hold; lower them with UPDATE';
COMMENT ON COLUMN tiergate.limits.name        IS 'Name, as refusals cite it';
COMMENT ON COLUMN tiergate.limits.value       IS 'The limit in force';
COMMENT ON COLUMN tiergate.limits.maximum     IS 'What a gateway accepts at most';
COMMENT ON COLUMN tiergate.limits.description IS 'What is counted';
COMMENT ON CONSTRAINT limits_value_range ON tiergate.limits IS
    'a limit lies between 0 and what gateways accept at most';

INSERT INTO tiergate.limits (name, value, maximum, description) VALUES
    ('hosts_per_tenant',       256,   256,   'Hostnames of a tenant'),
    ('issuers_per_tenant',     16,    16,    'Issuers of a tenant, its own and those it refers to'),
    ('keys_per_issuer',        32,    32,    'JSON Web Keys of an issuer'),
    ('consumers_per_tenant',   10000, 10000, 'Consumers that a tenant has registered'),
    ('api_keys_per_tenant',    10000, 10000, 'API keys of a tenant'),
    ('upstreams_per_tenant',   256,   256,   'Upstreams of a tenant'),
    ('endpoints_per_upstream', 256,   256,   'Endpoints of an upstream'),
    ('routes_per_tenant',      1000,  1000,  'Routes of a tenant'),
    ('quotas_per_tenant',      1000,  1000,  'Quotas of a tenant'),
    ('quotas_per_request',     16,    16,    'Quotas that can apply to one request: those of tenant and route, and of one consumer'),
    ('holds_per_request',      6,     6,     'Of them, quotas of concurrency');


-- How every rule is refused.  tenantd turns this into a problem document, psql
-- shows it as ERROR, DETAIL and HINT.
CREATE FUNCTION tiergate.refuse(status integer, slug text, pointer text, detail text,
                                hint text DEFAULT '')
RETURNS void
LANGUAGE plpgsql
AS $$
BEGIN
    RAISE EXCEPTION USING
        ERRCODE = 'TG' || status,
        MESSAGE = detail,
        DETAIL  = slug,
        HINT    = coalesce(hint, ''),
        COLUMN  = coalesce(pointer, '');
END
$$;

COMMENT ON FUNCTION tiergate.refuse(integer, text, text, text, text) IS
    'Raises SQLSTATE TG<status>: message = what is wrong, DETAIL = problem type, HINT = what to do, column = JSON pointer of the field';


-- PL/pgSQL keeps the plan; an SQL function with FROM would be planned anew.
CREATE FUNCTION tiergate.setting(name text)
RETURNS jsonb
LANGUAGE plpgsql STABLE
AS $$
BEGIN
    RETURN (SELECT s.value FROM tiergate.settings s WHERE s.name = setting.name);
END
$$;

COMMENT ON FUNCTION tiergate.setting(text) IS 'Value of a setting';


CREATE FUNCTION tiergate.is_label(label text)
RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT length(label) <= 63 AND label ~ '^[a-z0-9]([-a-z0-9]*[a-z0-9])?$'
$$;

COMMENT ON FUNCTION tiergate.is_label(text) IS
    'Whether this is a DNS label in lower case (RFC 1123), which tenant names are';


CREATE FUNCTION tiergate.is_name(name text)
RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT length(name) <= 63 AND name ~ '^[a-z0-9]([-a-z0-9._]*[a-z0-9])?$'
$$;

COMMENT ON FUNCTION tiergate.is_name(text) IS
    'Whether this can name an issuer, route, upstream, quota or gateway';


-- Short circuits keep the usual hostname at one regular expression: the other
-- two only look at names with "--" in them or with a digit at the end.
CREATE FUNCTION tiergate.is_hostname(host text)
RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT length(host) <= 253
       AND host ~ '^(\*\.)?([a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?\.)*[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$'
       AND (strpos(host, '--') = 0 OR host !~ '(^|\.)(?!xn)..--')
       AND (right(host, 1) NOT BETWEEN '0' AND '9' OR host !~ '(^|\.)[0-9]+$')
$$;

COMMENT ON FUNCTION tiergate.is_hostname(text) IS
    'Whether this is a hostname in lower case (RFC 1123, IDNA as A-labels), with "*." in front for a wildcard; addresses are none';


CREATE FUNCTION tiergate.is_consumer(name text)
RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT length(name) <= 128 AND name ~ '^[!-~]+$'
$$;

COMMENT ON FUNCTION tiergate.is_consumer(text) IS
    'Whether this can name a consumer: 1 to 128 visible ASCII characters, since it travels in headers';


CREATE FUNCTION tiergate.is_header(name text)
RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT length(name) <= 63 AND name ~ '^[A-Za-z0-9!#$%&''*+.^_`|~-]+$'
$$;

COMMENT ON FUNCTION tiergate.is_header(text) IS
    'Whether this is the name of a header field (RFC 9110), of at most 63 bytes';


-- A path as the gateway matches it: it is normalised first, so that it has none
-- of these.
CREATE FUNCTION tiergate.is_path(path text)
RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT octet_length(path) <= 512 AND left(path, 1) = '/'
       AND path !~ '[\x01-\x20\x7f?#\\]|//|/\.\.?(/|$)'
$$;

COMMENT ON FUNCTION tiergate.is_path(text) IS
    'Whether this is a normalised path: begins with /, has no blanks, ?, #, backslash, // or dot segments, and at most 512 bytes';


-- Arrays are checked in PL/pgSQL: it starts faster than an SQL function that
-- cannot be inlined, and most arrays are null or short.

CREATE FUNCTION tiergate.are_tokens(list text[], longest integer)
RETURNS boolean
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
AS $$
DECLARE
    t text;
BEGIN
    IF array_ndims(list) > 1 THEN
        RETURN false;
    END IF;
    FOREACH t IN ARRAY list LOOP
        IF t IS NULL OR octet_length(t) NOT BETWEEN 1 AND longest OR t ~ '[\x01-\x20\x7f]' THEN
            RETURN false;
        END IF;
    END LOOP;
    RETURN true;
END
$$;

COMMENT ON FUNCTION tiergate.are_tokens(text[], integer) IS
    'Whether this is a list of one dimension in which each has 1 to so many bytes, and no blanks or control characters';


CREATE FUNCTION tiergate.are_methods(list text[])
RETURNS boolean
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
AS $$
DECLARE
    m text;
BEGIN
    FOREACH m IN ARRAY list LOOP
        IF m IS NULL OR m NOT IN ('GET', 'HEAD', 'POST', 'PUT', 'DELETE', 'PATCH', 'OPTIONS') THEN
            RETURN false;
        END IF;
    END LOOP;
    RETURN true;
END
$$;

COMMENT ON FUNCTION tiergate.are_methods(text[]) IS 'Whether each of these is a request method: GET, HEAD, POST, PUT, DELETE, PATCH, OPTIONS';


CREATE FUNCTION tiergate.are_hostnames(list text[])
RETURNS boolean
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
AS $$
DECLARE
    h text;
BEGIN
    FOREACH h IN ARRAY list LOOP
        IF h IS NULL OR NOT tiergate.is_hostname(h) THEN
            RETURN false;
        END IF;
    END LOOP;
    RETURN true;
END
$$;

COMMENT ON FUNCTION tiergate.are_hostnames(text[]) IS 'Whether each of these is a hostname';


CREATE FUNCTION tiergate.are_labels(labels jsonb)
RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT jsonb_typeof(labels) = 'object'
       AND (labels = '{}' OR NOT labels @@ '$.*.type() != "string"' AND octet_length(labels::text) <= 16384)
$$;

COMMENT ON FUNCTION tiergate.are_labels(jsonb) IS
    'Whether this is an object of strings, of at most 16384 bytes';


CREATE FUNCTION tiergate.are_headers(headers jsonb)
RETURNS boolean
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
AS $$
DECLARE
    h jsonb;
BEGIN
    IF jsonb_typeof(headers) <> 'array' OR jsonb_array_length(headers) NOT BETWEEN 1 AND 16 THEN
        RETURN false;
    END IF;
    FOR h IN SELECT value FROM jsonb_array_elements(headers) LOOP
        IF jsonb_typeof(h) <> 'object' OR h - '{name,type,value}'::text[] <> '{}' OR NOT h ?& '{name,type,value}'
           OR NOT tiergate.is_header(h->>'name') OR h->>'type' NOT IN ('exact', 'regex')
           OR jsonb_typeof(h->'value') <> 'string' OR octet_length(h->>'value') > 512
           OR (h->>'type' = 'regex' AND h->>'value' = '')
           OR h->>'value' ~ '[\x01-\x1f\x7f]' THEN
            RETURN false;
        END IF;
    END LOOP;
    RETURN true;
END
$$;

COMMENT ON FUNCTION tiergate.are_headers(jsonb) IS
    'Whether this is an array of 1 to 16 header matches {name, type, value}';


CREATE FUNCTION tiergate.are_claims(claims jsonb)
RETURNS boolean
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
AS $$
DECLARE
    c jsonb;
BEGIN
    IF jsonb_typeof(claims) <> 'array' OR jsonb_array_length(claims) > 16 THEN
        RETURN false;
    END IF;
    FOR c IN SELECT value FROM jsonb_array_elements(claims) LOOP
        IF jsonb_typeof(c) <> 'object' OR c - '{name,values}'::text[] <> '{}' OR NOT c ?& '{name,values}'
           OR jsonb_typeof(c->'name') <> 'string' OR octet_length(c->>'name') NOT BETWEEN 1 AND 128
           OR c->>'name' ~ '[\x01-\x1f\x7f]'
           OR jsonb_typeof(c->'values') <> 'array' THEN
            RETURN false;
        END IF;
        IF jsonb_array_length(c->'values') NOT BETWEEN 1 AND 64
           OR EXISTS (SELECT FROM jsonb_array_elements(c->'values') v
                       WHERE jsonb_typeof(v) <> 'string' OR octet_length(v #>> '{}') NOT BETWEEN 1 AND 256
                          OR v #>> '{}' ~ '[\x01-\x1f\x7f]') THEN
            RETURN false;
        END IF;
    END LOOP;
    RETURN true;
END
$$;

COMMENT ON FUNCTION tiergate.are_claims(jsonb) IS
    'Whether this is an array of at most 16 claims {name, values}';

COMMIT;
