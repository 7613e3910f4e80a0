-- SPDX-License-Identifier: BSD-2-Clause
--
-- Upstreams may call services of the own tenant in the mesh, and nobody else's.

\set QUIET 1
SELECT * FROM no_plan();

CREATE FUNCTION pg_temp.upstream(tenant text, address inet) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    said text;
BEGIN
    INSERT INTO tiergate.upstreams (tenant, name) VALUES ($1, 'u') ON CONFLICT DO NOTHING;
    INSERT INTO tiergate.endpoints (tenant, upstream, address, port) VALUES ($1, 'u', $2, 80);
    RETURN 'ok';
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS said = MESSAGE_TEXT;
    RETURN said;
END
$$;
CREATE FUNCTION pg_temp.virtual(tenant text, family integer DEFAULT 4) RETURNS inet LANGUAGE sql AS $$
    SELECT CASE family WHEN 4 THEN ipv4 ELSE ipv6 END FROM tiergate.mesh_services WHERE mesh_services.tenant = $1 AND name = 'orders'
$$;

SELECT tiergate.create_tenant(t) FROM unnest('{acme,beta}'::text[]) t \g /dev/null
SELECT tiergate.mesh_put_service(t, 'orders', 80) FROM unnest('{acme,beta}'::text[]) t \g /dev/null
UPDATE tiergate.mesh_tenants SET families = 'dual';

SELECT is(pg_temp.upstream('acme', pg_temp.virtual('acme')), 'ok', 'a service of its own');
SELECT is(pg_temp.upstream('acme', pg_temp.virtual('acme', 6)), 'ok', 'by IPv6');
SELECT matches(pg_temp.upstream('acme', pg_temp.virtual('beta')), 'is one of the mesh, and of no service of this tenant', 'another tenant''s');
SELECT matches(pg_temp.upstream('acme', pg_temp.virtual('beta', 6)), 'is one of the mesh, and of no service of this tenant', 'by IPv6');
SELECT matches(pg_temp.upstream('acme', pg_temp.virtual('beta') + 1000), 'is one of the mesh, and of no service of this tenant', 'nobody''s');
SELECT matches(pg_temp.upstream('acme', '250.0.0.1'), 'is not one that upstreams may have', 'what settings refuse, as before');
SELECT is(pg_temp.upstream('acme', '10.1.2.3'), 'ok', 'what they allow, as before');

SELECT throws_like($$ DELETE FROM tiergate.mesh_services WHERE tenant = 'acme' AND name = 'orders' $$,
                   '%service "orders" is used by upstream "u"%', 'a service that an upstream names stays');
SELECT throws_like($$ UPDATE tiergate.mesh_tenants SET families = 'ipv4' WHERE tenant = 'acme' $$,
                   '%service "orders" is used by upstream "u"%', 'and keeps its addresses');
SELECT lives_ok($$ UPDATE tiergate.mesh_tenants SET families = 'ipv4' WHERE tenant = 'beta' $$, 'others give theirs back');
DELETE FROM tiergate.endpoints WHERE tenant = 'acme' AND address << '240.0.0.0/4' OR family(address) = 6;
SELECT lives_ok($$ DELETE FROM tiergate.mesh_services WHERE tenant = 'acme' AND name = 'orders' $$, 'what nobody names goes');
SELECT lives_ok($$ SELECT tiergate.delete_tenant('beta') $$, 'with its tenant everything goes');

SELECT * FROM finish();
