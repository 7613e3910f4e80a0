-- SPDX-License-Identifier: BSD-2-Clause
--
-- A fetch of a key set has a number, and only the one that was given out last
-- tells its outcome.  Without it, a set that was fetched while jwks_uri was
-- changed came back after the change had emptied the issuer's keys, and a
-- next_at that was set meanwhile was lost.

BEGIN;

INSERT INTO tiergate.schema_migrations (version, name) VALUES (42, 'jwks_attempts');


CREATE SEQUENCE tiergate.jwks_attempts;

ALTER TABLE tiergate.jwks_state
    ADD COLUMN attempt bigint,
    ADD COLUMN leased_until timestamptz;

COMMENT ON COLUMN tiergate.jwks_state.attempt        IS 'Number of the fetch that was given out last; others are not listened to';
COMMENT ON COLUMN tiergate.jwks_state.leased_until IS 'What next_at was set to then: if it is another by now, someone wants the set sooner';


DROP FUNCTION tiergate.due_jwks(integer);
DROP FUNCTION tiergate.store_jwks(bigint, jsonb);
DROP FUNCTION tiergate.jwks_failed(bigint, text);


CREATE FUNCTION tiergate.due_jwks(most integer DEFAULT 32)
RETURNS TABLE (issuer_id bigint, tenant text, name text, jwks_uri text, attempt bigint)
LANGUAGE sql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    INSERT INTO tiergate.jwks_state (issuer_id)
    SELECT i.id FROM tiergate.issuers i
     WHERE i.jwks_uri IS NOT NULL AND NOT EXISTS (SELECT FROM tiergate.jwks_state s WHERE s.issuer_id = i.id)
        ON CONFLICT DO NOTHING;

    -- whoever takes one has a minute for it, then another may
    WITH due AS MATERIALIZED (
        SELECT s.issuer_id FROM tiergate.jwks_state s
         WHERE s.next_at <= now()
         ORDER BY s.next_at LIMIT most
           FOR UPDATE SKIP LOCKED
    ), taken AS (
        UPDATE tiergate.jwks_state s
           SET attempt = nextval('tiergate.jwks_attempts'),
               next_at = now() + interval '1 minute', leased_until = now() + interval '1 minute'
          FROM due WHERE s.issuer_id = due.issuer_id
        RETURNING s.issuer_id, s.attempt
    )
    SELECT i.id, i.tenant, i.name, i.jwks_uri, taken.attempt
      FROM taken JOIN tiergate.issuers i ON i.id = taken.issuer_id
     WHERE i.jwks_uri IS NOT NULL;
$$;

COMMENT ON FUNCTION tiergate.due_jwks(integer) IS
    'Takes issuers whose key set is to be fetched; each is given to one caller, with the number to tell the outcome by';


CREATE FUNCTION tiergate.jwks_failed(issuer_id bigint, attempt bigint, error text)
RETURNS void
LANGUAGE sql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    UPDATE tiergate.jwks_state s
       SET failures = s.failures + 1, error = left(jwks_failed.error, 500), leased_until = NULL,
           next_at = CASE WHEN s.next_at IS DISTINCT FROM s.leased_until THEN s.next_at
                          ELSE now() + least(make_interval(secs => (tiergate.setting('jwks.refresh_seconds'))::integer),
                                             interval '5 seconds' * 2 ^ least(s.failures, 10)) END
     WHERE s.issuer_id = jwks_failed.issuer_id AND s.attempt = jwks_failed.attempt
$$;

COMMENT ON FUNCTION tiergate.jwks_failed(bigint, bigint, text) IS
    'Fetching a key set failed: the last good one stays, the next attempt comes later each time';


CREATE FUNCTION tiergate.store_jwks(issuer_id bigint, attempt bigint, jwks jsonb)
RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    good    jsonb;
    changed boolean;
BEGIN
    -- in the order in which a change of jwks_uri takes them
    PERFORM FROM tiergate.issuers i WHERE i.id = store_jwks.issuer_id FOR NO KEY UPDATE;
    PERFORM FROM tiergate.jwks_state s
      WHERE s.issuer_id = store_jwks.issuer_id AND s.attempt = store_jwks.attempt FOR UPDATE;
    IF NOT FOUND THEN
        RETURN false;
    END IF;

    -- a set may hold keys for other uses, which are not ours to judge
    SELECT jsonb_agg(k.known ORDER BY k.ordinality) INTO good
      FROM (SELECT j.ordinality,
                   (SELECT jsonb_object_agg(m.key, m.value) FROM jsonb_each(j.value) m
                     WHERE m.key IN ('kty', 'kid', 'use', 'alg', 'crv', 'n', 'e', 'x', 'y')) AS known
              FROM jsonb_array_elements(CASE jsonb_typeof(jwks->'keys') WHEN 'array' THEN jwks->'keys' END)
                   WITH ORDINALITY j
             WHERE tiergate.jwk_problem(j.value) IS NULL AND j.value->>'kty' <> 'oct'
             ORDER BY j.ordinality
             LIMIT (SELECT l.value FROM tiergate.limits l WHERE l.name = 'keys_per_issuer')) k;
    IF good IS NULL THEN
        PERFORM tiergate.jwks_failed(issuer_id, attempt, 'the key set has no key that can verify tokens');
        RETURN false;
    END IF;

    UPDATE tiergate.issuers i SET keys = good
     WHERE i.id = store_jwks.issuer_id AND i.jwks_uri IS NOT NULL AND i.keys IS DISTINCT FROM good;
    changed := FOUND;

    UPDATE tiergate.jwks_state s
       SET fetched_at = now(), failures = 0, error = NULL, leased_until = NULL,
           next_at = CASE WHEN s.next_at IS DISTINCT FROM s.leased_until THEN s.next_at
                          ELSE now() + make_interval(secs => (tiergate.setting('jwks.refresh_seconds'))::integer) END
     WHERE s.issuer_id = store_jwks.issuer_id;
    RETURN changed;
END
$$;

COMMENT ON FUNCTION tiergate.store_jwks(bigint, bigint, jsonb) IS
    'Keeps a fetched key set; makes a revision only if the keys changed, and says so; a fetch that is not the last is ignored';


REVOKE ALL ON FUNCTION
    tiergate.due_jwks(integer), tiergate.store_jwks(bigint, bigint, jsonb), tiergate.jwks_failed(bigint, bigint, text)
    FROM PUBLIC;
GRANT EXECUTE ON FUNCTION
    tiergate.due_jwks(integer), tiergate.store_jwks(bigint, bigint, jsonb), tiergate.jwks_failed(bigint, bigint, text)
    TO tiergate_daemon;

COMMIT;
