-- SPDX-License-Identifier: BSD-2-Clause
--
-- The shape of JSON bodies.  What may stand where is one table, body_fields.
-- From it come composite types: PostgreSQL fills them from a body natively, and a
-- body that does not survive the round trip has a member too many or of a wrong
-- type.  That takes microseconds and says yes or no.  Only after a no, or after
-- a constraint has refused a row, does body_problems() walk the body slowly and
-- say which member is wrong.  It may be no stricter than the constraints of the
-- tables, for bodies that pass those are never walked.

BEGIN;

INSERT INTO tiergate.schema_migrations (version, name) VALUES (5, 'bodies');

CREATE TABLE tiergate.body_fields (
    object      text    NOT NULL COLLATE "C",
    field       text    NOT NULL COLLATE "C",
    type        text    NOT NULL,
    required    boolean NOT NULL DEFAULT false,
    low         bigint,
    high        bigint,
    choices     text[],
    format      text,
    child       text    COLLATE "C",
    unique_by   text[],
    description text    NOT NULL,
    PRIMARY KEY (object, field),
    CONSTRAINT body_fields_type CHECK (type IN ('string', 'integer', 'number', 'boolean', 'object', 'array'))
);

COMMENT ON TABLE  tiergate.body_fields             IS 'Which members the JSON bodies of the REST API may have';
COMMENT ON COLUMN tiergate.body_fields.object      IS 'Kind of object, or kind of array whose elements the row is about';
COMMENT ON COLUMN tiergate.body_fields.field       IS 'Name of the member; [] for elements of an array, * for members of any name';
COMMENT ON COLUMN tiergate.body_fields.type        IS 'Its JSON type; integer is a number without fraction';
COMMENT ON COLUMN tiergate.body_fields.required    IS 'Whether it must be there';
COMMENT ON COLUMN tiergate.body_fields.low         IS 'Least number, or least length of a string (bytes) or array';
COMMENT ON COLUMN tiergate.body_fields.high        IS 'Greatest number or length';
COMMENT ON COLUMN tiergate.body_fields.choices     IS 'The strings that it may be';
COMMENT ON COLUMN tiergate.body_fields.format      IS 'Form that the string must have, see tiergate.format_problem';
COMMENT ON COLUMN tiergate.body_fields.child       IS 'Kind of the object, or of the array';
COMMENT ON COLUMN tiergate.body_fields.unique_by   IS 'Of array elements: members that must differ; empty for the element itself';
COMMENT ON COLUMN tiergate.body_fields.description IS 'What it says';
COMMENT ON CONSTRAINT body_fields_type ON tiergate.body_fields IS 'type is a JSON type or integer';

INSERT INTO tiergate.body_fields
    (object, field, type, required, low, high, choices, format, child, description) VALUES
    ('tenant', 'name',         'string',  true,  NULL, NULL, NULL, 'label', NULL, 'Name of the tenant, a DNS label'),
    ('tenant', 'tier',         'string',  false, 1, 63, NULL, NULL, NULL, 'Tier of service'),
    ('tenant', 'display_name', 'string',  false, 0, 200, NULL, NULL, NULL, 'Name for people'),
    ('tenant', 'labels',       'object',  false, NULL, NULL, NULL, NULL, 'labels', 'Labels of the platform'),
    ('tenant', 'state',        'string',  false, NULL, NULL, '{active,suspended}', NULL, NULL, 'Whether it is served'),
    ('tenant', 'reason',       'string',  false, 0, 200, NULL, NULL, NULL, 'Why it is suspended'),
    ('tenant', 'hosts',        'array',   false, 0, 256, NULL, NULL, 'hosts', 'Hostnames'),
    ('tenant', 'issuers',      'array',   false, 0, 16, NULL, NULL, 'issuers', 'Issuers of tokens'),
    ('tenant', 'consumers',    'array',   false, 0, 10000, NULL, NULL, 'consumers', 'Registered consumers'),
    ('tenant', 'keys',         'array',   false, 0, 10000, NULL, NULL, 'keys', 'API keys to make'),
    ('tenant', 'upstreams',    'array',   false, 0, 256, NULL, NULL, 'upstreams', 'Upstreams'),
    ('tenant', 'routes',       'array',   false, 0, 1000, NULL, NULL, 'routes', 'Routes'),
    ('tenant', 'quotas',       'array',   false, 0, 1000, NULL, NULL, 'quotas', 'Quotas'),

    ('tenant_patch', 'tier',         'string', false, 1, 63, NULL, NULL, NULL, 'Tier of service'),
    ('tenant_patch', 'display_name', 'string', false, 0, 200, NULL, NULL, NULL, 'Name for people'),
    ('tenant_patch', 'labels',       'object', false, NULL, NULL, NULL, NULL, 'labels', 'Labels of the platform'),
    ('tenant_patch', 'state',        'string', false, NULL, NULL, '{active,suspended}', NULL, NULL, 'Whether it is served'),
    ('tenant_patch', 'reason',       'string', false, 0, 200, NULL, NULL, NULL, 'Why it is suspended'),
    ('tenant_patch', 'hosts',        'array',  false, 0, 256, NULL, NULL, 'hosts', 'All its hostnames'),

    ('suspension', 'reason', 'string', false, 0, 200, NULL, NULL, NULL, 'Why; shown to the refused client'),
    ('boost', 'factor', 'number', true, 0, 1000, NULL, NULL, NULL, 'Rates and request limits are multiplied by this'),
    ('boost', 'until',  'string', true, NULL, NULL, NULL, 'time', NULL, 'Until when'),

    ('labels', '*',  'string', false, NULL, NULL, NULL, NULL, NULL, 'Value of a label'),
    ('hosts',  '[]', 'string', false, NULL, NULL, NULL, 'hostname', NULL, 'Hostname'),
    ('host',   'host', 'string', false, NULL, NULL, NULL, 'hostname', NULL, 'Hostname'),

    ('issuers', '[]',             'object',  false, NULL, NULL, NULL, NULL, 'issuer', 'Issuer'),
    ('issuer',  'name',           'string',  false, NULL, NULL, NULL, 'name', NULL, 'Name of the issuer; default: ref'),
    ('issuer',  'ref',            'string',  false, NULL, NULL, NULL, 'name', NULL, 'Issuer of the platform that this refers to'),
    ('issuer',  'issuer',         'string',  false, 1, 512, NULL, 'token', NULL, 'The iss claim of its tokens'),
    ('issuer',  'audiences',      'array',   false, 1, 16, NULL, NULL, 'audiences', 'One of these must be in aud'),
    ('issuer',  'algorithms',     'array',   false, 1, 13, NULL, NULL, 'algorithms', 'Signature algorithms that are accepted'),
    ('issuer',  'leeway',         'integer', false, 0, 300, NULL, NULL, NULL, 'Seconds of tolerance for exp and nbf'),
    ('issuer',  'consumer_claim', 'string',  false, 1, 128, NULL, NULL, NULL, 'Claim that names the consumer'),
    ('issuer',  'jwks_uri',       'string',  false, 1, 2048, NULL, 'jwks_uri', NULL, 'Where the key set is fetched'),
    ('issuer',  'jwks',           'object',  false, NULL, NULL, NULL, NULL, 'jwks', 'Static key set'),
    ('jwks',    'keys',           'array',   true,  0, 32, NULL, NULL, 'jwk_list', 'Keys of the set'),
    ('jwk_list', '[]',            'object',  false, NULL, NULL, NULL, 'jwk', NULL, 'JSON Web Key'),
    ('audiences',  '[]',          'string',  false, 1, 256, NULL, 'token', NULL, 'Audience'),
    ('algorithms', '[]',          'string',  false, NULL, NULL,
        '{RS256,RS384,RS512,PS256,PS384,PS512,ES256,ES384,ES512,HS256,HS384,HS512,EdDSA}', NULL, NULL, 'Algorithm'),

    ('consumers', '[]',     'object', false, NULL, NULL, NULL, NULL, 'consumer', 'Consumer'),
    ('consumer',  'name',   'string', true,  NULL, NULL, NULL, 'consumer', NULL, 'Name, as tokens and keys carry it'),
    ('consumer',  'labels', 'object', false, NULL, NULL, NULL, NULL, 'labels', 'Labels of the tenant'),

    ('keys', '[]',         'object', false, NULL, NULL, NULL, NULL, 'key', 'API key'),
    ('key',  'consumer',   'string', true,  NULL, NULL, NULL, 'consumer', NULL, 'Consumer that it names'),
    ('key',  'scopes',     'array',  false, 0, 64, NULL, NULL, 'scopes', 'Scopes that it grants'),
    ('key',  'expires_at', 'string', false, NULL, NULL, NULL, 'time', NULL, 'When it ends'),
    ('key',  'sha256',     'string', false, NULL, NULL, NULL, 'sha256', NULL, 'Digest of a key that exists already; then none is made'),
    ('rotation', 'grace',  'integer', false, 0, 31536000, NULL, NULL, NULL, 'Seconds for which the old key stays valid'),

    ('scopes', '[]', 'string', false, 1, 128, NULL, 'token', NULL, 'Scope'),

    ('upstreams', '[]',              'object',  false, NULL, NULL, NULL, NULL, 'upstream', 'Upstream'),
    ('upstream',  'name',            'string',  true,  NULL, NULL, NULL, 'name', NULL, 'Name of the upstream'),
    ('upstream',  'host',            'string',  false, NULL, NULL, NULL, 'authority', NULL, 'Host header sent upstream; default: the client''s'),
    ('upstream',  'max_outstanding', 'integer', false, 0, 1000000, NULL, NULL, NULL, 'Requests in flight before it breaks the circuit; 0: no bound'),
    ('upstream',  'health',          'object',  false, NULL, NULL, NULL, NULL, 'health', 'Passive health'),
    ('upstream',  'endpoints',       'array',   false, 0, 256, NULL, NULL, 'endpoints', 'Addresses'),
    ('health',    'max_fails',       'integer', false, 0, 1000, NULL, NULL, NULL, 'Failures after which an endpoint is taken out; 0 never does'),
    ('health',    'fail_timeout_ms', 'integer', false, 100, 3600000, NULL, NULL, NULL, 'For how long it is out'),
    ('health',    'slow_start_ms',   'integer', false, 0, 3600000, NULL, NULL, NULL, 'Time to full weight after it has come back'),
    ('endpoints', '[]',              'object',  false, NULL, NULL, NULL, NULL, 'endpoint', 'Endpoint'),
    ('endpoint',  'address',         'string',  true,  NULL, NULL, NULL, 'address', NULL, 'IPv4 or IPv6 address'),
    ('endpoint',  'port',            'integer', true,  1, 65535, NULL, NULL, NULL, 'TCP port'),
    ('endpoint',  'weight',          'integer', false, 0, 1000000, NULL, NULL, NULL, 'Share of the requests; 0 drains it'),

    ('routes', '[]',        'object',  false, NULL, NULL, NULL, NULL, 'route', 'Route'),
    ('route',  'name',      'string',  true,  NULL, NULL, NULL, 'name', NULL, 'Name of the route'),
    ('route',  'match',     'object',  false, NULL, NULL, NULL, NULL, 'match', 'Which requests; default: all'),
    ('route',  'auth',      'object',  false, NULL, NULL, NULL, NULL, 'auth', 'Who may; default: any credential of the tenant'),
    ('route',  'rewrite',   'object',  false, NULL, NULL, NULL, NULL, 'rewrite', 'Change of the path'),
    ('route',  'backends',  'array',   true,  1, 16, NULL, NULL, 'backends', 'Upstreams by weight'),
    ('route',  'sticky',    'string',  false, NULL, NULL, '{none,consumer}', NULL, NULL, 'Whether a consumer stays on one upstream'),
    ('route',  'timeouts',  'object',  false, NULL, NULL, NULL, NULL, 'timeouts', 'Time limits'),
    ('route',  'retries',   'integer', false, 0, 5, NULL, NULL, NULL, 'Further attempts on idempotent methods'),
    ('route',  'websocket', 'boolean', false, NULL, NULL, NULL, NULL, NULL, 'Whether the connection may be upgraded to WebSocket'),
    ('match',  'path',      'object',  false, NULL, NULL, NULL, NULL, 'path', 'Path; default: prefix /'),
    ('match',  'methods',   'array',   false, 1, 16, NULL, NULL, 'methods', 'Request methods'),
    ('match',  'headers',   'array',   false, 1, 16, NULL, NULL, 'headers', 'Headers that must be there'),
    ('match',  'hosts',     'array',   false, 1, 16, NULL, NULL, 'hosts', 'Hosts of the tenant'),
    ('path',   'type',      'string',  false, NULL, NULL, '{exact,prefix,regex}', NULL, NULL, 'exact, prefix or regex'),
    ('path',   'value',     'string',  true,  1, 512, NULL, 'token', NULL, 'What the normalised path must match'),
    ('methods', '[]',       'string',  false, NULL, NULL, '{GET,HEAD,POST,PUT,DELETE,PATCH,OPTIONS}', NULL, NULL, 'Request method'),
    ('headers', '[]',       'object',  false, NULL, NULL, NULL, NULL, 'header', 'Header'),
    ('header', 'name',      'string',  true,  NULL, NULL, NULL, 'header', NULL, 'Name of the header'),
    ('header', 'type',      'string',  false, NULL, NULL, '{exact,regex}', NULL, NULL, 'exact or regex'),
    ('header', 'value',     'string',  true,  0, 512, NULL, 'text', NULL, 'What its value must match'),
    ('auth',   'mode',      'string',  false, NULL, NULL, '{required,optional,none}', NULL, NULL, 'required, optional or none'),
    ('auth',   'methods',   'array',   false, 1, 2, NULL, NULL, 'auth_methods', 'Which credentials'),
    ('auth',   'scopes',    'array',   false, 0, 64, NULL, NULL, 'scopes', 'Scopes that are all needed'),
    ('auth',   'claims',    'array',   false, 0, 16, NULL, NULL, 'claims', 'Claims that are needed'),
    ('auth',   'hide_credentials', 'boolean', false, NULL, NULL, NULL, NULL, NULL, 'Whether the credential is removed before the request goes upstream'),
    ('auth_methods', '[]',  'string',  false, NULL, NULL, '{jwt,api_key}', NULL, NULL, 'Kind of credential'),
    ('claims', '[]',        'object',  false, NULL, NULL, NULL, NULL, 'claim', 'Claim'),
    ('claim',  'name',      'string',  true,  1, 128, NULL, NULL, NULL, 'Name of the claim'),
    ('claim',  'values',    'array',   true,  1, 64, NULL, NULL, 'claim_values', 'One of these'),
    ('claim_values', '[]',  'string',  false, 1, 256, NULL, NULL, NULL, 'Value'),
    ('rewrite', 'type',     'string',  true,  NULL, NULL, '{strip_prefix,replace_prefix,replace_path}', NULL, NULL, 'How the path changes'),
    ('rewrite', 'value',    'string',  false, 1, 512, NULL, 'path', NULL, 'The new prefix or path'),
    ('backends', '[]',      'object',  false, NULL, NULL, NULL, NULL, 'backend', 'Backend'),
    ('backend', 'upstream', 'string',  true,  NULL, NULL, NULL, 'name', NULL, 'Name of the upstream'),
    ('backend', 'weight',   'integer', false, 0, 1000000, NULL, NULL, NULL, 'Share of the requests'),
    ('timeouts', 'connect_ms', 'integer', false, 1, 3600000, NULL, NULL, NULL, 'Connecting'),
    ('timeouts', 'send_ms',    'integer', false, 1, 3600000, NULL, NULL, NULL, 'Between two writes'),
    ('timeouts', 'read_ms',    'integer', false, 1, 3600000, NULL, NULL, NULL, 'Between two reads'),

    ('quotas', '[]',       'object',  false, NULL, NULL, NULL, NULL, 'quota', 'Quota'),
    ('quota',  'name',     'string',  true,  NULL, NULL, NULL, 'name', NULL, 'Name of the quota'),
    ('quota',  'scope',    'string',  false, NULL, NULL, '{tenant,route,consumer}', NULL, NULL, 'What is counted together; default: by route and consumer'),
    ('quota',  'route',    'string',  false, NULL, NULL, NULL, 'name', NULL, 'Route'),
    ('quota',  'consumer', 'string',  false, NULL, NULL, NULL, 'consumer', NULL, 'Consumer'),
    ('quota',  'metric',   'string',  false, NULL, NULL, '{requests,concurrency,body_size}', NULL, NULL, 'What is counted; default: requests'),
    ('quota',  'limit',    'integer', true,  0, 1000000000000, NULL, NULL, NULL, 'How much'),
    ('quota',  'window',   'string',  false, NULL, NULL, NULL, 'window', NULL, 'In which time: <n>s, day or month'),
    ('quota',  'burst',    'integer', false, 0, 1000000000, NULL, NULL, NULL, 'Requests that may come at once above the even pace'),
    ('quota',  'dry_run',  'boolean', false, NULL, NULL, NULL, NULL, NULL, 'Count and report, never refuse'),

    ('gateway', 'kind',    'string',  false, NULL, NULL, '{shared,dedicated}', NULL, NULL, 'shared, or dedicated to one tenant'),
    ('gateway', 'tenant',  'string',  false, NULL, NULL, NULL, 'label', NULL, 'Tenant of a dedicated gateway'),

    ('token', 'name',        'string', true,  NULL, NULL, NULL, 'name', NULL, 'Name of the token'),
    ('token', 'scope',       'string', true,  NULL, NULL, '{admin,tenant,gateway,reader}', NULL, NULL, 'What it may do'),
    ('token', 'tenant',      'string', false, NULL, NULL, NULL, 'label', NULL, 'Tenant of scope tenant'),
    ('token', 'gateway',     'string', false, NULL, NULL, NULL, 'name', NULL, 'Gateway of scope gateway'),
    ('token', 'expires_at',  'string', false, NULL, NULL, NULL, 'time', NULL, 'When it ends'),
    ('token', 'certificate', 'object', false, NULL, NULL, NULL, NULL, 'certificate', 'A client certificate in place of a bearer token'),
    ('certificate', 'sha256',  'string', false, NULL, NULL, NULL, 'sha256', NULL, 'Fingerprint'),
    ('certificate', 'subject', 'string', false, 1, 512, NULL, NULL, NULL, 'Subject');


UPDATE tiergate.body_fields f SET unique_by = u.unique_by::text[]
  FROM (VALUES ('hosts', '{}'), ('issuers', '{name}'), ('consumers', '{name}'), ('upstreams', '{name}'),
               ('endpoints', '{address,port}'), ('routes', '{name}'), ('backends', '{upstream}'),
               ('quotas', '{name}')) AS u (object, unique_by)
 WHERE f.object = u.object AND f.field = '[]';


-- Types, innermost first.  Objects with members of any name, and JSON Web Keys,
-- stay jsonb.
DO $$
DECLARE
    f       record;
    columns text;
BEGIN
    LOOP
        SELECT n.object, n.columns INTO f
          FROM (SELECT b.object,
                       string_agg(format('%I %s', b.field, CASE
                           WHEN b.type = 'string'  THEN 'text'
                           WHEN b.type = 'integer' THEN 'bigint'
                           WHEN b.type = 'number'  THEN 'numeric'
                           WHEN b.type = 'boolean' THEN 'boolean'
                           WHEN b.type = 'object' AND EXISTS (SELECT FROM tiergate.body_fields c
                                WHERE c.object = b.child AND c.field = '*') THEN 'jsonb'
                           WHEN b.type = 'object'  THEN 'tiergate.' || b.child || '_body'
                           WHEN e.type = 'string'  THEN 'text[]'
                           WHEN e.child IS NULL    THEN 'jsonb[]'
                           ELSE 'tiergate.' || e.child || '_body[]' END), ', ' ORDER BY b.field) AS columns,
                       bool_and(coalesce(to_regtype('tiergate.' || coalesce(e.child, b.child) || '_body') IS NOT NULL
                                OR coalesce(e.type, '') = 'string' OR b.child IS NULL
                                OR e.type = 'object' AND e.child IS NULL
                                OR EXISTS (SELECT FROM tiergate.body_fields c
                                            WHERE c.object = b.child AND c.field = '*'), false)) AS ready
                  FROM tiergate.body_fields b
                  LEFT JOIN tiergate.body_fields e ON b.type = 'array' AND e.object = b.child AND e.field = '[]'
                 WHERE b.field NOT IN ('[]', '*')
                 GROUP BY b.object) n
         WHERE n.ready AND to_regtype('tiergate.' || n.object || '_body') IS NULL
         ORDER BY n.object LIMIT 1;
        EXIT WHEN NOT FOUND;

        EXECUTE format('CREATE TYPE tiergate.%I AS (%s)', f.object || '_body', f.columns);
        EXECUTE format('COMMENT ON TYPE tiergate.%I IS %L', f.object || '_body',
                       format('JSON body: %s, as tiergate.body_fields describes it', f.object));
    END LOOP;

    IF EXISTS (SELECT FROM tiergate.body_fields b WHERE b.field NOT IN ('[]', '*')
                  AND to_regtype('tiergate.' || b.object || '_body') IS NULL) THEN
        RAISE EXCEPTION 'body_fields names a child that is not described';
    END IF;

    FOR f IN SELECT b.object, b.field, b.description FROM tiergate.body_fields b
              WHERE b.field NOT IN ('[]', '*') LOOP
        EXECUTE format('COMMENT ON COLUMN tiergate.%I.%I IS %L', f.object || '_body', f.field, f.description);
    END LOOP;
END
$$;


-- inet's own parser decides, but raises; so it only sees what looks like an address
CREATE FUNCTION tiergate.parse_address(address text)
RETURNS inet
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
AS $$
BEGIN
    IF address ~ '^((25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])(\.(?!$)|$)){4}$' THEN
        RETURN address::inet;
    END IF;
    IF address !~ '^[0-9A-Fa-f:.]{2,45}$' OR strpos(address, ':') = 0 THEN
        RETURN NULL;
    END IF;
    RETURN address::inet;
EXCEPTION WHEN invalid_text_representation THEN
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION tiergate.parse_address(text) IS 'The text as an address, or null if it is none';


CREATE FUNCTION tiergate.parse_time(value text)
RETURNS timestamptz
LANGUAGE plpgsql STABLE PARALLEL SAFE
AS $$
BEGIN
    IF value !~ '^\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[-+]\d\d:\d\d)$' THEN
        RETURN NULL;
    END IF;
    RETURN value::timestamptz;
EXCEPTION WHEN datetime_field_overflow OR invalid_datetime_format OR invalid_text_representation THEN
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION tiergate.parse_time(text) IS 'The text as a time (RFC 3339), or null if it is none';


CREATE FUNCTION tiergate.parse_window(value text)
RETURNS interval
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT CASE WHEN value = 'day' THEN interval '1 day'
                WHEN value = 'month' THEN interval '1 month'
                WHEN value ~ '^[1-9][0-9]{0,4}s$' AND rtrim(value, 's')::integer < 86400
                    THEN make_interval(secs => rtrim(value, 's')::integer) END
$$;

COMMENT ON FUNCTION tiergate.parse_window(text) IS
    'A quota''s window, "<n>s", "day" or "month", as an interval; null if it is none';


CREATE FUNCTION tiergate.jwk_problem(jwk jsonb)
RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT CASE
        WHEN jsonb_typeof(jwk) IS DISTINCT FROM 'object' THEN 'is not an object'
        WHEN jwk ?| '{d,p,q,dp,dq,qi,oth}' THEN 'is a private key; only the public members belong here'
        WHEN EXISTS (SELECT FROM jsonb_each(jwk) m
                      WHERE m.key IN ('kty', 'kid', 'use', 'alg', 'crv', 'n', 'e', 'x', 'y', 'k', 'k_sealed')
                        AND jsonb_typeof(m.value) <> 'string')
            THEN 'has a member that should be a string'
        WHEN jwk->>'use' <> 'sig' THEN 'has use "' || (jwk->>'use') || '", not "sig"'
        WHEN octet_length(jwk->>'kid') > 256 THEN 'has a kid longer than 256 bytes'
        WHEN jwk->>'alg' !~ '^((RS|PS|ES|HS)(256|384|512)|EdDSA)$' THEN 'has an alg that is not supported'
        WHEN jwk->>'kty' = 'RSA' THEN CASE
            WHEN length(jwk->>'n') BETWEEN 342 AND 1366 AND jwk->>'n' ~ '^[A-Za-z0-9_-]+$' AND jwk->>'e' ~ '^[A-Za-z0-9_-]{1,11}$' THEN NULL
            ELSE 'is RSA and needs n (2048 to 8192 bits) and e in base64url' END
        WHEN jwk->>'kty' = 'EC' THEN CASE
            WHEN jwk->>'crv' IN ('P-256', 'P-384', 'P-521') AND jwk->>'x' ~ '^[A-Za-z0-9_-]{40,88}$'
                 AND jwk->>'y' ~ '^[A-Za-z0-9_-]{40,88}$' THEN NULL
            ELSE 'is EC and needs crv (P-256, P-384, P-521), x and y in base64url' END
        WHEN jwk->>'kty' = 'OKP' THEN CASE
            WHEN jwk->>'crv' IN ('Ed25519', 'Ed448') AND jwk->>'x' ~ '^[A-Za-z0-9_-]{40,80}$' THEN NULL
            ELSE 'is OKP and needs crv (Ed25519, Ed448) and x in base64url' END
        WHEN jwk->>'kty' = 'oct' THEN CASE
            WHEN jwk ? 'k' THEN 'holds its secret in the clear; seal it first (tenantd seal) and give k_sealed'
            WHEN length(jwk->>'k_sealed') BETWEEN 16 AND 8192 AND jwk->>'k_sealed' ~ '^[!-~]+$' THEN NULL
            ELSE 'is oct and needs k_sealed' END
        ELSE 'has a kty other than RSA, EC, OKP, oct' END
$$;

COMMENT ON FUNCTION tiergate.jwk_problem(jsonb) IS
    'What is wrong with the shape of a JSON Web Key, or null; tenantd examines the key itself';


CREATE FUNCTION tiergate.format_problem(format text, value text)
RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE
AS $$
    SELECT CASE format
        WHEN 'label' THEN CASE WHEN NOT tiergate.is_label(value) THEN
            'is no DNS label: use lower-case letters, digits and inner hyphens, at most 63' END
        WHEN 'name' THEN CASE WHEN NOT tiergate.is_name(value) THEN
            'is no name: use lower-case letters, digits and inner -._, at most 63' END
        WHEN 'hostname' THEN CASE
            WHEN tiergate.is_hostname(value) THEN NULL
            WHEN value ~ '[^\x01-\x7f]' THEN 'has letters beyond ASCII: write them as A-labels (xn--...)'
            WHEN value <> lower(value) THEN 'has capital letters: use lower case'
            WHEN value ~ '^[0-9.]+$' OR value ~ '^\[?[0-9a-f:.]+\]?$' AND value ~ ':.*:' THEN 'is an address: use a hostname'
            WHEN strpos(value, ':') > 0 THEN 'has a port: leave it out'
            WHEN right(value, 1) = '.' THEN 'ends in a dot: leave it out'
            WHEN strpos(value, '*') > 0 THEN 'has a wildcard that is not its whole first label: write *.example.com'
            ELSE 'is no hostname: labels have 1 to 63 letters, digits and inner hyphens, 253 in all' END
        WHEN 'consumer' THEN CASE WHEN NOT tiergate.is_consumer(value) THEN
            'is no consumer name: use 1 to 128 visible ASCII characters' END
        WHEN 'authority' THEN CASE WHEN length(value) > 255 OR value !~ '^[-A-Za-z0-9._]+(:[0-9]{1,5})?$' THEN
            'is no host for a Host header: use a hostname, with :port if need be' END
        WHEN 'token' THEN CASE WHEN value ~ '[\x01-\x20\x7f]' THEN
            'has blanks or control characters' END
        WHEN 'text' THEN CASE WHEN value ~ '[\x01-\x1f\x7f]' THEN
            'has control characters' END
        WHEN 'path' THEN CASE WHEN NOT tiergate.is_path(value) THEN
            'is no path: it begins with / and has no blanks, ?, #, backslash, // or dot segments' END
        WHEN 'header' THEN CASE WHEN NOT tiergate.is_header(value) THEN
            'is no header name: use letters, digits and hyphens, at most 63' END
        WHEN 'sha256' THEN CASE WHEN value !~ '^[0-9a-f]{64}$' THEN
            'is no SHA-256: use 64 hex digits in lower case' END
        WHEN 'time' THEN CASE WHEN tiergate.parse_time(value) IS NULL THEN
            'is no time: use RFC 3339, as in 2030-01-31T12:00:00Z' END
        WHEN 'window' THEN CASE WHEN tiergate.parse_window(value) IS NULL THEN
            'is no window: use "<n>s" with n from 1 to 86399, "day" or "month"' END
        WHEN 'jwks_uri' THEN CASE WHEN value !~ '^https?://[!-~]+$' THEN
            'is no http or https URL' END
        WHEN 'address' THEN CASE WHEN tiergate.parse_address(value) IS NULL THEN
            'is no IPv4 or IPv6 address' END
        WHEN 'jwk' THEN tiergate.jwk_problem(value::jsonb)
        END
$$;

COMMENT ON FUNCTION tiergate.format_problem(text, text) IS
    'What is wrong with the form of a string, or null: label, name, hostname, consumer, authority, token, text, path, header, sha256, time, window, jwks_uri, address, jwk';


CREATE FUNCTION tiergate.body_problems(object text, body jsonb)
RETURNS TABLE (pointer text, slug text, detail text)
LANGUAGE sql STABLE
AS $$
    WITH RECURSIVE node AS (
        SELECT ''::text AS pointer, ''::text AS parent, body_problems.body AS value,
               f.*
          FROM (SELECT NULL::text COLLATE "C" AS object, ''::text COLLATE "C" AS field, 'object'::text AS type,
                       false AS required, NULL::bigint AS low, NULL::bigint AS high, NULL::text[] AS choices,
                       NULL::text AS format, body_problems.object COLLATE "C" AS child,
                       NULL::text[] AS unique_by) f
        UNION ALL
        SELECT n.pointer || '/' || replace(replace(m.key, '~', '~0'), '/', '~1'), n.pointer, m.value,
               f.object, f.field, f.type, f.required, f.low, f.high, f.choices, f.format, f.child, f.unique_by
          FROM node n
         CROSS JOIN LATERAL (
                SELECT o.key, o.value, o.key AS field
                  FROM jsonb_each(CASE WHEN n.type = 'object' AND jsonb_typeof(n.value) = 'object'
                                       THEN n.value END) o
                UNION ALL
                SELECT (a.ordinality - 1)::text, a.value, '[]'
                  FROM jsonb_array_elements(CASE WHEN n.type = 'array' AND jsonb_typeof(n.value) = 'array'
                                                 THEN n.value END) WITH ORDINALITY a
               ) m
          LEFT JOIN tiergate.body_fields f
                 ON f.object = n.child AND f.field IN (m.field, CASE WHEN m.field <> '[]' THEN '*' END)
         WHERE n.child IS NOT NULL
    ), judged AS (
        SELECT n.pointer, j.slug, j.detail
          FROM node n
         CROSS JOIN LATERAL (SELECT
               coalesce(nullif(n.pointer, ''), 'the body') AS what,
               jsonb_typeof(n.value) AS json_type,
               n.value #>> '{}' AS text,
               CASE jsonb_typeof(n.value)
                   WHEN 'number' THEN (n.value #>> '{}')::numeric
                   WHEN 'string' THEN octet_length(n.value #>> '{}')
                   WHEN 'array'  THEN jsonb_array_length(n.value) END AS size) v
         CROSS JOIN LATERAL (SELECT
               CASE
               WHEN n.type IS NULL THEN 'unknown-field'
               WHEN v.json_type <> CASE n.type WHEN 'integer' THEN 'number' ELSE n.type END
                    OR (n.type = 'integer' AND v.text !~ '^-?[0-9]+$') THEN 'wrong-type'
               WHEN v.size < n.low OR v.size > n.high THEN
                    CASE v.json_type WHEN 'number' THEN 'out-of-range' ELSE 'wrong-length' END
               WHEN v.text <> ALL (n.choices) THEN 'unknown-value'
               WHEN n.format IS NOT NULL AND tiergate.format_problem(n.format, v.text) IS NOT NULL THEN
                    'invalid-' || replace(n.format, '_', '-') END AS slug,
               CASE
               WHEN n.type IS NULL THEN format('%s is not known here', v.what)
               WHEN v.json_type <> CASE n.type WHEN 'integer' THEN 'number' ELSE n.type END THEN
                    format('%s is of type %s, but must be of type %s', v.what, v.json_type, n.type)
               WHEN n.type = 'integer' AND v.text !~ '^-?[0-9]+$' THEN
                    format('%s is %s, but must be a whole number', v.what, left(v.text, 40))
               WHEN v.size < n.low OR v.size > n.high THEN CASE v.json_type
                    WHEN 'number' THEN format('%s is %s, but must lie between %s and %s', v.what, left(v.text, 40), n.low, n.high)
                    WHEN 'string' THEN format('%s has %s bytes, but must have between %s and %s', v.what, v.size, n.low, n.high)
                    ELSE format('%s has %s elements, but must have between %s and %s', v.what, v.size, n.low, n.high) END
               WHEN v.text <> ALL (n.choices) THEN
                    format('%s is "%s", but must be one of: %s', v.what, left(v.text, 100), array_to_string(n.choices, ', '))
               WHEN n.format = 'jwk' THEN format('%s %s', v.what, tiergate.format_problem(n.format, v.text))
               ELSE format('%s "%s" %s', v.what, left(v.text, 100), tiergate.format_problem(n.format, v.text)) END
               AS detail) j
         WHERE j.slug IS NOT NULL
        UNION ALL
        SELECT n.pointer || '/' || f.field, 'missing-field',
               format('%s has no %s, which it must have', coalesce(nullif(n.pointer, ''), 'the body'), f.field)
          FROM node n
          JOIN tiergate.body_fields f ON f.object = n.child AND f.required
         WHERE n.type = 'object' AND jsonb_typeof(n.value) = 'object' AND NOT n.value ? f.field
        UNION ALL
        SELECT d.pointer, 'duplicate-item', format('%s is the same as an element before it', d.pointer)
          FROM (SELECT n.pointer, row_number() OVER (PARTITION BY n.parent, CASE cardinality(n.unique_by)
                           WHEN 0 THEN n.value
                           WHEN 1 THEN n.value->n.unique_by[1]
                           ELSE jsonb_build_array(n.value->n.unique_by[1], n.value->n.unique_by[2]) END
                       ORDER BY n.pointer)
                  FROM node n
                 WHERE n.unique_by IS NOT NULL
                   AND (cardinality(n.unique_by) = 0 OR n.value ?& n.unique_by)) d (pointer, nth)
         WHERE d.nth > 1
    )
    SELECT j.pointer, j.slug, j.detail FROM judged j
$$;

COMMENT ON FUNCTION tiergate.body_problems(text, jsonb) IS
    'Which members of a body are not as tiergate.body_fields says: JSON pointer, problem type, sentence';


CREATE FUNCTION tiergate.refuse_body(object text, body jsonb, base text DEFAULT '')
RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
    p record;
BEGIN
    SELECT * INTO p FROM tiergate.body_problems(object, body) ORDER BY pointer LIMIT 1;
    IF FOUND THEN
        PERFORM tiergate.refuse(422, p.slug, base || p.pointer, p.detail,
                                'GET /v1/openapi.yaml describes the body');
    END IF;
END
$$;

COMMENT ON FUNCTION tiergate.refuse_body(text, jsonb, text) IS
    'Refuses a body for its first wrong member; returns if there is none';


-- An SQL array takes [["a"]] for an array of two dimensions, and gives it back
-- as it came.  No body has an array in an array.
CREATE FUNCTION tiergate.has_nested_array(body jsonb)
RETURNS boolean
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
AS $$
BEGIN
    -- the text is searched first, since it is much faster than the path
    RETURN strpos(body::text, '[[') > 0
       AND jsonb_path_exists(body, 'strict $.** ? (@.type() == "array")[*] ? (@.type() == "array")');
END
$$;

COMMENT ON FUNCTION tiergate.has_nested_array(jsonb) IS 'Whether there is an array in an array';


-- One parser for each kind of body: null members count as absent.
DO $$
DECLARE
    o text;
BEGIN
    FOR o IN SELECT DISTINCT object FROM tiergate.body_fields WHERE field NOT IN ('[]', '*') LOOP
        EXECUTE format($f$
            CREATE FUNCTION tiergate.%1$I(body jsonb)
            RETURNS tiergate.%2$I
            LANGUAGE plpgsql STABLE
            AS $body$
            DECLARE
                given  jsonb := coalesce(jsonb_strip_nulls(body), 'null');
                parsed tiergate.%2$I;
            BEGIN
                IF jsonb_typeof(given) = 'object' AND NOT tiergate.has_nested_array(given) THEN
                    BEGIN
                        parsed := jsonb_populate_record(NULL::tiergate.%2$I, given);
                        IF jsonb_strip_nulls(to_jsonb(parsed)) = given THEN
                            RETURN parsed;
                        END IF;
                    EXCEPTION WHEN data_exception THEN
                        NULL;   -- explained below
                    END;
                END IF;
                PERFORM tiergate.refuse_body(%3$L, given);
                PERFORM tiergate.refuse(422, 'invalid-body', '', 'the body is not as described',
                                        'GET /v1/openapi.yaml describes the body');
            END
            $body$
            $f$, 'parse_' || o, o || '_body', o);
        EXECUTE format('COMMENT ON FUNCTION tiergate.%I(jsonb) IS %L', 'parse_' || o,
                       format('A JSON body as tiergate.%s; refuses unknown members and wrong types', o || '_body'));
    END LOOP;
END
$$;

COMMIT;
