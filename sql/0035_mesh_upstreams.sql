-- SPDX-License-Identifier: BSD-2-Clause
--
-- Upstreams of a tenant may name virtual addresses of its own mesh services, and
-- of nobody else's: settings endpoints.allow and endpoints.deny are about every
-- other address.  A service that an upstream names keeps its addresses.

BEGIN;

INSERT INTO tiergate.schema_migrations (version, name) VALUES (35, 'mesh_upstreams');

INSERT INTO tiergate.refusals (name, status, slug, pointer, detail, hint) VALUES
    ('endpoints_mesh', 422, 'address-refused', '/address', 'address %s is one of the mesh, and of no service of this tenant',
     'an upstream may name the addresses that GET /v1/tenants/{tenant}/mesh/services shows');


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
    'Trigger: endpoints are virtual addresses of the tenant''s own services, or lie where settings endpoints.allow and endpoints.deny let them';


CREATE FUNCTION tiergate.keep_called_mesh_service()
RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    users text;
BEGIN
    -- with the whole tenant everything goes
    IF NOT EXISTS (SELECT FROM tiergate.mesh_tenants m WHERE m.tenant = OLD.tenant) THEN
        RETURN NULL;
    END IF;
    SELECT string_agg(DISTINCT format('upstream "%s"', e.upstream), ', ') INTO users
      FROM tiergate.endpoints e
     WHERE e.tenant = OLD.tenant AND e.address IN (OLD.ipv4, OLD.ipv6)
       AND (TG_OP = 'DELETE' OR e.address IS DISTINCT FROM NEW.ipv4 AND e.address IS DISTINCT FROM NEW.ipv6);
    IF users IS NOT NULL THEN
        PERFORM tiergate.refuse(409, 'service-in-use', '', format('service "%s" is used by %s', OLD.name, users),
                                'change or delete them first');
    END IF;
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION tiergate.keep_called_mesh_service() IS
    'Trigger: a service keeps the virtual addresses that upstreams of its tenant name';

CREATE TRIGGER mesh_services_keep_called AFTER DELETE ON tiergate.mesh_services
    FOR EACH ROW EXECUTE FUNCTION tiergate.keep_called_mesh_service();
CREATE TRIGGER mesh_services_keep_called_addresses AFTER UPDATE OF ipv4, ipv6 ON tiergate.mesh_services
    FOR EACH ROW EXECUTE FUNCTION tiergate.keep_called_mesh_service();

REVOKE ALL ON FUNCTION tiergate.keep_called_mesh_service() FROM PUBLIC;

COMMIT;
