-- SPDX-License-Identifier: BSD-2-Clause
--
-- Credentials, scopes, and calls that are repeated.

\set QUIET 1
SELECT * FROM no_plan();

SELECT tiergate.onboard('{"name": "acme"}');
SELECT tiergate.onboard('{"name": "beta"}');

CREATE TEMP TABLE credential (name text PRIMARY KEY, credential jsonb);
CREATE FUNCTION pg_temp.token(name text, scope text, tenant text DEFAULT NULL, gateway text DEFAULT NULL, expires timestamptz DEFAULT NULL)
RETURNS void LANGUAGE sql AS $$
    INSERT INTO credential
    SELECT name, jsonb_build_object('token_sha256', encode(sha256(tiergate.create_token(name, scope, tenant, gateway, expires)::bytea), 'hex'))
$$;
SELECT pg_temp.token('admin', 'admin');
SELECT pg_temp.token('reader', 'reader');
SELECT pg_temp.token('acme', 'tenant', 'acme');
SELECT pg_temp.token('gate', 'gateway', NULL, 'g1');
SELECT pg_temp.token('gone', 'admin', NULL, NULL, now() - interval '1 second');
SELECT pg_temp.token('revoked', 'admin');
SELECT tiergate.revoke_token('revoked');
INSERT INTO tiergate.api_tokens (name, scope, certificate_subject) VALUES ('by-subject', 'reader', 'CN=ops');
INSERT INTO tiergate.api_tokens (name, scope, certificate_sha256) VALUES ('by-print', 'admin', sha256('cert'));
INSERT INTO credential VALUES
    ('none', '{}'), ('unknown', jsonb_build_object('token_sha256', repeat('0', 64))),
    ('root', '{"peer": {"user": "root", "role": "admin"}}'), ('www', '{"peer": {"user": "www-data", "role": "gateway"}}'),
    ('nobody', '{"peer": {"user": "nobody"}}'),
    ('subject', '{"certificate": {"subject": "CN=ops", "sha256": "00"}}'), ('other-subject', '{"certificate": {"subject": "CN=other", "sha256": "00"}}'),
    ('print', jsonb_build_object('certificate', jsonb_build_object('subject', 'CN=ops', 'sha256', encode(sha256('cert'), 'hex'))));

CREATE FUNCTION pg_temp.try(who text, scope text, subject text DEFAULT NULL) RETURNS text LANGUAGE plpgsql AS $$
DECLARE state text; slug text;
BEGIN
    PERFORM tiergate_api.begin_request((SELECT credential FROM credential WHERE name = who), scope, subject, NULL, NULL, 'r');
    RETURN 'ok';
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, slug = PG_EXCEPTION_DETAIL;
    RETURN substr(state, 3) || ' ' || slug;
END
$$;

SELECT is(pg_temp.try(who, scope, subject), expected, format('%s for %s of %s', who, scope, subject)) FROM (VALUES
    ('none', 'reader', NULL, '401 missing-credential'), ('unknown', 'reader', NULL, '401 invalid-credential'),
    ('gone', 'reader', NULL, '401 invalid-credential'), ('revoked', 'reader', NULL, '401 invalid-credential'),
    ('other-subject', 'reader', NULL, '401 invalid-credential'), ('nobody', 'reader', NULL, '403 forbidden'),
    ('admin', 'admin', NULL, 'ok'), ('admin', 'tenant', 'acme', 'ok'), ('admin', 'reader', NULL, 'ok'), ('admin', 'gateway', 'g1', 'ok'),
    ('root', 'admin', NULL, 'ok'), ('print', 'admin', NULL, 'ok'),
    ('reader', 'reader', NULL, 'ok'), ('reader', 'reader', 'acme', 'ok'), ('reader', 'admin', NULL, '403 forbidden'),
    ('reader', 'tenant', 'acme', '403 forbidden'), ('reader', 'gateway', 'g1', '403 forbidden'),
    ('subject', 'reader', NULL, 'ok'), ('subject', 'admin', NULL, '403 forbidden'),
    ('acme', 'tenant', 'acme', 'ok'), ('acme', 'reader', 'acme', 'ok'), ('acme', 'tenant', 'beta', '403 forbidden'),
    ('acme', 'reader', 'beta', '403 forbidden'), ('acme', 'reader', NULL, '403 forbidden'), ('acme', 'tenant', NULL, '403 forbidden'),
    ('acme', 'admin', 'acme', '403 forbidden'), ('acme', 'gateway', 'acme', '403 forbidden'),
    ('gate', 'gateway', 'g1', 'ok'), ('gate', 'gateway', 'g2', '403 forbidden'), ('gate', 'reader', NULL, '403 forbidden'),
    ('gate', 'tenant', 'acme', '403 forbidden'), ('gate', 'admin', NULL, '403 forbidden'), ('www', 'gateway', 'g7', 'ok'),
    ('www', 'admin', NULL, '403 forbidden'), ('admin', 'unheard-of', NULL, 'ok'), ('reader', 'unheard-of', NULL, '403 forbidden')
    ) v (who, scope, subject, expected);

-- repeated calls
CREATE FUNCTION pg_temp.post(key text, digest text, who text DEFAULT 'admin') RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    r tiergate_api.response;
    i jsonb := jsonb_build_object('key', key, 'digest', digest);
BEGIN
    r := tiergate_api.begin_request((SELECT credential FROM credential WHERE name = who), 'admin', NULL, i, NULL, 'r');
    IF r.status IS NOT NULL THEN
        RETURN 'again ' || r.status || ' ' || r.body;
    END IF;
    r := ROW(201, '"5"', '/v1/x', '{"id": 1, "key": "tgk_abc", "keys": [{"key":"tgk_def"}], "token" : "tgt_x"}')::tiergate_api.response;
    PERFORM tiergate_api.remember(i, r);
    RETURN 'new ' || r.body;
END
$$;
SELECT is(pg_temp.post('k1', 'd1'), 'new {"id": 1, "key": "tgk_abc", "keys": [{"key":"tgk_def"}], "token" : "tgt_x"}', 'the first call');
SELECT is(pg_temp.post('k1', 'd1'), 'again 201 {"id": 1, "key":null, "keys": [{"key":null}], "token":null}', 'the second gets the same, without secrets');
SELECT throws_ok($$ SELECT pg_temp.post('k1', 'd2') $$, 'TG422', NULL, 'the key with another body');
SELECT alike(pg_temp.post('k2', 'd1'), 'new %', 'another key');
SELECT alike(pg_temp.post('k1', 'd1', 'root'), 'new %', 'another credential');
SELECT is((SELECT count(*) FROM tiergate.idempotency_keys WHERE body LIKE '%tg_\_%'), 0::bigint, 'no secret is kept');
UPDATE tiergate.idempotency_keys SET created_at = now() - interval '25 hours' WHERE key = 'k1';
SELECT tiergate.housekeeping();
SELECT alike(pg_temp.post('k1', 'd1'), 'new %', 'after a day it is forgotten');

SELECT * FROM finish();
