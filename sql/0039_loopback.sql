-- SPDX-License-Identifier: BSD-2-Clause
--
-- An upstream at a loopback address is a service of the gateway's own machine: its
-- metrics, which name all tenants, or tenantd.  Operators may want one there; a token
-- of scope tenant names none.

BEGIN;

INSERT INTO tiergate.schema_migrations (version, name) VALUES (39, 'loopback');

INSERT INTO tiergate.refusals (name, status, slug, pointer, detail, hint) VALUES
    ('endpoints_loopback', 403, 'address-forbidden', '/address', 'address %s is of the gateway''s own machine, where a tenant names none',
     'ask the operator of the platform');


CREATE OR REPLACE FUNCTION tiergate.check_addresses()
RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    pools   inet[];
    outside inet;
    r       record;
BEGIN
    -- there the gateway's own metrics listen, and tenantd
    IF current_setting('tiergate.scope', true) = 'tenant' THEN
        SELECT n.address INTO outside FROM new_rows n
         WHERE n.address <<= '127.0.0.0/8' OR n.address = '::1'
         LIMIT 1;
        IF FOUND THEN
            PERFORM tiergate.refuse_row('endpoints_loopback', host(outside));
        END IF;
    END IF;

    SELECT array_agg((s.value #>> '{}')::inet) INTO pools
      FROM tiergate.settings s WHERE s.name IN ('mesh.ipv4_pool', 'mesh.ipv6_pool');

    FOR r IN SELECT n.tenant, n.address FROM new_rows n WHERE n.address <<= ANY (pools) LOOP
        PERFORM FROM tiergate.mesh_services m
          WHERE m.tenant = r.tenant AND (m.ipv4 = r.address OR m.ipv6 = r.address)
            FOR KEY SHARE;
        IF NOT FOUND THEN
            PERFORM tiergate.refuse_row('endpoints_mesh', host(r.address));
        END IF;
    END LOOP;

    WITH networks AS MATERIALIZED (
        SELECT s.name = 'endpoints.allow' AS allow, n::inet AS network
          FROM tiergate.settings s, jsonb_array_elements_text(s.value) n
         WHERE s.name IN ('endpoints.allow', 'endpoints.deny')
    )
    SELECT x.address INTO outside
      FROM new_rows x
     WHERE (SELECT bool_and(n.allow) FROM networks n WHERE x.address <<= n.network) IS NOT TRUE
       AND x.address <<= ANY (pools) IS NOT TRUE
     LIMIT 1;
    IF FOUND THEN
        PERFORM tiergate.refuse_row('endpoints_policy', host(outside));
    END IF;
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION tiergate.check_addresses() IS
    'Trigger: endpoints are virtual addresses of the tenant''s own services, or lie where settings endpoints.allow and endpoints.deny let them; a tenant''s token names none on loopback';

COMMIT;
