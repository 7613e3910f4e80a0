-- SPDX-License-Identifier: BSD-2-Clause
--
-- What a platform and its tenants own.  A tenant's name is the natural key of
-- everything it owns, so that psql reads well (WHERE tenant = 'acme'); numeric
-- ids are what gateways see, and are never reused.
--
-- Keys say what is unique and what refers to what; but a row that nearly every
-- tenant refers to, a tier or an issuer of the platform, is guarded by triggers,
-- since foreign keys would make all who create tenants lock that one row.  What a single value may be
-- is said by the triggers of 0006_rules: they are compiled once a session, while
-- check constraints are prepared anew by each statement, and they can say which
-- field is wrong and what to do.  Tables that change seldom have constraints.

BEGIN;

INSERT INTO tiergate.schema_migrations (version, name) VALUES (2, 'tables');

CREATE TABLE tiergate.registry (
    singleton boolean     PRIMARY KEY DEFAULT true,
    id        uuid        NOT NULL DEFAULT gen_random_uuid(),
    pruned    bigint      NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT registry_singleton CHECK (singleton)
);

COMMENT ON TABLE  tiergate.registry            IS 'Which registry this is; one row';
COMMENT ON COLUMN tiergate.registry.singleton  IS 'Always true';
COMMENT ON COLUMN tiergate.registry.id         IS 'Told to gateways, so that they notice another registry';
COMMENT ON COLUMN tiergate.registry.pruned     IS 'Highest revision of which history has been dropped';
COMMENT ON COLUMN tiergate.registry.created_at IS 'When the registry was made';
COMMENT ON CONSTRAINT registry_singleton ON tiergate.registry IS 'there is one registry row';

INSERT INTO tiergate.registry DEFAULT VALUES;


CREATE TABLE tiergate.tiers (
    name         text PRIMARY KEY COLLATE "C",
    gateway_kind text NOT NULL,
    description  text NOT NULL,
    CONSTRAINT tiers_gateway_kind CHECK (gateway_kind IN ('shared', 'dedicated'))
);

COMMENT ON TABLE  tiergate.tiers              IS 'Tiers of service';
COMMENT ON COLUMN tiergate.tiers.name         IS 'Name of the tier';
COMMENT ON COLUMN tiergate.tiers.gateway_kind IS 'Kind of gateway that serves it: shared or dedicated';
COMMENT ON COLUMN tiergate.tiers.description  IS 'What a tenant of this tier gets';
COMMENT ON CONSTRAINT tiers_gateway_kind ON tiergate.tiers IS 'gateway_kind is shared or dedicated';

INSERT INTO tiergate.tiers VALUES
    ('vcluster',  'shared',    'Virtual cluster in a namespace of a shared host cluster; enters by the shared gateways'),
    ('dedicated', 'dedicated', 'Cluster of its own; enters by a gateway of its own');


CREATE TABLE tiergate.tenants (
    id           bigint      GENERATED ALWAYS AS IDENTITY UNIQUE,
    name         text        PRIMARY KEY COLLATE "C",
    tier         text        NOT NULL DEFAULT 'vcluster' COLLATE "C",
    state        text        NOT NULL DEFAULT 'active',
    reason       text,
    display_name text,
    labels       jsonb       NOT NULL DEFAULT '{}',
    boost_factor numeric,
    boost_until  timestamptz,
    created_at   timestamptz NOT NULL DEFAULT now()
);

COMMENT ON TABLE  tiergate.tenants              IS 'Tenants of the platform';
COMMENT ON COLUMN tiergate.tenants.id           IS 'Number that gateways know it by; never reused';
COMMENT ON COLUMN tiergate.tenants.name         IS 'DNS label; cannot be changed';
COMMENT ON COLUMN tiergate.tenants.tier         IS 'Tier of service, see tiergate.tiers';
COMMENT ON COLUMN tiergate.tenants.state        IS 'active or suspended';
COMMENT ON COLUMN tiergate.tenants.reason       IS 'Why it is suspended; shown to the refused client';
COMMENT ON COLUMN tiergate.tenants.display_name IS 'Name for people';
COMMENT ON COLUMN tiergate.tenants.labels       IS 'Labels of the platform, an object of strings';
COMMENT ON COLUMN tiergate.tenants.boost_factor IS 'Rates and request limits are multiplied by this';
COMMENT ON COLUMN tiergate.tenants.boost_until  IS 'until this time';
COMMENT ON COLUMN tiergate.tenants.created_at   IS 'When it was created';


CREATE TABLE tiergate.hosts (
    host   text PRIMARY KEY COLLATE "C",
    tenant text NOT NULL COLLATE "C" REFERENCES tiergate.tenants ON DELETE CASCADE
);

CREATE INDEX hosts_tenant ON tiergate.hosts (tenant);
-- finds what lies below a wildcard
CREATE INDEX hosts_reversed ON tiergate.hosts (reverse(host));

COMMENT ON TABLE  tiergate.hosts        IS 'Hostnames; each belongs to one tenant';
COMMENT ON COLUMN tiergate.hosts.host   IS 'Hostname in lower case; "*." in front makes it a wildcard';
COMMENT ON COLUMN tiergate.hosts.tenant IS 'Tenant that owns it';


CREATE TABLE tiergate.issuers (
    id             bigint  GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant         text    COLLATE "C" REFERENCES tiergate.tenants ON DELETE CASCADE,
    name           text    NOT NULL COLLATE "C",
    ref            bigint,
    issuer         text,
    audiences      text[],
    algorithms     text[],
    leeway         integer,
    consumer_claim text,
    jwks_uri       text,
    keys           jsonb,
    UNIQUE NULLS NOT DISTINCT (tenant, name)
);

CREATE UNIQUE INDEX issuers_tenant_ref ON tiergate.issuers (tenant, ref) WHERE ref IS NOT NULL;
CREATE INDEX issuers_referring ON tiergate.issuers (ref) WHERE ref IS NOT NULL;

COMMENT ON TABLE  tiergate.issuers                IS 'Who signs tokens: of the platform (no tenant), of a tenant, or a tenant''s reference to one of the platform';
COMMENT ON COLUMN tiergate.issuers.id             IS 'Number that gateways know it by; never reused';
COMMENT ON COLUMN tiergate.issuers.tenant         IS 'Tenant that it belongs to; null for an issuer of the platform';
COMMENT ON COLUMN tiergate.issuers.name           IS 'Name, unique within its tenant';
COMMENT ON COLUMN tiergate.issuers.ref            IS 'Issuer of the platform that this row refers to; then only audiences may be set here';
COMMENT ON COLUMN tiergate.issuers.issuer         IS 'The iss claim of its tokens';
COMMENT ON COLUMN tiergate.issuers.audiences      IS 'One of these must be in aud; null accepts any';
COMMENT ON COLUMN tiergate.issuers.algorithms     IS 'Signature algorithms that are accepted';
COMMENT ON COLUMN tiergate.issuers.leeway         IS 'Seconds of tolerance for exp and nbf, 0 to 300';
COMMENT ON COLUMN tiergate.issuers.consumer_claim IS 'Claim whose value names the consumer';
COMMENT ON COLUMN tiergate.issuers.jwks_uri       IS 'Where the key set is fetched; null for a static one';
COMMENT ON COLUMN tiergate.issuers.keys           IS 'JSON Web Keys: the static set, or the last good one fetched';


CREATE TABLE tiergate.consumers (
    id     bigint GENERATED ALWAYS AS IDENTITY UNIQUE,
    tenant text   NOT NULL COLLATE "C" REFERENCES tiergate.tenants ON DELETE CASCADE,
    name   text   NOT NULL COLLATE "C",
    labels jsonb  NOT NULL DEFAULT '{}',
    PRIMARY KEY (tenant, name)
);

COMMENT ON TABLE  tiergate.consumers        IS 'Consumers that a tenant has registered; tokens and keys may name others';
COMMENT ON COLUMN tiergate.consumers.id     IS 'Number that gateways know it by; never reused';
COMMENT ON COLUMN tiergate.consumers.tenant IS 'Tenant that it belongs to';
COMMENT ON COLUMN tiergate.consumers.name   IS 'Name, as tokens and keys carry it';
COMMENT ON COLUMN tiergate.consumers.labels IS 'Labels of the tenant, an object of strings';


CREATE TABLE tiergate.api_keys (
    id         bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant     text        NOT NULL COLLATE "C" REFERENCES tiergate.tenants ON DELETE CASCADE,
    consumer   text        NOT NULL COLLATE "C",
    hint       text,
    scopes     text[],
    expires_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT now(),
    rotated_to bigint,
    sha256     bytea       NOT NULL UNIQUE
);

CREATE INDEX api_keys_tenant ON tiergate.api_keys (tenant, consumer);

COMMENT ON TABLE  tiergate.api_keys            IS 'API keys of tenants'' consumers; the key itself is shown once and not kept';
COMMENT ON COLUMN tiergate.api_keys.id         IS 'Number of the key; never reused';
COMMENT ON COLUMN tiergate.api_keys.tenant     IS 'Tenant that it belongs to';
COMMENT ON COLUMN tiergate.api_keys.consumer   IS 'Consumer that it names';
COMMENT ON COLUMN tiergate.api_keys.hint       IS 'First characters of the key, to tell keys apart';
COMMENT ON COLUMN tiergate.api_keys.scopes     IS 'Scopes that it grants';
COMMENT ON COLUMN tiergate.api_keys.expires_at IS 'When it ends; null for never';
COMMENT ON COLUMN tiergate.api_keys.created_at IS 'When it was made';
COMMENT ON COLUMN tiergate.api_keys.rotated_to IS 'Key that replaces it';
COMMENT ON COLUMN tiergate.api_keys.sha256     IS 'SHA-256 of the key';


CREATE TABLE tiergate.upstreams (
    id              bigint  GENERATED ALWAYS AS IDENTITY UNIQUE,
    tenant          text    NOT NULL COLLATE "C" REFERENCES tiergate.tenants ON DELETE CASCADE,
    name            text    NOT NULL COLLATE "C",
    host            text,
    max_outstanding integer NOT NULL DEFAULT 0,
    max_fails       integer NOT NULL DEFAULT 3,
    fail_timeout_ms integer NOT NULL DEFAULT 10000,
    slow_start_ms   integer NOT NULL DEFAULT 10000,
    PRIMARY KEY (tenant, name)
);

COMMENT ON TABLE  tiergate.upstreams                 IS 'Where a tenant''s requests go';
COMMENT ON COLUMN tiergate.upstreams.id              IS 'Number that gateways know it by; never reused';
COMMENT ON COLUMN tiergate.upstreams.tenant          IS 'Tenant that it belongs to';
COMMENT ON COLUMN tiergate.upstreams.name            IS 'Name, unique within its tenant';
COMMENT ON COLUMN tiergate.upstreams.host            IS 'Host header sent upstream; null keeps the client''s';
COMMENT ON COLUMN tiergate.upstreams.max_outstanding IS 'Requests in flight before it breaks the circuit; 0 means no bound';
COMMENT ON COLUMN tiergate.upstreams.max_fails       IS 'Failures after which an endpoint is taken out; 0 never does';
COMMENT ON COLUMN tiergate.upstreams.fail_timeout_ms IS 'For how long it is out, in milliseconds';
COMMENT ON COLUMN tiergate.upstreams.slow_start_ms   IS 'Time to full weight after it has come back, in milliseconds';


CREATE TABLE tiergate.endpoints (
    id       bigint  GENERATED ALWAYS AS IDENTITY UNIQUE,
    tenant   text    NOT NULL COLLATE "C",
    upstream text    NOT NULL COLLATE "C",
    address  inet    NOT NULL,
    port     integer NOT NULL,
    weight   integer NOT NULL DEFAULT 1,
    PRIMARY KEY (tenant, upstream, address, port),
    FOREIGN KEY (tenant, upstream) REFERENCES tiergate.upstreams ON DELETE CASCADE
);

COMMENT ON TABLE  tiergate.endpoints          IS 'Addresses of an upstream';
COMMENT ON COLUMN tiergate.endpoints.id       IS 'Number that gateways know it by; never reused';
COMMENT ON COLUMN tiergate.endpoints.tenant   IS 'Tenant that it belongs to';
COMMENT ON COLUMN tiergate.endpoints.upstream IS 'Upstream that it belongs to';
COMMENT ON COLUMN tiergate.endpoints.address  IS 'IPv4 or IPv6 address; settings endpoints.allow and endpoints.deny say which may be used';
COMMENT ON COLUMN tiergate.endpoints.port     IS 'TCP port';
COMMENT ON COLUMN tiergate.endpoints.weight   IS 'Share of the requests; 0 drains it';


CREATE TABLE tiergate.routes (
    id               bigint  GENERATED ALWAYS AS IDENTITY UNIQUE,
    tenant           text    NOT NULL COLLATE "C" REFERENCES tiergate.tenants ON DELETE CASCADE,
    name             text    NOT NULL COLLATE "C",
    path_type        text    NOT NULL DEFAULT 'prefix',
    path             text    NOT NULL DEFAULT '/',
    methods          text[],
    headers          jsonb,
    hosts            text[],
    auth             text    NOT NULL DEFAULT 'required',
    auth_methods     text[],
    scopes           text[],
    claims           jsonb,
    hide_credentials boolean NOT NULL DEFAULT true,
    rewrite          text,
    rewrite_value    text,
    backends         jsonb   NOT NULL,
    sticky           text    NOT NULL DEFAULT 'none',
    connect_ms       integer NOT NULL DEFAULT 1000,
    send_ms          integer NOT NULL DEFAULT 30000,
    read_ms          integer NOT NULL DEFAULT 30000,
    retries          integer NOT NULL DEFAULT 1,
    websocket        boolean NOT NULL DEFAULT false,
    PRIMARY KEY (tenant, name)
);

-- Two routes of one tenant never have the same match.  Arrays are kept sorted
-- by the trigger, so that equal sets are equal values.
CREATE UNIQUE INDEX routes_match ON tiergate.routes
    (tenant, path, path_type, coalesce(methods, '{}'), coalesce(hosts, '{}'), coalesce(headers, '[]'));

COMMENT ON TABLE  tiergate.routes                  IS 'Which requests of a tenant go where, and under which conditions';
COMMENT ON COLUMN tiergate.routes.id               IS 'Number that gateways know it by; never reused';
COMMENT ON COLUMN tiergate.routes.tenant           IS 'Tenant that it belongs to';
COMMENT ON COLUMN tiergate.routes.name             IS 'Name, unique within its tenant';
COMMENT ON COLUMN tiergate.routes.path_type        IS 'exact, prefix (by whole segments) or regex (PCRE2, anchored at both ends)';
COMMENT ON COLUMN tiergate.routes.path             IS 'What the normalised path must match';
COMMENT ON COLUMN tiergate.routes.methods          IS 'Request methods; null for any';
COMMENT ON COLUMN tiergate.routes.headers          IS 'Headers that must be there: [{"name", "type": "exact"|"regex", "value"}]';
COMMENT ON COLUMN tiergate.routes.hosts            IS 'Hosts of the tenant for which it holds; null for all';
COMMENT ON COLUMN tiergate.routes.auth             IS 'required, optional (bad credentials are refused, none is anonymous) or none';
COMMENT ON COLUMN tiergate.routes.auth_methods     IS 'jwt, api_key; null for both';
COMMENT ON COLUMN tiergate.routes.scopes           IS 'Scopes that are all needed';
COMMENT ON COLUMN tiergate.routes.claims           IS 'Claims that are needed: [{"name", "values"}], one of the values each';
COMMENT ON COLUMN tiergate.routes.hide_credentials IS 'Whether the credential is removed before the request goes upstream';
COMMENT ON COLUMN tiergate.routes.rewrite          IS 'strip_prefix, replace_prefix or replace_path; null leaves the path';
COMMENT ON COLUMN tiergate.routes.rewrite_value    IS 'The new prefix or path';
COMMENT ON COLUMN tiergate.routes.backends         IS 'Upstreams by weight: [{"upstream", "weight"}]';
COMMENT ON COLUMN tiergate.routes.sticky           IS 'none, or consumer: a consumer stays on one upstream';
COMMENT ON COLUMN tiergate.routes.connect_ms       IS 'Time limit for connecting upstream, in milliseconds';
COMMENT ON COLUMN tiergate.routes.send_ms          IS 'Time limit between two writes upstream, in milliseconds';
COMMENT ON COLUMN tiergate.routes.read_ms          IS 'Time limit between two reads from upstream, in milliseconds';
COMMENT ON COLUMN tiergate.routes.retries          IS 'Further attempts on idempotent methods, 0 to 5';
COMMENT ON COLUMN tiergate.routes.websocket        IS 'Whether the connection may be upgraded to WebSocket';


CREATE FUNCTION tiergate.quota_window(per interval)
RETURNS text
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
AS $$
DECLARE
    months  numeric := extract(year FROM per) * 12 + extract(month FROM per);
    seconds numeric := extract(epoch FROM per);
BEGIN
    IF months <> 0 THEN
        RETURN CASE WHEN months = 1 AND per - interval '1 month' = interval '0' THEN 'month' END;
    END IF;
    RETURN CASE WHEN seconds = 86400 THEN 'day'
                WHEN seconds BETWEEN 1 AND 86399 AND seconds % 1 = 0 THEN trunc(seconds) || 's' END;
END
$$;

COMMENT ON FUNCTION tiergate.quota_window(interval) IS
    'The window as gateways write it: "<seconds>s", "day" or "month"; null if a quota cannot have it';


CREATE TABLE tiergate.quotas (
    id          bigint   GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant      text     NOT NULL COLLATE "C" REFERENCES tiergate.tenants ON DELETE CASCADE,
    name        text     NOT NULL COLLATE "C",
    route       text     COLLATE "C",
    consumer    text     COLLATE "C",
    metric      text     NOT NULL DEFAULT 'requests',
    requests    bigint,
    per         interval,
    burst       bigint,
    concurrency bigint,
    body_size   bigint,
    dry_run     boolean  NOT NULL DEFAULT false,
    UNIQUE (tenant, name),
    CONSTRAINT quotas_same UNIQUE NULLS NOT DISTINCT (tenant, metric, route, consumer, per),
    FOREIGN KEY (tenant, route) REFERENCES tiergate.routes ON DELETE CASCADE
);

CREATE INDEX quotas_route ON tiergate.quotas (tenant, route) WHERE route IS NOT NULL;

COMMENT ON TABLE  tiergate.quotas             IS 'What a tenant, each consumer, or a route may use; plain UPDATE is welcome';
COMMENT ON COLUMN tiergate.quotas.id          IS 'Number that gateways know it by; never reused';
COMMENT ON COLUMN tiergate.quotas.tenant      IS 'Tenant that it belongs to';
COMMENT ON COLUMN tiergate.quotas.name        IS 'Name, unique within its tenant; clients see it in RateLimit headers';
COMMENT ON COLUMN tiergate.quotas.route       IS 'Route that it counts; null for all of the tenant''s';
COMMENT ON COLUMN tiergate.quotas.consumer    IS 'Consumer that it counts; * gives each consumer a count of its own; null counts all together';
COMMENT ON COLUMN tiergate.quotas.metric      IS 'requests, concurrency (requests in flight) or body_size (bytes of one request body)';
COMMENT ON COLUMN tiergate.quotas.requests    IS 'Limit of metric requests';
COMMENT ON COLUMN tiergate.quotas.per         IS 'Window of metric requests: whole seconds below a day, or exactly 1 day or 1 month (calendar, UTC)';
COMMENT ON COLUMN tiergate.quotas.burst       IS 'Requests that may come at once above the even pace; null means a full window';
COMMENT ON COLUMN tiergate.quotas.concurrency IS 'Limit of metric concurrency';
COMMENT ON COLUMN tiergate.quotas.body_size   IS 'Limit of metric body_size, in bytes';
COMMENT ON COLUMN tiergate.quotas.dry_run     IS 'Count and report, never refuse';
COMMENT ON CONSTRAINT quotas_same     ON tiergate.quotas IS 'a tenant has one quota of the same metric, route, consumer and window';


CREATE TABLE tiergate.gateways (
    name       text        PRIMARY KEY COLLATE "C",
    kind       text        NOT NULL DEFAULT 'shared',
    tenant     text        COLLATE "C" REFERENCES tiergate.tenants ON DELETE CASCADE,
    state      text        NOT NULL DEFAULT 'unknown',
    revision   bigint      NOT NULL DEFAULT 0,
    boot       text,
    last_seen  timestamptz,
    tenants    integer,
    zone_size  bigint,
    zone_used  bigint,
    rejected   jsonb       NOT NULL DEFAULT '[]',
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT gateways_kind   CHECK (kind IN ('shared', 'dedicated')),
    CONSTRAINT gateways_tenant CHECK ((kind = 'dedicated') = (tenant IS NOT NULL)),
    CONSTRAINT gateways_state  CHECK (state IN ('unknown', 'loading', 'snapshot', 'live'))
) WITH (fillfactor = 50);

CREATE INDEX gateways_tenant_idx ON tiergate.gateways (tenant) WHERE tenant IS NOT NULL;

COMMENT ON TABLE  tiergate.gateways            IS 'Gateways and what they last reported';
COMMENT ON COLUMN tiergate.gateways.name       IS 'Name, as in the gateway''s tenant_source directive';
COMMENT ON COLUMN tiergate.gateways.kind       IS 'shared, or dedicated to one tenant';
COMMENT ON COLUMN tiergate.gateways.tenant     IS 'Tenant of a dedicated gateway';
COMMENT ON COLUMN tiergate.gateways.state      IS 'unknown, loading, snapshot (serving from its snapshot file) or live';
COMMENT ON COLUMN tiergate.gateways.revision   IS 'Revision up to which it has applied every change';
COMMENT ON COLUMN tiergate.gateways.boot       IS 'Life of its shared memory';
COMMENT ON COLUMN tiergate.gateways.last_seen  IS 'When it last reported';
COMMENT ON COLUMN tiergate.gateways.tenants    IS 'How many tenants it holds';
COMMENT ON COLUMN tiergate.gateways.zone_size  IS 'Size of its registry zone in bytes';
COMMENT ON COLUMN tiergate.gateways.zone_used  IS 'Bytes of it in use';
COMMENT ON COLUMN tiergate.gateways.rejected   IS 'Objects that it refused and keeps at their last good state: [{"kind", "name", "revision", "reason"}]';
COMMENT ON COLUMN tiergate.gateways.created_at IS 'When it was registered';
COMMENT ON CONSTRAINT gateways_kind   ON tiergate.gateways IS 'kind is shared or dedicated';
COMMENT ON CONSTRAINT gateways_tenant ON tiergate.gateways IS 'a dedicated gateway has a tenant, a shared one has none';
COMMENT ON CONSTRAINT gateways_state  ON tiergate.gateways IS 'state is unknown, loading, snapshot or live';


CREATE TABLE tiergate.api_tokens (
    id                  bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name                text        NOT NULL UNIQUE COLLATE "C",
    scope               text        NOT NULL,
    tenant              text        COLLATE "C" REFERENCES tiergate.tenants ON DELETE CASCADE,
    gateway             text        COLLATE "C",
    token_sha256        bytea       UNIQUE,
    certificate_sha256  bytea       UNIQUE,
    certificate_subject text        UNIQUE,
    created_at          timestamptz NOT NULL DEFAULT now(),
    expires_at          timestamptz,
    revoked_at          timestamptz,
    CONSTRAINT api_tokens_name    CHECK (tiergate.is_name(name)),
    CONSTRAINT api_tokens_scope   CHECK (scope IN ('admin', 'tenant', 'gateway', 'reader')),
    CONSTRAINT api_tokens_tenant  CHECK ((scope = 'tenant') = (tenant IS NOT NULL)),
    CONSTRAINT api_tokens_gateway CHECK ((scope = 'gateway') = (gateway IS NOT NULL)),
    CONSTRAINT api_tokens_secret  CHECK (num_nonnulls(token_sha256, certificate_sha256, certificate_subject) = 1)
);

COMMENT ON TABLE  tiergate.api_tokens                     IS 'Who may use the REST API: bearer tokens (only their digest is kept) and client certificates';
COMMENT ON COLUMN tiergate.api_tokens.id                  IS 'Number of the token';
COMMENT ON COLUMN tiergate.api_tokens.name                IS 'Name, as the audit cites it';
COMMENT ON COLUMN tiergate.api_tokens.scope               IS 'admin, tenant (its tenant only), gateway (its gateway only) or reader';
COMMENT ON COLUMN tiergate.api_tokens.tenant              IS 'Tenant of scope tenant';
COMMENT ON COLUMN tiergate.api_tokens.gateway             IS 'Gateway of scope gateway';
COMMENT ON COLUMN tiergate.api_tokens.token_sha256        IS 'SHA-256 of the bearer token';
COMMENT ON COLUMN tiergate.api_tokens.certificate_sha256  IS 'or: SHA-256 of the client certificate';
COMMENT ON COLUMN tiergate.api_tokens.certificate_subject IS 'or: subject of a client certificate that the listener trusts';
COMMENT ON COLUMN tiergate.api_tokens.created_at          IS 'When it was made';
COMMENT ON COLUMN tiergate.api_tokens.expires_at          IS 'When it ends; null for never';
COMMENT ON COLUMN tiergate.api_tokens.revoked_at          IS 'When it was revoked';
COMMENT ON CONSTRAINT api_tokens_name    ON tiergate.api_tokens IS 'a name has lower-case letters, digits and inner -._, at most 63';
COMMENT ON CONSTRAINT api_tokens_scope   ON tiergate.api_tokens IS 'scope is admin, tenant, gateway or reader';
COMMENT ON CONSTRAINT api_tokens_tenant  ON tiergate.api_tokens IS 'scope tenant, and no other, names a tenant';
COMMENT ON CONSTRAINT api_tokens_gateway ON tiergate.api_tokens IS 'scope gateway, and no other, names a gateway';
COMMENT ON CONSTRAINT api_tokens_secret  ON tiergate.api_tokens IS 'a token is one of: bearer token, certificate fingerprint, certificate subject';

COMMIT;
