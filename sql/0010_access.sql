-- SPDX-License-Identifier: BSD-2-Clause
--
-- Who may use the REST API, and what tenantd asks before each call: is this
-- credential good for that, and has this very call been answered before?

BEGIN;

INSERT INTO tiergate.schema_migrations (version, name) VALUES (10, 'access');

CREATE FUNCTION tiergate.create_token(name text, scope text DEFAULT 'admin', tenant text DEFAULT NULL,
                                      gateway text DEFAULT NULL, expires timestamptz DEFAULT NULL)
RETURNS text
LANGUAGE plpgsql
AS $$
DECLARE
    token text := tiergate.new_secret('tgt_');
BEGIN
    IF (scope IN ('admin', 'reader', 'tenant', 'gateway')) IS NOT TRUE THEN
        PERFORM tiergate.refuse(422, 'unknown-value', '/scope', format('scope "%s" is not known', scope),
                                'use admin, reader, tenant or gateway');
    END IF;
    IF (scope = 'tenant') <> (tenant IS NOT NULL) OR (scope = 'gateway') <> (gateway IS NOT NULL) THEN
        PERFORM tiergate.refuse(422, 'invalid-token', '',
                                'scope tenant, and no other, names a tenant; scope gateway, and no other, a gateway',
                                'create_token(''ci'', scope => ''tenant'', tenant => ''acme'')');
    END IF;
    INSERT INTO tiergate.api_tokens (name, scope, tenant, gateway, expires_at, token_sha256)
    VALUES (create_token.name, create_token.scope, create_token.tenant, create_token.gateway, expires,
            sha256(token::bytea));
    RETURN token;
END
$$;

COMMENT ON FUNCTION tiergate.create_token(text, text, text, text, timestamptz) IS
    'Makes a bearer token for the REST API and returns it, the only time that it is seen; scope admin, tenant (with tenant), gateway (with gateway) or reader';


CREATE FUNCTION tiergate.revoke_token(name text)
RETURNS void
LANGUAGE plpgsql
AS $$
BEGIN
    UPDATE tiergate.api_tokens t SET revoked_at = now()
     WHERE t.name = revoke_token.name AND t.revoked_at IS NULL;
    IF NOT FOUND THEN
        PERFORM tiergate.refuse(404, 'unknown-token', '',
                                format('there is no valid token "%s"', revoke_token.name));
    END IF;
END
$$;

COMMENT ON FUNCTION tiergate.revoke_token(text) IS 'Revokes a token of the REST API; the next call with it fails';


CREATE TYPE tiergate_api.response AS (
    status   integer,
    etag     text,
    location text,
    body     text
);

COMMENT ON TYPE tiergate_api.response IS 'Answer to a REST call: status, ETag, Location, body as JSON text';


CREATE TABLE tiergate.idempotency_keys (
    credential text        NOT NULL,
    key        text        NOT NULL,
    digest     text        NOT NULL,
    status     integer,
    etag       text,
    location   text,
    body       text,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (credential, key),
    CONSTRAINT idempotency_keys_key CHECK (octet_length(key) BETWEEN 1 AND 255)
);

CREATE INDEX idempotency_keys_created ON tiergate.idempotency_keys (created_at);

COMMENT ON TABLE  tiergate.idempotency_keys            IS 'Answers that are given again when a call is repeated with its Idempotency-Key';
COMMENT ON COLUMN tiergate.idempotency_keys.credential IS 'Who made the call';
COMMENT ON COLUMN tiergate.idempotency_keys.key        IS 'The Idempotency-Key';
COMMENT ON COLUMN tiergate.idempotency_keys.digest     IS 'Digest of method, path and body';
COMMENT ON COLUMN tiergate.idempotency_keys.status     IS 'HTTP status of the answer';
COMMENT ON COLUMN tiergate.idempotency_keys.etag       IS 'Its ETag';
COMMENT ON COLUMN tiergate.idempotency_keys.location   IS 'Its Location';
COMMENT ON COLUMN tiergate.idempotency_keys.body       IS 'Its body, without the secrets that are shown once';
COMMENT ON COLUMN tiergate.idempotency_keys.created_at IS 'When the call was made';
COMMENT ON CONSTRAINT idempotency_keys_key ON tiergate.idempotency_keys IS 'an Idempotency-Key has 1 to 255 bytes';


CREATE FUNCTION tiergate.resolve_credential(credential jsonb, OUT actor text, OUT scope text,
                                            OUT tenant text, OUT gateway text)
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    t tiergate.api_tokens;
BEGIN
    IF credential ? 'peer' THEN
        actor   := 'peer:' || coalesce(credential #>> '{peer,user}', '?');
        scope   := credential #>> '{peer,role}';
        tenant  := credential #>> '{peer,tenant}';
        gateway := credential #>> '{peer,gateway}';
        RETURN;
    ELSIF credential ? 'token_sha256' THEN
        SELECT * INTO t FROM tiergate.api_tokens x
         WHERE x.token_sha256 = decode(credential->>'token_sha256', 'hex');
        actor := 'token:' || t.name;
    ELSIF credential ? 'certificate' THEN
        SELECT * INTO t FROM tiergate.api_tokens x
         WHERE x.certificate_sha256 = decode(credential #>> '{certificate,sha256}', 'hex')
            OR x.certificate_subject = credential #>> '{certificate,subject}'
         ORDER BY x.certificate_sha256 IS NULL LIMIT 1;
        actor := 'certificate:' || t.name;
    ELSE
        PERFORM tiergate.refuse(401, 'missing-credential', '', 'this call needs a credential',
                                'send Authorization: Bearer with an API token');
    END IF;

    IF t.id IS NULL OR t.revoked_at IS NOT NULL OR t.expires_at <= now() THEN
        PERFORM tiergate.refuse(401, 'invalid-credential', '', 'the credential is unknown, expired or revoked',
                                'ask the platform operator for a new token');
    END IF;
    scope   := t.scope;
    tenant  := t.tenant;
    gateway := t.gateway;
END
$$;

COMMENT ON FUNCTION tiergate.resolve_credential(jsonb) IS
    'Who a credential is: {"token_sha256"}, {"certificate": {"sha256", "subject"}} or, as tenantd vouches, {"peer": {"user", "role"}}';


-- An admin may everything; a tenant's token everything that needs tenant or
-- reader below its own path, a gateway's token its own path.
CREATE FUNCTION tiergate.scope_allows(required text, subject text, scope text, tenant text, gateway text)
RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT coalesce(CASE
        WHEN scope = 'admin' THEN true
        WHEN required = 'tenant'  THEN scope = 'tenant' AND tenant = subject
        WHEN required = 'reader'  THEN scope = 'reader' OR (scope = 'tenant' AND tenant = subject)
        WHEN required = 'gateway' THEN scope = 'gateway' AND (gateway IS NULL OR gateway = subject)
        END, false)
$$;

COMMENT ON FUNCTION tiergate.scope_allows(text, text, text, text, text) IS
    'Whether a credential of this scope may do what requires admin, tenant, reader or gateway on a subject (tenant or gateway of the path)';


-- All columns are null unless the call was answered before: then they are the answer.
CREATE FUNCTION tiergate_api.begin_request(credential jsonb, required_scope text, subject text,
                                           idempotency jsonb, if_match text, request_id text)
RETURNS tiergate_api.response
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    who    record;
    before tiergate.idempotency_keys;
BEGIN
    SELECT * INTO who FROM tiergate.resolve_credential(credential);
    IF NOT tiergate.scope_allows(required_scope, subject, who.scope, who.tenant, who.gateway) THEN
        PERFORM tiergate.refuse(403, 'forbidden', '', 'the credential does not allow this call',
                                CASE WHEN subject IS NULL OR required_scope = 'admin' THEN format('it takes scope %s', required_scope)
                                     ELSE format('it takes scope admin, or scope %s that may do this to "%s"',
                                                 required_scope, left(subject, 100)) END);
    END IF;

    PERFORM set_config('tiergate.actor',        who.actor, true),
            set_config('tiergate.scope',        who.scope, true),
            set_config('tiergate.token_tenant', coalesce(who.tenant, ''), true),
            set_config('tiergate.gateway',      coalesce(who.gateway, ''), true),
            set_config('tiergate.if_match',     coalesce(if_match, ''), true),
            set_config('tiergate.request_id',   coalesce(request_id, ''), true),
            set_config('timezone',              'UTC', true),
            -- for plans that outlive the size that a table has now, see 0007_tenants
            set_config('plan_cache_mode',       'force_generic_plan', true),
            set_config('enable_seqscan',        'off', true),
            set_config('jit',                   'off', true);

    IF idempotency IS NULL THEN
        RETURN NULL;
    END IF;

    -- a concurrent call with the same key waits here until the first has ended
    INSERT INTO tiergate.idempotency_keys (credential, key, digest)
    VALUES (who.actor, idempotency->>'key', idempotency->>'digest')
        ON CONFLICT DO NOTHING;
    IF FOUND THEN
        RETURN NULL;
    END IF;

    SELECT * INTO before FROM tiergate.idempotency_keys k
     WHERE k.credential = who.actor AND k.key = idempotency->>'key';
    IF before.digest <> idempotency->>'digest' THEN
        PERFORM tiergate.refuse(422, 'idempotency-key-reused', '',
                                'this Idempotency-Key came with another request before',
                                'use a new key for each new request');
    END IF;
    RETURN ROW(before.status, before.etag, before.location, before.body)::tiergate_api.response;
END
$$;

COMMENT ON FUNCTION tiergate_api.begin_request(jsonb, text, text, jsonb, text, text) IS
    'Opens the transaction of a REST call: resolves the credential, checks the scope, remembers who it is for the audit; returns the answer if {"key", "digest"} was answered before';


-- Keys are claimed in one order by everybody, so that two who want the same ones
-- do not wait for each other.
CREATE FUNCTION tiergate_api.claim_keys(calls jsonb)
RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    wanted  bigint := (SELECT count(*) FROM jsonb_array_elements(calls) c WHERE c ? 'idempotency');
    claimed bigint;
BEGIN
    IF wanted = 0 THEN
        RETURN;
    END IF;

    INSERT INTO tiergate.idempotency_keys (credential, key, digest)
    SELECT current_setting('tiergate.actor'), c #>> '{idempotency,key}', c #>> '{idempotency,digest}'
      FROM jsonb_array_elements(calls) c
     WHERE c ? 'idempotency'
     ORDER BY 2
        ON CONFLICT DO NOTHING;
    GET DIAGNOSTICS claimed = ROW_COUNT;
    IF claimed < wanted THEN
        RAISE unique_violation USING MESSAGE = 'one of these calls was made before';
    END IF;
END
$$;

COMMENT ON FUNCTION tiergate_api.claim_keys(jsonb) IS
    'Claims the Idempotency-Keys of [{"idempotency": {"key", "digest"}}]; fails if one of them is taken';


CREATE FUNCTION tiergate_api.remember(idempotency jsonb, response tiergate_api.response)
RETURNS void
LANGUAGE sql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    UPDATE tiergate.idempotency_keys k
       SET status = response.status, etag = response.etag, location = response.location,
           body = regexp_replace(response.body, '"(key|token)" ?: ?"tg[kt]_[^"]*"', '"\1":null', 'g')
     WHERE k.credential = current_setting('tiergate.actor') AND k.key = idempotency->>'key'
$$;

COMMENT ON FUNCTION tiergate_api.remember(jsonb, tiergate_api.response) IS
    'Keeps an answer for its Idempotency-Key, without keys and tokens: those are shown once';

COMMIT;
