-- SPDX-License-Identifier: BSD-2-Clause
--
-- The mesh for operators and for the REST API: bodies, objects, functions, and what
-- agents report.

BEGIN;

INSERT INTO tiergate.schema_migrations (version, name) VALUES (30, 'mesh_api');

-- Bodies, as in 0005_bodies

INSERT INTO tiergate.body_fields
    (object, field, type, required, low, high, choices, format, child, description) VALUES
    ('mesh_settings', 'defaults',      'object', false, NULL, NULL, NULL, NULL, 'mesh_defaults', 'What holds where no policy does'),
    ('mesh_settings', 'families',      'string', false, NULL, NULL, '{ipv4,ipv6,dual}', NULL, NULL, 'Which addresses services get'),
    ('mesh_settings', 'endpoint_nets', 'array',  false, 0, 64, NULL, NULL, 'mesh_networks', 'Networks in which the tenant may name endpoints'),
    ('mesh_defaults', 'from_same',     'boolean', false, NULL, NULL, NULL, NULL, NULL, 'Own workloads may call its services'),
    ('mesh_defaults', 'from_other',    'boolean', false, NULL, NULL, NULL, NULL, NULL, 'Workloads of other tenants may'),
    ('mesh_defaults', 'from_outside',  'boolean', false, NULL, NULL, NULL, NULL, NULL, 'Callers that the mesh does not know may'),
    ('mesh_defaults', 'from_node',     'boolean', false, NULL, NULL, NULL, NULL, NULL, 'Nodes may'),
    ('mesh_defaults', 'to_same',       'boolean', false, NULL, NULL, NULL, NULL, NULL, 'Its workloads may call its own services'),
    ('mesh_defaults', 'to_other',      'boolean', false, NULL, NULL, NULL, NULL, NULL, 'They may call other tenants'),
    ('mesh_defaults', 'to_outside',    'boolean', false, NULL, NULL, NULL, NULL, NULL, 'They may call out of the mesh'),

    ('mesh_service', 'name',           'string', true,  NULL, NULL, NULL, 'label', NULL, 'Name of the service'),
    ('mesh_service', 'ports',          'array',  false, 0, 16, NULL, NULL, 'mesh_ports', 'Ports of the virtual address'),
    ('mesh_service', 'limits',         'object', false, NULL, NULL, NULL, NULL, 'mesh_limits', 'What its callers may do on each node'),
    ('mesh_service', 'health',         'object', false, NULL, NULL, NULL, NULL, 'mesh_check', 'How endpoints are checked; absent: they are not'),
    ('mesh_service', 'endpoints',      'array',  false, 0, 10000, NULL, NULL, 'mesh_endpoints', 'All its endpoints; absent: they stay as they are'),
    ('mesh_ports', '[]',               'object', false, NULL, NULL, NULL, NULL, 'mesh_port', 'Port'),
    ('mesh_port', 'port',              'integer', true, 1, 65535, NULL, NULL, NULL, 'Port'),
    ('mesh_port', 'protocol',          'string', false, NULL, NULL, '{tcp,udp}', NULL, NULL, 'tcp or udp; default: tcp'),
    ('mesh_limits', 'connections_per_second', 'integer', false, 1, 2147483647, NULL, NULL, NULL, 'New connections per second'),
    ('mesh_limits', 'burst',            'integer', false, 1, 2147483647, NULL, NULL, NULL, 'Of them at once'),
    ('mesh_limits', 'open_connections', 'integer', false, 1, 2147483647, NULL, NULL, NULL, 'Open connections'),
    ('mesh_check', 'type',             'string', true,  NULL, NULL, '{tcp,http}', NULL, NULL, 'tcp: connects; http: GET, 2xx or 3xx is well'),
    ('mesh_check', 'path',             'string', false, 1, 512, NULL, 'token', NULL, 'Path of http'),
    ('mesh_check', 'port',             'integer', false, 1, 65535, NULL, NULL, NULL, 'Port; default: that of the endpoint'),
    ('mesh_check', 'interval_ms',      'integer', false, 100, 3600000, NULL, NULL, NULL, 'From one check to the next'),
    ('mesh_check', 'timeout_ms',       'integer', false, 10, 60000, NULL, NULL, NULL, 'How long one may take'),
    ('mesh_check', 'rise',             'integer', false, 1, 100, NULL, NULL, NULL, 'Good checks until it is healthy'),
    ('mesh_check', 'fall',             'integer', false, 1, 100, NULL, NULL, NULL, 'Bad ones until it is not'),
    ('mesh_endpoints', '[]',           'object', false, NULL, NULL, NULL, NULL, 'mesh_endpoint', 'Endpoint'),
    ('mesh_endpoint', 'address',       'string', true,  NULL, NULL, NULL, 'address', NULL, 'IPv4 or IPv6 address'),
    ('mesh_endpoint', 'port',          'integer', true, 1, 65535, NULL, NULL, NULL, 'Port'),
    ('mesh_endpoint', 'service_port',  'integer', false, 1, 65535, NULL, NULL, NULL, 'Port of the service; default: its first'),
    ('mesh_endpoint', 'weight',        'integer', false, 0, 1000, NULL, NULL, NULL, 'Share of new connections; 0 drains it; default: 100'),
    ('mesh_endpoint', 'node',          'string', false, NULL, NULL, NULL, 'name', NULL, 'Node whose agent checks its health'),

    ('mesh_workload', 'name',          'string', true,  NULL, NULL, NULL, 'name', NULL, 'Name of the workload'),
    ('mesh_workload', 'service',       'string', true,  NULL, NULL, NULL, 'label', NULL, 'Service that it is'),
    ('mesh_workload', 'node',          'string', true,  NULL, NULL, NULL, 'name', NULL, 'Node that it runs on'),
    ('mesh_workload', 'cgroup',        'string', false, 1, 1024, NULL, 'text', NULL, 'Its cgroup, a path below the cgroup2 mount'),
    ('mesh_workload', 'pod_uid',       'string', false, NULL, NULL, NULL, 'uuid', NULL, 'or the UID of its pod'),
    ('mesh_workload', 'addresses',     'array',  false, 0, 64, NULL, NULL, 'mesh_addresses', 'Its own addresses'),
    ('mesh_workload', 'any_source',    'boolean', false, NULL, NULL, NULL, NULL, NULL, 'Whether it may send from any address'),
    ('mesh_addresses', '[]',           'string', false, NULL, NULL, NULL, 'address', NULL, 'Address'),
    ('mesh_networks', '[]',            'string', false, NULL, NULL, NULL, 'network', NULL, 'Network'),

    ('mesh_policy', 'name',            'string', true,  NULL, NULL, NULL, 'name', NULL, 'Name of the policy'),
    ('mesh_policy', 'action',          'string', true,  NULL, NULL, '{allow,deny}', NULL, NULL, 'allow or deny'),
    ('mesh_policy', 'precedence',      'integer', false, 0, 1000000, NULL, NULL, NULL, 'The highest counts; default: 1000'),
    ('mesh_policy', 'from',            'object', false, NULL, NULL, NULL, NULL, 'mesh_side', 'Who calls; absent or empty: anybody'),
    ('mesh_policy', 'to',              'object', false, NULL, NULL, NULL, NULL, 'mesh_side', 'Who is called; absent or empty: anybody'),
    ('mesh_policy', 'protocol',        'string', false, NULL, NULL, '{tcp,udp}', NULL, NULL, 'tcp or udp; absent: both'),
    ('mesh_policy', 'ports',           'array',  false, 0, 16, NULL, NULL, 'mesh_policy_ports', 'Ports of the endpoint; absent or empty: any'),
    ('mesh_policy', 'description',     'string', false, 0, 1000, NULL, NULL, NULL, 'What it is for'),
    ('mesh_policy_ports', '[]',        'integer', false, 1, 65535, NULL, NULL, NULL, 'Port'),
    ('mesh_side', 'service',           'string', false, NULL, NULL, NULL, 'label', NULL, 'Service of tenant, or of the policy''s own'),
    ('mesh_side', 'tenant',            'string', false, NULL, NULL, NULL, 'label', NULL, 'Tenant'),
    ('mesh_side', 'cidr',              'string', false, NULL, NULL, NULL, 'network', NULL, 'Network of peers without identity'),

    ('mesh_node', 'name',              'string', true,  NULL, NULL, NULL, 'name', NULL, 'Name of the node'),
    ('mesh_node', 'addresses',         'array',  false, 0, 64, NULL, NULL, 'mesh_addresses', 'Its own addresses'),
    ('mesh_node', 'workload_nets',     'array',  false, 0, 64, NULL, NULL, 'mesh_networks', 'Networks of which its agent gives workloads addresses'),
    ('mesh_node', 'tenants',           'array',  false, 0, 10000, NULL, NULL, 'mesh_tenants', 'Tenants that it runs; ["*"] for all'),
    ('mesh_tenants', '[]',             'string', false, 1, 63, NULL, NULL, NULL, 'Tenant, or *');

UPDATE tiergate.body_fields f SET unique_by = u.unique_by::text[]
  FROM (VALUES ('mesh_ports', '{port,protocol}'), ('mesh_endpoints', '{address,port}'), ('mesh_addresses', '{}'),
               ('mesh_policy_ports', '{}'), ('mesh_tenants', '{}')) AS u (object, unique_by)
 WHERE f.object = u.object AND f.field = '[]';


CREATE FUNCTION tiergate.parse_network(network text)
RETURNS cidr
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
AS $$
BEGIN
    IF tiergate.parse_address(split_part(network, '/', 1)) IS NULL OR network !~ '^[^/]+(/[0-9]{1,3})?$' THEN
        RETURN NULL;
    END IF;
    RETURN network::cidr;
EXCEPTION WHEN invalid_text_representation THEN
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION tiergate.parse_network(text) IS
    'The text as a network, address/bits or an address alone, or null if it is none; bits behind the network''s are none';


ALTER FUNCTION tiergate.format_problem(text, text) RENAME TO text_problem;

COMMENT ON FUNCTION tiergate.text_problem(text, text) IS
    'Part of format_problem(): label, name, hostname, consumer, authority, token, text, path, header, sha256, time, window, jwks_uri, address, jwk';

CREATE FUNCTION tiergate.format_problem(format text, value text)
RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE
AS $$
    SELECT CASE format
        WHEN 'network' THEN CASE
            WHEN tiergate.parse_network(value) IS NULL THEN 'is no network: write address/bits, with zeros behind the bits' END
        WHEN 'uuid' THEN CASE
            WHEN value !~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' THEN 'is no UUID in lower case' END
        ELSE tiergate.text_problem(format, value) END
$$;

COMMENT ON FUNCTION tiergate.format_problem(text, text) IS
    'What is wrong with the form of a string, or null: label, name, hostname, consumer, authority, token, text, path, header, sha256, time, window, jwks_uri, address, jwk, network, uuid';


-- Types and parsers of the bodies above, innermost first
DO $$
DECLARE
    f record;
BEGIN
    LOOP
        SELECT n.object, n.columns INTO f
          FROM (SELECT b.object,
                       string_agg(format('%I %s', b.field, CASE
                           WHEN b.type = 'string'  THEN 'text'
                           WHEN b.type = 'integer' THEN 'bigint'
                           WHEN b.type = 'boolean' THEN 'boolean'
                           WHEN b.type = 'object'  THEN 'tiergate.' || b.child || '_body'
                           WHEN e.type = 'string'  THEN 'text[]'
                           WHEN e.type = 'integer' THEN 'bigint[]'
                           ELSE 'tiergate.' || e.child || '_body[]' END), ', ' ORDER BY b.field) AS columns,
                       bool_and(coalesce(e.type, b.type) NOT IN ('object', 'array')
                                OR to_regtype('tiergate.' || coalesce(e.child, b.child) || '_body') IS NOT NULL) AS ready
                  FROM tiergate.body_fields b
                  LEFT JOIN tiergate.body_fields e ON b.type = 'array' AND e.object = b.child AND e.field = '[]'
                 WHERE b.field <> '[]' AND b.object LIKE 'mesh\_%'
                 GROUP BY b.object) n
         WHERE n.ready AND to_regtype('tiergate.' || n.object || '_body') IS NULL
         ORDER BY n.object LIMIT 1;
        EXIT WHEN NOT FOUND;

        EXECUTE format('CREATE TYPE tiergate.%I AS (%s)', f.object || '_body', f.columns);
        EXECUTE format('COMMENT ON TYPE tiergate.%I IS %L', f.object || '_body',
                       format('JSON body: %s, as tiergate.body_fields describes it', f.object));
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
            $f$, 'parse_' || f.object, f.object || '_body', f.object);
        EXECUTE format('COMMENT ON FUNCTION tiergate.%I(jsonb) IS %L', 'parse_' || f.object,
                       format('A JSON body as tiergate.%s; refuses unknown members and wrong types', f.object || '_body'));
    END LOOP;

    FOR f IN SELECT b.object, b.field, b.description FROM tiergate.body_fields b
              WHERE b.field <> '[]' AND b.object LIKE 'mesh\_%' LOOP
        EXECUTE format('COMMENT ON COLUMN tiergate.%I.%I IS %L', f.object || '_body', f.field, f.description);
    END LOOP;
END
$$;


-- Objects

CREATE FUNCTION tiergate.endpoint_name(address inet, port integer)
RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT CASE family(address) WHEN 6 THEN '[' || host(address) || ']' ELSE host(address) END || ':' || port
$$;

COMMENT ON FUNCTION tiergate.endpoint_name(inet, integer) IS 'address:port, [address]:port for IPv6';


CREATE FUNCTION tiergate.mesh_identity(tenant text, service text)
RETURNS text
LANGUAGE plpgsql STABLE
AS $$
BEGIN
    RETURN format('spiffe://%s/tenant/%s/service/%s', tiergate.setting('mesh.trust_domain') #>> '{}', tenant, service);
END
$$;

COMMENT ON FUNCTION tiergate.mesh_identity(text, text) IS 'Identity of a service, as SPIFFE writes it';


CREATE FUNCTION tiergate.mesh_settings_json(m tiergate.mesh_tenants)
RETURNS jsonb
LANGUAGE plpgsql STABLE
AS $$
BEGIN
    RETURN jsonb_build_object(
        'number', m.number, 'trust_domain', tiergate.setting('mesh.trust_domain') #>> '{}',
        'defaults', jsonb_build_object(
            'from_same', m.from_same, 'from_other', m.from_other, 'from_outside', m.from_outside, 'from_node', m.from_node,
            'to_same', m.to_same, 'to_other', m.to_other, 'to_outside', m.to_outside),
        'families', m.families, 'endpoint_nets', to_jsonb(m.endpoint_nets));
END
$$;

COMMENT ON FUNCTION tiergate.mesh_settings_json(tiergate.mesh_tenants) IS 'What the REST API shows of a tenant in the mesh';


CREATE FUNCTION tiergate.mesh_service_json(s tiergate.mesh_services)
RETURNS jsonb
LANGUAGE plpgsql STABLE
SET enable_seqscan = off
SET jit = off
AS $$
BEGIN
    RETURN jsonb_strip_nulls(jsonb_build_object(
        'id', s.id, 'number', s.number, 'name', s.name, 'identity', tiergate.mesh_identity(s.tenant, s.name),
        'addresses', ARRAY(SELECT host(a) FROM unnest(ARRAY[s.ipv4, s.ipv6]) a WHERE a IS NOT NULL),
        'ports', s.ports, 'limits', s.limits, 'health', s.health,
        'status', (SELECT jsonb_build_object('endpoints', count(*), 'healthy', count(*) FILTER (WHERE e.healthy))
                     FROM tiergate.mesh_endpoints e WHERE e.tenant = s.tenant AND e.service = s.name)));
END
$$;

COMMENT ON FUNCTION tiergate.mesh_service_json(tiergate.mesh_services) IS 'A mesh service as the REST API shows it';


CREATE FUNCTION tiergate.mesh_endpoint_json(e tiergate.mesh_endpoints)
RETURNS jsonb
LANGUAGE sql STABLE
AS $$
    SELECT jsonb_strip_nulls(jsonb_build_object(
        'id', e.id, 'address', host(e.address), 'port', e.port, 'service_port', e.service_port, 'weight', e.weight,
        'node', e.node, 'healthy', e.healthy, 'reason', e.health_reason, 'since', e.health_since))
$$;

COMMENT ON FUNCTION tiergate.mesh_endpoint_json(tiergate.mesh_endpoints) IS 'An endpoint of a mesh service as the REST API shows it';


CREATE FUNCTION tiergate.mesh_workload_json(w tiergate.mesh_workloads)
RETURNS jsonb
LANGUAGE plpgsql STABLE
AS $$
BEGIN
    RETURN jsonb_strip_nulls(jsonb_build_object(
        'id', w.id, 'name', w.name, 'service', w.service, 'identity', tiergate.mesh_identity(w.tenant, w.service),
        'node', w.node, 'cgroup', w.cgroup, 'pod_uid', w.pod_uid,
        'addresses', ARRAY(SELECT host(a) FROM unnest(w.addresses) a), 'any_source', w.any_source, 'source', w.source,
        'created_at', w.created_at));
END
$$;

COMMENT ON FUNCTION tiergate.mesh_workload_json(tiergate.mesh_workloads) IS 'A workload as the REST API shows it';


CREATE FUNCTION tiergate.mesh_policy_json(p tiergate.mesh_policies)
RETURNS jsonb
LANGUAGE sql STABLE
AS $$
    SELECT jsonb_strip_nulls(jsonb_build_object(
        'id', p.id, 'number', p.number, 'name', p.name, 'action', p.action, 'precedence', p.precedence,
        'from', jsonb_build_object('service', p.from_service, 'tenant', p.from_tenant, 'cidr', p.from_cidr),
        'to',   jsonb_build_object('service', p.to_service, 'tenant', p.to_tenant, 'cidr', p.to_cidr),
        'protocol', p.protocol, 'ports', p.ports, 'description', nullif(p.description, '')))
$$;

COMMENT ON FUNCTION tiergate.mesh_policy_json(tiergate.mesh_policies) IS 'A mesh policy as the REST API shows it';


CREATE FUNCTION tiergate.mesh_node_json(n tiergate.mesh_nodes)
RETURNS jsonb
LANGUAGE plpgsql STABLE
AS $$
BEGIN
    RETURN jsonb_strip_nulls(jsonb_build_object(
        'id', n.id, 'name', n.name, 'addresses', ARRAY(SELECT host(a) FROM unnest(n.addresses) a),
        'workload_nets', n.workload_nets, 'tenants', n.tenants, 'created_at', n.created_at, 'gateway', 'node-' || n.name,
        'agent', (SELECT jsonb_build_object('state', g.state, 'observedRevision', g.revision, 'last_seen', g.last_seen)
                    FROM tiergate.gateways g WHERE g.name = 'node-' || n.name)));
END
$$;

COMMENT ON FUNCTION tiergate.mesh_node_json(tiergate.mesh_nodes) IS 'A node as the REST API shows it';


-- Writing.  A row is updated if it is there: an insert would draw numbers each time.

-- What a token of the tenant may name: REST only, since psql has no scope.
CREATE FUNCTION tiergate.refuse_foreign_addresses(tenant text, addresses inet[], pointers text[])
RETURNS void
LANGUAGE plpgsql STABLE
SET enable_seqscan = off
SET jit = off
AS $$
DECLARE
    outside record;
BEGIN
    IF coalesce(current_setting('tiergate.scope', true), '') <> 'tenant' THEN
        RETURN;
    END IF;
    SELECT a.address, a.pointer INTO outside
      FROM unnest(addresses, pointers) a (address, pointer)
      LEFT JOIN LATERAL (SELECT w.tenant AS owner, h.node_id IS NOT NULL AS is_node
                           FROM tiergate.mesh_hosts h LEFT JOIN tiergate.mesh_workloads w ON w.id = h.workload_id
                          WHERE h.address = a.address) held ON true
     WHERE held.owner IS DISTINCT FROM refuse_foreign_addresses.tenant
       AND (held.owner IS NOT NULL
            OR NOT EXISTS (SELECT FROM tiergate.mesh_tenants m, unnest(m.endpoint_nets) n
                            WHERE m.tenant = refuse_foreign_addresses.tenant AND a.address <<= n))
     LIMIT 1;
    IF FOUND THEN
        PERFORM tiergate.refuse(403, 'address-forbidden', outside.pointer,
            format('address %s is neither of a workload of tenant "%s" nor in its endpoint_nets', host(outside.address), tenant),
            'ask the platform operator to add the network to endpoint_nets of the tenant');
    END IF;
END
$$;

COMMENT ON FUNCTION tiergate.refuse_foreign_addresses(text, inet[], text[]) IS
    'Refuses endpoints that a token of the tenant may not name: addresses of its workloads are its own, others must lie in its endpoint_nets and be nobody else''s';


CREATE FUNCTION tiergate.write_mesh_endpoints(tenant text, service text, list tiergate.mesh_endpoint_body[], complete boolean)
RETURNS void
LANGUAGE plpgsql
SET enable_seqscan = off
SET jit = off
AS $$
BEGIN
    PERFORM tiergate.refuse_foreign_addresses(tenant,
                ARRAY(SELECT tiergate.parse_address(e.address) FROM unnest(list) WITH ORDINALITY e ORDER BY e.ordinality),
                ARRAY(SELECT CASE WHEN complete THEN '/endpoints/' || e.ordinality - 1 || '/address' ELSE '/address' END
                        FROM unnest(list) WITH ORDINALITY e ORDER BY e.ordinality));
    IF (SELECT count(DISTINCT (tiergate.parse_address(e.address), e.port)) FROM unnest(list) e) <> cardinality(list) THEN
        PERFORM tiergate.refuse(422, 'duplicate-item', '/endpoints', format('service "%s" has an endpoint twice', service), 'give each once');
    END IF;
    IF complete THEN
        DELETE FROM tiergate.mesh_endpoints x
         WHERE x.tenant = write_mesh_endpoints.tenant AND x.service = write_mesh_endpoints.service
           AND NOT EXISTS (SELECT FROM unnest(list) e WHERE tiergate.parse_address(e.address) = x.address AND e.port = x.port);
    END IF;
    -- ids are of identity: what is there already is not inserted
    WITH given AS MATERIALIZED (
        SELECT tiergate.parse_address(e.address) AS address, e.port::integer AS port, e.service_port::integer AS service_port,
               coalesce(e.weight, 100)::integer AS weight, e.node
          FROM unnest(list) e
    ), changed AS (
        UPDATE tiergate.mesh_endpoints x
           SET service_port = f.service_port, weight = g.weight, node = g.node
          FROM given g,
               LATERAL (SELECT coalesce(g.service_port, (s.ports #>> '{0,port}')::integer) AS service_port FROM tiergate.mesh_services s
                         WHERE s.tenant = write_mesh_endpoints.tenant AND s.name = write_mesh_endpoints.service) f
         WHERE x.tenant = write_mesh_endpoints.tenant AND x.service = write_mesh_endpoints.service
           AND x.address = g.address AND x.port = g.port
           AND (x.service_port, x.weight, x.node) IS DISTINCT FROM (f.service_port, g.weight, g.node)
    )
    INSERT INTO tiergate.mesh_endpoints (tenant, service, address, port, service_port, weight, node)
    SELECT write_mesh_endpoints.tenant, write_mesh_endpoints.service, g.address, g.port, g.service_port, g.weight, g.node
      FROM given g
     WHERE NOT EXISTS (SELECT FROM tiergate.mesh_endpoints y
                        WHERE y.tenant = write_mesh_endpoints.tenant AND y.service = write_mesh_endpoints.service
                          AND y.address = g.address AND y.port = g.port)
        ON CONFLICT ON CONSTRAINT mesh_endpoints_pkey DO UPDATE
           SET service_port = EXCLUDED.service_port, weight = EXCLUDED.weight, node = EXCLUDED.node;
END
$$;

COMMENT ON FUNCTION tiergate.write_mesh_endpoints(text, text, tiergate.mesh_endpoint_body[], boolean) IS
    'Writes endpoints of a service; complete: they are all that it has';


CREATE FUNCTION tiergate.write_mesh_service(tenant text, b tiergate.mesh_service_body)
RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
    wanted jsonb := (SELECT coalesce(jsonb_agg(jsonb_build_object('port', p.port, 'protocol', coalesce(p.protocol, 'tcp'))
                                               ORDER BY p.ordinality), '[]')
                       FROM unnest(b.ports) WITH ORDINALITY p);
    bounds jsonb := jsonb_strip_nulls(coalesce(to_jsonb(b.limits), '{}'));
    checks jsonb := nullif(jsonb_strip_nulls(to_jsonb(b.health)), '{}');
BEGIN
    -- endpoints first where they go, so that a port may go with them
    IF b.endpoints = '{}' THEN
        PERFORM tiergate.write_mesh_endpoints(tenant, b.name, b.endpoints, true);
    END IF;
    UPDATE tiergate.mesh_services s
       SET ports = wanted, limits = bounds, health = checks
     WHERE s.tenant = write_mesh_service.tenant AND s.name = b.name;
    IF NOT FOUND THEN
        INSERT INTO tiergate.mesh_services AS s (tenant, name, ports, limits, health)
        VALUES (write_mesh_service.tenant, b.name, wanted, bounds, checks);
    END IF;
    IF b.endpoints <> '{}' THEN
        PERFORM tiergate.write_mesh_endpoints(tenant, b.name, b.endpoints, true);
    END IF;
END
$$;

COMMENT ON FUNCTION tiergate.write_mesh_service(text, tiergate.mesh_service_body) IS
    'Makes or replaces a mesh service, with its endpoints if the body has any';


CREATE FUNCTION tiergate.refuse_managed_workload(tenant text, name text)
RETURNS void
LANGUAGE plpgsql STABLE
AS $$
BEGIN
    IF EXISTS (SELECT FROM tiergate.mesh_workloads w
                WHERE w.tenant = refuse_managed_workload.tenant AND w.name = refuse_managed_workload.name AND w.source = 'gateway') THEN
        PERFORM tiergate.refuse(409, 'workload-managed', '', format('workload "%s" follows the tenant''s own gateway', name));
    END IF;
END
$$;

COMMENT ON FUNCTION tiergate.refuse_managed_workload(text, text) IS 'Refuses to change the workload of a tenant''s own gateway';


CREATE FUNCTION tiergate.write_mesh_workload(tenant text, b tiergate.mesh_workload_body)
RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
    held inet[] := ARRAY(SELECT tiergate.parse_address(a) FROM unnest(b.addresses) a);
BEGIN
    PERFORM tiergate.refuse_managed_workload(tenant, b.name);
    UPDATE tiergate.mesh_workloads w
       SET service = b.service, node = b.node, cgroup = b.cgroup, pod_uid = b.pod_uid::uuid,
           addresses = held, any_source = coalesce(b.any_source, false), source = 'api'
     WHERE w.tenant = write_mesh_workload.tenant AND w.name = b.name;
    IF NOT FOUND THEN
        INSERT INTO tiergate.mesh_workloads (tenant, name, service, node, cgroup, pod_uid, addresses, any_source)
        VALUES (write_mesh_workload.tenant, b.name, b.service, b.node, b.cgroup, b.pod_uid::uuid,
                held, coalesce(b.any_source, false));
    END IF;
END
$$;

COMMENT ON FUNCTION tiergate.write_mesh_workload(text, tiergate.mesh_workload_body) IS 'Makes or replaces a workload';


CREATE FUNCTION tiergate.write_mesh_policy(tenant text, b tiergate.mesh_policy_body)
RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
    p tiergate.mesh_policies;
BEGIN
    p.action       := b.action;
    p.precedence   := coalesce(b.precedence, 1000);
    p.from_service := (b."from").service;
    p.from_tenant  := (b."from").tenant;
    p.from_cidr    := (b."from").cidr::cidr;
    p.to_service   := (b."to").service;
    p.to_tenant    := (b."to").tenant;
    p.to_cidr      := (b."to").cidr::cidr;
    p.protocol     := b.protocol;
    p.ports        := coalesce(b.ports, '{}');
    p.description  := coalesce(b.description, '');
    UPDATE tiergate.mesh_policies x
       SET (action, precedence, from_service, from_tenant, from_cidr, to_service, to_tenant, to_cidr, protocol, ports, description)
         = (p.action, p.precedence, p.from_service, p.from_tenant, p.from_cidr, p.to_service, p.to_tenant, p.to_cidr, p.protocol,
            p.ports, p.description)
     WHERE x.tenant = write_mesh_policy.tenant AND x.name = b.name;
    IF NOT FOUND THEN
        INSERT INTO tiergate.mesh_policies (tenant, name, action, precedence, from_service, from_tenant, from_cidr, to_service,
                                            to_tenant, to_cidr, protocol, ports, description)
        VALUES (write_mesh_policy.tenant, b.name, p.action, p.precedence, p.from_service, p.from_tenant, p.from_cidr, p.to_service,
                p.to_tenant, p.to_cidr, p.protocol, p.ports, p.description);
    END IF;
END
$$;

COMMENT ON FUNCTION tiergate.write_mesh_policy(text, tiergate.mesh_policy_body) IS 'Makes or replaces a mesh policy';


CREATE FUNCTION tiergate.write_mesh_node(b tiergate.mesh_node_body)
RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
    held inet[] := ARRAY(SELECT tiergate.parse_address(a) FROM unnest(b.addresses) a);
    nets cidr[] := ARRAY(SELECT tiergate.parse_network(n) FROM unnest(b.workload_nets) n);
BEGIN
    UPDATE tiergate.mesh_nodes n
       SET addresses = held, workload_nets = nets, tenants = coalesce(b.tenants, '{}')
     WHERE n.name = b.name;
    IF NOT FOUND THEN
        INSERT INTO tiergate.mesh_nodes (name, addresses, workload_nets, tenants)
        VALUES (b.name, held, nets, coalesce(b.tenants, '{}'));
    END IF;
END
$$;

COMMENT ON FUNCTION tiergate.write_mesh_node(tiergate.mesh_node_body) IS 'Makes or replaces a node';


CREATE FUNCTION tiergate.put_mesh_object(kind text, tenant text, name text, body jsonb)
RETURNS void
LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off
SET jit = off
AS $$
DECLARE
    given jsonb := jsonb_strip_nulls(coalesce(body, '{}'));
    v     tiergate.violation;
BEGIN
    IF jsonb_typeof(given) = 'object' AND kind <> 'mesh_endpoint' THEN
        IF given->>'name' <> name THEN
            PERFORM tiergate.refuse(422, 'name-mismatch', '/name',
                format('the body names "%s", but the path "%s"', given->>'name', name), 'leave name out of the body');
        END IF;
        -- what GET shows may be sent back
        given := given - CASE kind WHEN 'mesh_service'  THEN '{id,number,identity,addresses,status}'
                                   WHEN 'mesh_workload' THEN '{id,identity,source,created_at}'
                                   WHEN 'mesh_node'     THEN '{id,created_at,gateway,agent}'
                                   ELSE '{id,number}' END::text[]
              || jsonb_build_object('name', name);
    END IF;
    CASE kind
        WHEN 'mesh_service'  THEN PERFORM tiergate.write_mesh_service(tenant, tiergate.parse_mesh_service(given));
        WHEN 'mesh_workload' THEN PERFORM tiergate.write_mesh_workload(tenant, tiergate.parse_mesh_workload(given));
        WHEN 'mesh_policy'   THEN PERFORM tiergate.write_mesh_policy(tenant, tiergate.parse_mesh_policy(given));
        WHEN 'mesh_node'     THEN PERFORM tiergate.write_mesh_node(tiergate.parse_mesh_node(given));
        WHEN 'mesh_endpoint' THEN
            given := given - '{id,healthy,reason,since}'::text[];
            PERFORM tiergate.write_mesh_endpoints(tenant, name, ARRAY[tiergate.parse_mesh_endpoint(given)], false);
        ELSE PERFORM tiergate.refuse(422, 'unknown-value', '', format('kind "%s" is not known', kind),
                                     'use mesh_service, mesh_endpoint, mesh_workload, mesh_policy or mesh_node');
    END CASE;
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS v.state = RETURNED_SQLSTATE, v.message = MESSAGE_TEXT,
                            v.detail = PG_EXCEPTION_DETAIL, v.hint = PG_EXCEPTION_HINT,
                            v.constraint_name = CONSTRAINT_NAME, v.table_name = TABLE_NAME,
                            v.pointer = COLUMN_NAME;
    IF v.state ~ '^(2[123]|TG422|TG409)' THEN
        PERFORM tiergate.refuse_body(kind, given);
    END IF;
    PERFORM tiergate.refuse_violation(v);
END
$$;

COMMENT ON FUNCTION tiergate.put_mesh_object(text, text, text, jsonb) IS
    'Makes or replaces a mesh_service, mesh_endpoint (name is the service), mesh_workload, mesh_policy or mesh_node (tenant null) from its JSON body: put_mesh_object(''mesh_service'', ''acme'', ''orders'', ''{"ports": [{"port": 80}]}'')';


CREATE FUNCTION tiergate.patch_mesh(tenant text, patch jsonb)
RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
    p tiergate.mesh_settings_body := tiergate.parse_mesh_settings(patch - '{number,trust_domain}'::text[]);
    v tiergate.violation;
BEGIN
    PERFORM tiergate.mesh_enable(tenant);
    UPDATE tiergate.mesh_tenants m
       SET from_same     = coalesce((p.defaults).from_same, m.from_same),
           from_other    = coalesce((p.defaults).from_other, m.from_other),
           from_outside  = coalesce((p.defaults).from_outside, m.from_outside),
           from_node     = coalesce((p.defaults).from_node, m.from_node),
           to_same       = coalesce((p.defaults).to_same, m.to_same),
           to_other      = coalesce((p.defaults).to_other, m.to_other),
           to_outside    = coalesce((p.defaults).to_outside, m.to_outside),
           families      = coalesce(p.families, m.families),
           endpoint_nets = CASE WHEN patch ? 'endpoint_nets'
                                THEN ARRAY(SELECT n::cidr FROM unnest(p.endpoint_nets) n) ELSE m.endpoint_nets END
     WHERE m.tenant = patch_mesh.tenant;
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS v.state = RETURNED_SQLSTATE, v.message = MESSAGE_TEXT,
                            v.detail = PG_EXCEPTION_DETAIL, v.hint = PG_EXCEPTION_HINT,
                            v.constraint_name = CONSTRAINT_NAME, v.table_name = TABLE_NAME,
                            v.pointer = COLUMN_NAME;
    IF v.state ~ '^2[123]' OR v.state = 'TG422' THEN
        PERFORM tiergate.refuse_body('mesh_settings', jsonb_strip_nulls(patch) - '{number,trust_domain}'::text[]);
    END IF;
    PERFORM tiergate.refuse_violation(v);
END
$$;

COMMENT ON FUNCTION tiergate.patch_mesh(text, jsonb) IS
    'Changes defaults, families and endpoint_nets of a tenant in the mesh by a JSON merge patch';


CREATE FUNCTION tiergate.delete_mesh(tenant text)
RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
    t tiergate.tenants := tiergate.find_tenant(tenant);
BEGIN
    IF tiergate.tier_kind(t.tier) = 'dedicated' THEN
        PERFORM tiergate.refuse(409, 'mesh-in-use', '', format('tenant "%s" is of tier "%s", whose tenants are in the mesh', t.name, t.tier),
                                'change its tier first');
    END IF;
    IF EXISTS (SELECT FROM tiergate.mesh_workloads w WHERE w.tenant = t.name) THEN
        PERFORM tiergate.refuse(409, 'mesh-in-use', '', format('tenant "%s" has workloads', t.name), 'delete its workloads first');
    END IF;
    DELETE FROM tiergate.mesh_tenants m WHERE m.tenant = t.name;
    IF NOT FOUND THEN
        PERFORM tiergate.refuse(404, 'unknown-tenant', '', format('tenant "%s" is not in the mesh', t.name));
    END IF;
END
$$;

COMMENT ON FUNCTION tiergate.delete_mesh(text) IS
    'Takes a tenant out of the mesh, with its services and policies; refused while it has workloads or a dedicated tier';


-- psql

CREATE FUNCTION tiergate.mesh_put_service(tenant text, name text, port integer DEFAULT NULL, protocol text DEFAULT 'tcp')
RETURNS TABLE (service text, ipv4 inet, ipv6 inet, ports jsonb)
LANGUAGE plpgsql
AS $$
#variable_conflict use_column
DECLARE
    one jsonb := CASE WHEN port IS NULL THEN '[]' ELSE
        jsonb_build_array(jsonb_build_object('port', mesh_put_service.port, 'protocol', mesh_put_service.protocol)) END;
BEGIN
    PERFORM tiergate.find_tenant(mesh_put_service.tenant);
    UPDATE tiergate.mesh_services s SET ports = s.ports || one
     WHERE s.tenant = mesh_put_service.tenant AND s.name = mesh_put_service.name;
    IF NOT FOUND THEN
        INSERT INTO tiergate.mesh_services AS s (tenant, name, ports)
        VALUES (mesh_put_service.tenant, mesh_put_service.name, one);
    END IF;
    RETURN QUERY SELECT s.name, s.ipv4, s.ipv6, s.ports FROM tiergate.mesh_services s
                  WHERE s.tenant = mesh_put_service.tenant AND s.name = mesh_put_service.name;
END
$$;

COMMENT ON FUNCTION tiergate.mesh_put_service(text, text, integer, text) IS
    'Makes a mesh service, or gives it one more port; says which virtual addresses it has: mesh_put_service(''acme'', ''orders'', 80)';


CREATE FUNCTION tiergate.find_mesh_service(tenant text, name text)
RETURNS tiergate.mesh_services
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    t tiergate.tenants := tiergate.find_tenant(tenant);
    s tiergate.mesh_services;
BEGIN
    SELECT * INTO s FROM tiergate.mesh_services x WHERE x.tenant = t.name AND x.name = find_mesh_service.name;
    IF NOT FOUND THEN
        PERFORM tiergate.refuse(404, 'unknown-service', '', format('tenant "%s" has no service "%s"', t.name, name));
    END IF;
    RETURN s;
END
$$;

COMMENT ON FUNCTION tiergate.find_mesh_service(text, text) IS 'The mesh service of this name; refuses with 404';


CREATE FUNCTION tiergate.mesh_drop_service(tenant text, name text)
RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
    s tiergate.mesh_services := tiergate.find_mesh_service(tenant, name);
BEGIN
    DELETE FROM tiergate.mesh_services x WHERE x.id = s.id;
END
$$;

COMMENT ON FUNCTION tiergate.mesh_drop_service(text, text) IS
    'Deletes a mesh service with its endpoints; refused while policies of the tenant name it or workloads are it';


CREATE FUNCTION tiergate.mesh_set_endpoint(tenant text, service text, address inet, port integer, weight integer DEFAULT NULL,
                                           service_port integer DEFAULT NULL, node text DEFAULT NULL)
RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
    s tiergate.mesh_services := tiergate.find_mesh_service(tenant, service);
BEGIN
    UPDATE tiergate.mesh_endpoints e
       SET weight = coalesce(mesh_set_endpoint.weight, e.weight), node = coalesce(mesh_set_endpoint.node, e.node),
           service_port = coalesce(mesh_set_endpoint.service_port, e.service_port)
     WHERE e.tenant = s.tenant AND e.service = s.name AND e.address = mesh_set_endpoint.address AND e.port = mesh_set_endpoint.port;
    IF NOT FOUND THEN
        INSERT INTO tiergate.mesh_endpoints AS e (tenant, service, address, port, service_port, weight, node)
        VALUES (s.tenant, s.name, mesh_set_endpoint.address, mesh_set_endpoint.port, mesh_set_endpoint.service_port,
                coalesce(mesh_set_endpoint.weight, 100), mesh_set_endpoint.node);
    END IF;
END
$$;

COMMENT ON FUNCTION tiergate.mesh_set_endpoint(text, text, inet, integer, integer, integer, text) IS
    'Adds an endpoint to a mesh service, or changes what is given of it: mesh_set_endpoint(''acme'', ''orders'', ''10.0.0.5'', 8080, weight => 10)';


CREATE FUNCTION tiergate.mesh_drop_endpoint(tenant text, service text, address inet, port integer)
RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
    s tiergate.mesh_services := tiergate.find_mesh_service(tenant, service);
BEGIN
    DELETE FROM tiergate.mesh_endpoints e
     WHERE e.tenant = s.tenant AND e.service = s.name AND e.address = mesh_drop_endpoint.address AND e.port = mesh_drop_endpoint.port;
    IF NOT FOUND THEN
        PERFORM tiergate.refuse(404, 'unknown-endpoint', '', format('service "%s" has no endpoint %s', s.name, tiergate.endpoint_name(address, port)));
    END IF;
END
$$;

COMMENT ON FUNCTION tiergate.mesh_drop_endpoint(text, text, inet, integer) IS 'Takes an endpoint from a mesh service';


CREATE FUNCTION tiergate.mesh_set_limit(tenant text, service text, connections_per_second integer DEFAULT NULL, burst integer DEFAULT NULL,
                                        open_connections integer DEFAULT NULL)
RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
    s tiergate.mesh_services := tiergate.find_mesh_service(tenant, service);
BEGIN
    UPDATE tiergate.mesh_services x
       SET limits = jsonb_strip_nulls(jsonb_build_object('connections_per_second', connections_per_second, 'burst', burst,
                                                         'open_connections', open_connections))
     WHERE x.id = s.id;
END
$$;

COMMENT ON FUNCTION tiergate.mesh_set_limit(text, text, integer, integer, integer) IS
    'Limits what callers of a mesh service may do on each node; what is not given has no limit';


DO $$
DECLARE
    a record;
BEGIN
    FOR a IN SELECT * FROM (VALUES
            ('allow', 'Allows calls: mesh_allow(''acme'', ''gateway-orders'', from_service => ''gateway'', to_service => ''orders''). A policy of the name is replaced'),
            ('deny',  'Denies calls; as mesh_allow')) v (action, comment) LOOP
        EXECUTE format($f$
            CREATE FUNCTION tiergate.mesh_%1$s(tenant text, name text, from_service text DEFAULT NULL, from_tenant text DEFAULT NULL,
                                               from_cidr text DEFAULT NULL, to_service text DEFAULT NULL, to_tenant text DEFAULT NULL,
                                               to_cidr text DEFAULT NULL, protocol text DEFAULT NULL, ports integer[] DEFAULT NULL,
                                               precedence integer DEFAULT NULL, description text DEFAULT NULL)
            RETURNS void
            LANGUAGE plpgsql
            AS $body$
            BEGIN
                PERFORM tiergate.find_tenant(mesh_%1$s.tenant);
                PERFORM tiergate.put_mesh_object('mesh_policy', mesh_%1$s.tenant, mesh_%1$s.name, jsonb_strip_nulls(jsonb_build_object(
                    'action', '%1$s', 'precedence', precedence, 'protocol', protocol, 'ports', ports, 'description', description,
                    'from', jsonb_build_object('service', from_service, 'tenant', from_tenant, 'cidr', from_cidr),
                    'to', jsonb_build_object('service', to_service, 'tenant', to_tenant, 'cidr', to_cidr))));
            END
            $body$
            $f$, a.action);
        EXECUTE format('COMMENT ON FUNCTION tiergate.%I(text, text, text, text, text, text, text, text, text, integer[], integer, text) IS %L',
                       'mesh_' || a.action, a.comment);
    END LOOP;
END
$$;


CREATE FUNCTION tiergate.mesh_drop_policy(tenant text, name text)
RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
    t tiergate.tenants := tiergate.find_tenant(tenant);
BEGIN
    DELETE FROM tiergate.mesh_policies p WHERE p.tenant = t.name AND p.name = mesh_drop_policy.name;
    IF NOT FOUND THEN
        PERFORM tiergate.refuse(404, 'unknown-policy', '', format('tenant "%s" has no policy "%s"', t.name, name));
    END IF;
END
$$;

COMMENT ON FUNCTION tiergate.mesh_drop_policy(text, text) IS 'Removes a mesh policy';


CREATE FUNCTION tiergate.mesh_set_default(tenant text, from_same boolean DEFAULT NULL, from_other boolean DEFAULT NULL,
                                          from_outside boolean DEFAULT NULL, from_node boolean DEFAULT NULL, to_same boolean DEFAULT NULL,
                                          to_other boolean DEFAULT NULL, to_outside boolean DEFAULT NULL)
RETURNS void
LANGUAGE plpgsql
AS $$
BEGIN
    PERFORM tiergate.patch_mesh(tenant, jsonb_build_object('defaults', jsonb_strip_nulls(jsonb_build_object(
        'from_same', from_same, 'from_other', from_other, 'from_outside', from_outside, 'from_node', from_node,
        'to_same', to_same, 'to_other', to_other, 'to_outside', to_outside))));
END
$$;

COMMENT ON FUNCTION tiergate.mesh_set_default(text, boolean, boolean, boolean, boolean, boolean, boolean, boolean) IS
    'Says what holds where no policy of a tenant does; what is not given stays: mesh_set_default(''acme'', from_outside => true)';


CREATE FUNCTION tiergate.mesh_put_node(name text, addresses inet[] DEFAULT NULL, tenants text[] DEFAULT NULL, workload_nets cidr[] DEFAULT NULL)
RETURNS void
LANGUAGE plpgsql
AS $$
BEGIN
    UPDATE tiergate.mesh_nodes n
       SET addresses = coalesce(mesh_put_node.addresses, n.addresses), tenants = coalesce(mesh_put_node.tenants, n.tenants),
           workload_nets = coalesce(mesh_put_node.workload_nets, n.workload_nets)
     WHERE n.name = mesh_put_node.name;
    IF NOT FOUND THEN
        INSERT INTO tiergate.mesh_nodes (name, addresses, tenants, workload_nets)
        VALUES (mesh_put_node.name, coalesce(mesh_put_node.addresses, '{}'), coalesce(mesh_put_node.tenants, '{}'),
                coalesce(mesh_put_node.workload_nets, '{}'));
    END IF;
END
$$;

COMMENT ON FUNCTION tiergate.mesh_put_node(text, inet[], text[], cidr[]) IS
    'Makes a node, or changes what is given of it: mesh_put_node(''a'', ''{10.0.0.1}'', tenants => ''{acme,beta}''). Its agent gets a token with create_token(''agent-a'', ''gateway'', gateway => ''node-a'')';


CREATE FUNCTION tiergate.mesh_drop_node(name text)
RETURNS void
LANGUAGE plpgsql
AS $$
BEGIN
    DELETE FROM tiergate.mesh_nodes n WHERE n.name = mesh_drop_node.name;
    IF NOT FOUND THEN
        PERFORM tiergate.refuse(404, 'unknown-node', '', format('there is no node "%s"', name));
    END IF;
END
$$;

COMMENT ON FUNCTION tiergate.mesh_drop_node(text) IS 'Deletes a node with its workloads; its agent goes on enforcing what it last knew';


CREATE VIEW tiergate.mesh_status WITH (security_invoker = true) AS
    SELECT s.tenant, s.name AS service, s.number, host(s.ipv4) AS ipv4, host(s.ipv6) AS ipv6,
           (SELECT string_agg(p.value->>'port' || '/' || (p.value->>'protocol'), ', ') FROM jsonb_array_elements(s.ports) p) AS ports,
           e.endpoints, e.healthy, e.down,
           (SELECT count(*) FROM tiergate.mesh_workloads w WHERE w.tenant = s.tenant AND w.service = s.name) AS workloads
      FROM tiergate.mesh_services s
     CROSS JOIN LATERAL (
           SELECT count(*) AS endpoints, count(*) FILTER (WHERE x.healthy) AS healthy,
                  string_agg(tiergate.endpoint_name(x.address, x.port) || ': ' || coalesce(x.health_reason, 'unhealthy'), '; ' ORDER BY x.id)
                      FILTER (WHERE NOT x.healthy) AS down
             FROM tiergate.mesh_endpoints x WHERE x.tenant = s.tenant AND x.service = s.name) e;

COMMENT ON VIEW   tiergate.mesh_status           IS 'Mesh services: where they are, and how many of their endpoints are well';
COMMENT ON COLUMN tiergate.mesh_status.tenant    IS 'Tenant';
COMMENT ON COLUMN tiergate.mesh_status.service   IS 'Service';
COMMENT ON COLUMN tiergate.mesh_status.number    IS 'Its number, as in flows and kernel maps';
COMMENT ON COLUMN tiergate.mesh_status.ipv4      IS 'Virtual IPv4 address';
COMMENT ON COLUMN tiergate.mesh_status.ipv6      IS 'Virtual IPv6 address';
COMMENT ON COLUMN tiergate.mesh_status.ports     IS 'Ports';
COMMENT ON COLUMN tiergate.mesh_status.endpoints IS 'How many endpoints it has';
COMMENT ON COLUMN tiergate.mesh_status.healthy   IS 'How many of them are healthy';
COMMENT ON COLUMN tiergate.mesh_status.down      IS 'Which are not, and why';
COMMENT ON COLUMN tiergate.mesh_status.workloads IS 'How many workloads are this service';


CREATE VIEW tiergate.mesh_agents WITH (security_invoker = true) AS
    SELECT n.name AS node, n.tenants, g.state, g.revision, g.last_seen AS seen,
           (g.mesh->>'workloads')::bigint AS workloads,
           (SELECT string_agg(format('%s %s%%', f.value->>'map', round(100.0 * (f.value->>'used')::numeric / (f.value->>'size')::numeric)), ', '
                              ORDER BY (f.value->>'used')::numeric / (f.value->>'size')::numeric DESC)
              FROM jsonb_array_elements(g.mesh->'fill') f
             WHERE (f.value->>'size')::numeric > 0 AND (f.value->>'used')::numeric / (f.value->>'size')::numeric >= 0.01) AS fill,
           (SELECT sum((f.value->>'refused')::numeric) FROM jsonb_array_elements(g.mesh->'fill') f)::bigint AS refused,
           (SELECT sum(c.value::numeric) FROM jsonb_each_text(g.mesh->'counters') c
             WHERE c.key LIKE 'DENY\_%')::bigint AS denied,
           (SELECT jsonb_object_agg(c.key, c.value) FROM jsonb_each(g.mesh->'counters') c WHERE c.value <> '0') AS counters,
           nullif(jsonb_array_length(g.rejected), 0) AS rejected
      FROM tiergate.mesh_nodes n
      JOIN tiergate.gateways g ON g.name = 'node-' || n.name;

COMMENT ON VIEW   tiergate.mesh_agents           IS 'Agents of nodes, as they last reported';
COMMENT ON COLUMN tiergate.mesh_agents.node      IS 'Node';
COMMENT ON COLUMN tiergate.mesh_agents.tenants   IS 'Tenants that it runs';
COMMENT ON COLUMN tiergate.mesh_agents.state     IS 'unknown, loading, snapshot (tenantd is not reached) or live';
COMMENT ON COLUMN tiergate.mesh_agents.revision  IS 'Revision up to which the kernel has every change';
COMMENT ON COLUMN tiergate.mesh_agents.seen      IS 'When it last reported';
COMMENT ON COLUMN tiergate.mesh_agents.workloads IS 'Workloads whose processes it has found';
COMMENT ON COLUMN tiergate.mesh_agents.fill      IS 'Fill of its maps, those of 1 % or more';
COMMENT ON COLUMN tiergate.mesh_agents.refused   IS 'Rows for which a map had no room';
COMMENT ON COLUMN tiergate.mesh_agents.denied    IS 'Calls denied since its programs were loaded';
COMMENT ON COLUMN tiergate.mesh_agents.counters  IS 'Its counters that are not 0';
COMMENT ON COLUMN tiergate.mesh_agents.rejected  IS 'Objects that it refused, see gateways.rejected';


-- What agents report

-- A gateway that reports for the first time is registered as shared.
CREATE OR REPLACE FUNCTION tiergate.gateway_ack(gateway text, boot text, revision bigint, report jsonb)
RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    state    text  := report->>'state';
    rejected jsonb := coalesce(report->'rejected', '[]');
BEGIN
    IF gateway IS NULL OR NOT tiergate.is_name(gateway) THEN
        PERFORM tiergate.refuse(422, 'invalid-name', '', format('gateway "%s" is no name', gateway));
    END IF;
    IF boot IS NULL OR octet_length(boot) NOT BETWEEN 1 AND 128 THEN
        PERFORM tiergate.refuse(422, 'invalid-report', '/boot', 'boot has 1 to 128 bytes');
    END IF;
    IF revision IS NULL OR revision < 0 THEN
        PERFORM tiergate.refuse(422, 'invalid-report', '/revision', 'revision is a number from 0');
    END IF;
    IF state IS NULL OR state NOT IN ('loading', 'snapshot', 'live') THEN
        PERFORM tiergate.refuse(422, 'invalid-report', '/state', 'state is loading, snapshot or live');
    END IF;
    IF jsonb_typeof(rejected) <> 'array' OR jsonb_array_length(rejected) > 100 THEN
        PERFORM tiergate.refuse(422, 'invalid-report', '/rejected', 'rejected is an array of at most 100');
    END IF;
    IF NOT tiergate.is_mesh_report(report->'mesh') THEN
        PERFORM tiergate.refuse(422, 'invalid-report', '/mesh',
            'mesh is {"counters": {name: number}, "fill": [{"map", "used", "size", "refused"}], "workloads": number} of at most 65536 bytes');
    END IF;
    IF report->>'registry' <> (SELECT r.id::text FROM tiergate.registry r) THEN
        PERFORM tiergate.refuse(409, 'other-registry', '/registry', 'the acknowledgement is of another registry',
                                'list again with since=0');
    END IF;

    PERFORM tiergate.relax_commit();
    INSERT INTO tiergate.gateways AS g
        (name, kind, boot, revision, state, last_seen, tenants, zone_size, zone_used, rejected, mesh)
    VALUES (gateway, coalesce((SELECT x.kind FROM tiergate.gateways x WHERE x.name = gateway AND x.kind = 'agent'), 'shared'),
            gateway_ack.boot, gateway_ack.revision, state, clock_timestamp(),
            (report->>'tenants')::integer, (report #>> '{zone,size}')::bigint,
            (report #>> '{zone,used}')::bigint, rejected, report->'mesh')
        ON CONFLICT (name) DO UPDATE SET
           boot = EXCLUDED.boot,
           -- acknowledgements may overtake each other
           revision = CASE WHEN g.boot = EXCLUDED.boot THEN greatest(g.revision, EXCLUDED.revision)
                           ELSE EXCLUDED.revision END,
           state = EXCLUDED.state, last_seen = EXCLUDED.last_seen, tenants = EXCLUDED.tenants,
           zone_size = EXCLUDED.zone_size, zone_used = EXCLUDED.zone_used, rejected = EXCLUDED.rejected, mesh = EXCLUDED.mesh;
EXCEPTION WHEN data_exception THEN
    PERFORM tiergate.refuse(422, 'invalid-report', '', 'the acknowledgement has a number that is none',
                            'docs/reference/watch.md describes it');
END
$$;


CREATE FUNCTION tiergate.is_mesh_report(mesh jsonb)
RETURNS boolean
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
AS $$
BEGIN
    RETURN mesh IS NULL
        OR jsonb_typeof(mesh) = 'object' AND octet_length(mesh::text) <= 65536
           AND jsonb_typeof(coalesce(mesh->'counters', '{}')) = 'object'
           AND jsonb_typeof(coalesce(mesh->'fill', '[]')) = 'array'
           AND mesh::text !~ '\\u0000'
           AND coalesce(mesh->>'workloads', '0') ~ '^[0-9]{1,15}$'
           AND NOT EXISTS (SELECT FROM jsonb_each(coalesce(mesh->'counters', '{}')) c
                            WHERE jsonb_typeof(c.value) <> 'number' OR c.value::text !~ '^[0-9]{1,20}$' OR c.key !~ '^[A-Za-z0-9_]{1,63}$')
           AND NOT EXISTS (SELECT FROM jsonb_array_elements(coalesce(mesh->'fill', '[]')) f
                            WHERE jsonb_typeof(f.value) <> 'object' OR coalesce(f.value->>'map', '') !~ '^[A-Za-z0-9_]{1,63}$'
                               OR coalesce(f.value->>'used', '') !~ '^[0-9]{1,15}$' OR coalesce(f.value->>'size', '') !~ '^[0-9]{1,15}$'
                               OR coalesce(f.value->>'refused', '0') !~ '^[0-9]{1,15}$');
END
$$;

COMMENT ON FUNCTION tiergate.is_mesh_report(jsonb) IS 'Whether this is what an agent may say about its maps and counters';


-- Workloads that an agent has started are the report's whole list.  A name that the
-- API has given, or another node, is not taken from it; nor is a cgroup or an
-- address.  One such workload does not keep the others from being taken.
CREATE FUNCTION tiergate.mesh_report_workloads(n tiergate.mesh_nodes, boot text, list jsonb)
RETURNS jsonb
LANGUAGE plpgsql
SET enable_seqscan = off
SET jit = off
AS $$
DECLARE
    w       record;
    refused jsonb := '[]';
    message text;
    rule    text;
BEGIN
    DELETE FROM tiergate.mesh_workloads x
     WHERE x.node = n.name AND x.source = 'exec'
       AND NOT EXISTS (SELECT FROM jsonb_array_elements(list) g
                        WHERE g.value->>'tenant' = x.tenant AND g.value->>'name' = x.name);
    FOR w IN SELECT g.ordinality - 1 AS nth, g.value->>'tenant' AS tenant, g.value->>'name' AS name, g.value->>'service' AS service,
                    g.value->>'cgroup' AS cgroup, g.value->'addresses' AS addresses
               FROM jsonb_array_elements(list) WITH ORDINALITY g LOOP
        BEGIN
            IF NOT tiergate.mesh_runs(n, w.tenant) OR NOT EXISTS (SELECT FROM tiergate.mesh_tenants m WHERE m.tenant = w.tenant) THEN
                PERFORM tiergate.refuse(422, 'tenant-not-assigned', '', format('node "%s" does not run tenant "%s"', n.name, left(w.tenant, 63)));
            END IF;
            IF EXISTS (SELECT FROM tiergate.mesh_workloads x
                        WHERE x.tenant = w.tenant AND x.name = w.name AND (x.source <> 'exec' OR x.node <> n.name)) THEN
                PERFORM tiergate.refuse(409, 'duplicate-name', '', format('there is a workload "%s" of tenant "%s" already', w.name, w.tenant));
            END IF;
            UPDATE tiergate.mesh_workloads x
               SET service = w.service, cgroup = w.cgroup, boot = mesh_report_workloads.boot,
                   addresses = ARRAY(SELECT tiergate.parse_address(a) FROM jsonb_array_elements_text(w.addresses) a)
             WHERE x.tenant = w.tenant AND x.name = w.name;
            IF NOT FOUND THEN
                INSERT INTO tiergate.mesh_workloads (tenant, name, service, node, cgroup, addresses, source, boot)
                VALUES (w.tenant, w.name, w.service, n.name, w.cgroup,
                        ARRAY(SELECT tiergate.parse_address(a) FROM jsonb_array_elements_text(w.addresses) a), 'exec',
                        mesh_report_workloads.boot);
            END IF;
        EXCEPTION WHEN OTHERS THEN
            GET STACKED DIAGNOSTICS message = MESSAGE_TEXT, rule = CONSTRAINT_NAME;
            message := coalesce((SELECT r.detail FROM tiergate.refusals r WHERE r.name = rule), message);
            IF SQLSTATE !~ '^(TG4|2[123])' THEN
                RAISE;
            END IF;
            refused := refused || jsonb_build_object('tenant', w.tenant, 'name', w.name, 'reason', message);
        END;
    END LOOP;
    RETURN refused;
END
$$;

COMMENT ON FUNCTION tiergate.mesh_report_workloads(tiergate.mesh_nodes, text, jsonb) IS
    'Takes the workloads that an agent has started in place of those that it reported before; returns those that it cannot have';


CREATE FUNCTION tiergate.mesh_report(gateway text, report jsonb)
RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
SET jit = off
AS $$
DECLARE
    n       tiergate.mesh_nodes;
    list    jsonb := report->'workloads';
    health  jsonb := coalesce(report->'health', '[]');
    refused jsonb;
    bad     bigint;
BEGIN
    SELECT * INTO n FROM tiergate.mesh_nodes x WHERE 'node-' || x.name = gateway;
    IF NOT FOUND THEN
        PERFORM tiergate.refuse(404, 'unknown-node', '', format('gateway "%s" is not the agent of a node', gateway));
    END IF;
    IF jsonb_typeof(report) IS DISTINCT FROM 'object' OR coalesce(octet_length(report->>'boot'), 0) NOT BETWEEN 1 AND 128 THEN
        PERFORM tiergate.refuse(422, 'invalid-report', '/boot', 'boot has 1 to 128 bytes');
    END IF;
    IF list IS NOT NULL AND (jsonb_typeof(list) <> 'array' OR jsonb_array_length(list) > 10000) THEN
        PERFORM tiergate.refuse(422, 'invalid-report', '/workloads', 'workloads is an array of at most 10000');
    END IF;
    IF jsonb_typeof(health) <> 'array' OR jsonb_array_length(health) > 10000 THEN
        PERFORM tiergate.refuse(422, 'invalid-report', '/health', 'health is an array of at most 10000');
    END IF;
    SELECT w.ordinality - 1 INTO bad FROM jsonb_array_elements(coalesce(list, '[]')) WITH ORDINALITY w
     WHERE jsonb_typeof(w.value) <> 'object'
        OR EXISTS (SELECT FROM unnest('{name,tenant,service,cgroup}'::text[]) k WHERE jsonb_typeof(w.value->k) IS DISTINCT FROM 'string')
        OR jsonb_typeof(coalesce(w.value->'addresses', '[]')) <> 'array'
        OR EXISTS (SELECT FROM jsonb_array_elements(CASE jsonb_typeof(w.value->'addresses') WHEN 'array' THEN w.value->'addresses' ELSE '[]' END) a
                    WHERE jsonb_typeof(a.value) <> 'string' OR tiergate.parse_address(a.value #>> '{}') IS NULL) LIMIT 1;
    IF FOUND THEN
        PERFORM tiergate.refuse(422, 'invalid-report', '/workloads/' || bad, 'a workload is {"name", "tenant", "service", "cgroup", "addresses"}');
    END IF;
    SELECT h.ordinality - 1 INTO bad FROM jsonb_array_elements(health) WITH ORDINALITY h
     WHERE jsonb_typeof(h.value) <> 'object' OR coalesce(h.value->>'endpoint', '') !~ '^[0-9]{1,18}$'
        OR jsonb_typeof(h.value->'healthy') IS DISTINCT FROM 'boolean'
        OR jsonb_typeof(coalesce(h.value->'reason', '""')) <> 'string' LIMIT 1;
    IF FOUND THEN
        PERFORM tiergate.refuse(422, 'invalid-report', '/health/' || bad, 'health is {"endpoint": id, "healthy": true or false, "reason"}');
    END IF;

    -- one report of a node at a time
    PERFORM pg_advisory_xact_lock(hashtextextended('tiergate.mesh/report/' || gateway, 0));
    IF list IS NOT NULL THEN
        refused := tiergate.mesh_report_workloads(n, report->>'boot', list);
    END IF;

    UPDATE tiergate.mesh_endpoints e
       SET healthy = g.healthy, health_reason = CASE WHEN NOT g.healthy THEN g.reason END
      FROM (SELECT DISTINCT ON (1) (h.value->>'endpoint')::bigint AS id, (h.value->'healthy')::boolean AS healthy,
                   left(regexp_replace(coalesce(h.value->>'reason', 'unhealthy'), '[\x01-\x1f\x7f]', ' ', 'g'), 100) AS reason
              FROM jsonb_array_elements(health) WITH ORDINALITY h ORDER BY 1, h.ordinality DESC) g
     WHERE e.id = g.id AND e.node = n.name
       AND EXISTS (SELECT FROM tiergate.mesh_services s WHERE s.tenant = e.tenant AND s.name = e.service AND s.health IS NOT NULL)
       AND (e.healthy <> g.healthy OR NOT g.healthy AND e.health_reason IS DISTINCT FROM g.reason);

    UPDATE tiergate.gateways x SET last_seen = clock_timestamp() WHERE x.name = gateway;
    RETURN coalesce(refused, '[]');
END
$$;

COMMENT ON FUNCTION tiergate.mesh_report(text, jsonb) IS
    'Takes what the agent of a node reports: the workloads that it has started, and the health of endpoints of its node; returns the workloads that it cannot have';


-- Endpoints come back with the agent's next report, which says how all are.
CREATE FUNCTION tiergate.mesh_nodes_away(uptime_ms bigint)
RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    patience interval := (tiergate.setting('mesh.node_timeout') #>> '{}')::interval;
    marked   bigint;
BEGIN
    -- agents need time to come back to a tenantd that was away itself
    IF uptime_ms * interval '1 millisecond' < patience
       OR NOT EXISTS (SELECT FROM tiergate.gateways g
                       WHERE g.kind = 'agent' AND coalesce(g.last_seen, g.created_at) < clock_timestamp() - patience)
       OR NOT pg_try_advisory_xact_lock(hashtextextended('tiergate.mesh_nodes_away', 0)) THEN
        RETURN 0;
    END IF;
    UPDATE tiergate.mesh_endpoints e SET healthy = false, health_reason = 'node away'
      FROM tiergate.gateways g
     WHERE g.kind = 'agent' AND coalesce(g.last_seen, g.created_at) < clock_timestamp() - patience
       AND e.node = substr(g.name, 6) AND e.healthy
       AND EXISTS (SELECT FROM tiergate.mesh_services s WHERE s.tenant = e.tenant AND s.name = e.service AND s.health IS NOT NULL);
    GET DIAGNOSTICS marked = ROW_COUNT;
    RETURN marked;
END
$$;

COMMENT ON FUNCTION tiergate.mesh_nodes_away(bigint) IS
    'Counts endpoints as unhealthy that are checked by the agent of a node which has not been heard of for setting mesh.node_timeout; uptime_ms: for how long the caller has been there to be reported to';


-- A dedicated gateway is a workload of its tenant

ALTER TABLE tiergate.instances ADD COLUMN cgroup text;
COMMENT ON COLUMN tiergate.instances.cgroup IS 'Its cgroup, a path below the cgroup2 mount of the node; null: it has none';


CREATE FUNCTION tiergate.mesh_gateway(i tiergate.instances)
RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
    own tiergate.mesh_workloads;
BEGIN
    SELECT * INTO own FROM tiergate.mesh_workloads w WHERE w.source = 'gateway' AND w.tenant = i.tenant AND w.name = 'gateway-' || i.name;
    IF own.id IS NOT NULL AND (own.node, own.cgroup) IS DISTINCT FROM (i.node, i.cgroup) THEN
        DELETE FROM tiergate.mesh_workloads w WHERE w.id = own.id;
        own := NULL;
    END IF;
    IF own.id IS NULL AND i.cgroup IS NOT NULL
       AND EXISTS (SELECT FROM tiergate.mesh_nodes n WHERE n.name = i.node AND tiergate.mesh_runs(n, i.tenant))
       AND EXISTS (SELECT FROM tiergate.tenants t JOIN tiergate.mesh_tenants m ON m.tenant = t.name WHERE t.id = i.tenant_id AND t.name = i.tenant) THEN
        INSERT INTO tiergate.mesh_workloads (tenant, name, service, node, cgroup, source)
        VALUES (i.tenant, 'gateway-' || i.name, 'gateway', i.node, i.cgroup, 'gateway')
            ON CONFLICT DO NOTHING;
    END IF;
END
$$;

COMMENT ON FUNCTION tiergate.mesh_gateway(tiergate.instances) IS
    'Makes an instance with a cgroup, on a node of the mesh that runs its tenant, a workload of service gateway';


CREATE FUNCTION tiergate.mesh_gateway_follows()
RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF TG_TABLE_NAME = 'mesh_nodes' THEN
        PERFORM tiergate.mesh_gateway(i) FROM tiergate.instances i WHERE i.node = NEW.name;
    ELSIF TG_OP = 'DELETE' THEN
        DELETE FROM tiergate.mesh_workloads w WHERE w.source = 'gateway' AND w.tenant = OLD.tenant AND w.name = 'gateway-' || OLD.name;
    ELSE
        PERFORM tiergate.mesh_gateway(NEW);
    END IF;
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION tiergate.mesh_gateway_follows() IS 'Trigger: the workload of a tenant''s own gateway follows where that runs';

CREATE TRIGGER instances_mesh_gateway AFTER UPDATE OF node, cgroup ON tiergate.instances
    FOR EACH ROW WHEN ((OLD.node, OLD.cgroup) IS DISTINCT FROM (NEW.node, NEW.cgroup)) EXECUTE FUNCTION tiergate.mesh_gateway_follows();
CREATE TRIGGER instances_mesh_gateway_gone AFTER DELETE ON tiergate.instances
    FOR EACH ROW EXECUTE FUNCTION tiergate.mesh_gateway_follows();
-- after the trigger that gives up what is not assigned any more, which sorts before it
CREATE TRIGGER mesh_nodes_mesh_gateway AFTER INSERT OR UPDATE OF tenants ON tiergate.mesh_nodes
    FOR EACH ROW EXECUTE FUNCTION tiergate.mesh_gateway_follows();


DROP FUNCTION tiergate.instance_observed(text, text, bigint, jsonb, integer, integer, bigint, integer, text, text);

CREATE FUNCTION tiergate.instance_observed(name text, phase text, observed_generation bigint, conditions jsonb,
                                           pid integer, attempts integer, retry_at_ms bigint, restarts integer,
                                           reason text, message text, cgroup text DEFAULT NULL)
RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    i tiergate.instances;
BEGIN
    IF phase NOT IN ('ready', 'stopped') THEN
        PERFORM tiergate.relax_commit();
    END IF;
    SELECT * INTO i FROM tiergate.instances x WHERE x.name = instance_observed.name FOR UPDATE;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    UPDATE tiergate.instances x
       SET observed_generation = coalesce(instance_observed.observed_generation, x.observed_generation),
           conditions = tiergate.merge_conditions(x.conditions, coalesce(instance_observed.conditions, '[]')),
           pid        = instance_observed.pid,
           started_at = CASE WHEN instance_observed.pid IS NULL THEN NULL
                             WHEN instance_observed.pid = x.pid THEN x.started_at ELSE clock_timestamp() END,
           attempts   = coalesce(instance_observed.attempts, x.attempts),
           retry_at   = to_timestamp(retry_at_ms / 1000.0),
           restarts   = coalesce(instance_observed.restarts, x.restarts),
           cgroup     = CASE WHEN instance_observed.cgroup IS NULL THEN x.cgroup ELSE nullif(instance_observed.cgroup, '') END,
           ready_at   = CASE WHEN instance_observed.phase = 'ready' THEN coalesce(x.ready_at, clock_timestamp()) ELSE x.ready_at END
     WHERE x.name = i.name;
    PERFORM tiergate.report_instance(i, phase, coalesce(reason, ''), coalesce(message, ''));
    RETURN true;
END
$$;

COMMENT ON FUNCTION tiergate.instance_observed(text, text, bigint, jsonb, integer, integer, bigint, integer, text, text, text) IS
    'Writes what a driver sees of its instance; conditions are merged by type; null keeps observed_generation, attempts, restarts and cgroup (empty: it has none), and says that there is no process, no retry. False if there is no such instance any more';


-- REST

CREATE FUNCTION tiergate_api.find_mesh(tenant text)
RETURNS tiergate.mesh_tenants
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    t tiergate.tenants := tiergate.find_tenant(tenant);
    m tiergate.mesh_tenants;
BEGIN
    SELECT * INTO m FROM tiergate.mesh_tenants x WHERE x.tenant = t.name;
    IF NOT FOUND THEN
        PERFORM tiergate.refuse(404, 'unknown-tenant', '', format('tenant "%s" is not in the mesh', t.name),
                                'it comes into it with its first service, policy or setting of the mesh');
    END IF;
    RETURN m;
END
$$;

COMMENT ON FUNCTION tiergate_api.find_mesh(text) IS 'The settings of a tenant in the mesh; refuses with 404';


CREATE FUNCTION tiergate_api.get_mesh(path text[], query jsonb, body jsonb)
RETURNS tiergate_api.response
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    m tiergate.mesh_tenants := tiergate_api.find_mesh(path[1]);
BEGIN
    PERFORM tiergate_api.check_query(query);
    RETURN tiergate_api.ok(tiergate.mesh_settings_json(m), tiergate.revision_of('mesh_tenant', m.number));
END
$$;

COMMENT ON FUNCTION tiergate_api.get_mesh(text[], jsonb, jsonb) IS 'GET /v1/tenants/{tenant}/mesh';


CREATE FUNCTION tiergate_api.patch_mesh(path text[], query jsonb, body jsonb)
RETURNS tiergate_api.response
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    t tiergate.tenants := tiergate.find_tenant(path[1]);
    m tiergate.mesh_tenants;
BEGIN
    PERFORM tiergate_api.check_query(query);
    IF current_setting('tiergate.scope', true) = 'tenant' AND body ? 'endpoint_nets' THEN
        PERFORM tiergate.refuse(403, 'forbidden', '/endpoint_nets', '/endpoint_nets is for the platform to change', 'it takes scope admin');
    END IF;
    PERFORM tiergate.patch_mesh(t.name, body);
    m := tiergate_api.find_mesh(t.name);
    RETURN tiergate_api.ok(tiergate.mesh_settings_json(m), tiergate_api.settle('mesh_tenant', m.number));
END
$$;

COMMENT ON FUNCTION tiergate_api.patch_mesh(text[], jsonb, jsonb) IS 'PATCH /v1/tenants/{tenant}/mesh';


CREATE FUNCTION tiergate_api.delete_mesh(path text[], query jsonb, body jsonb)
RETURNS tiergate_api.response
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    m tiergate.mesh_tenants := tiergate_api.find_mesh(path[1]);
BEGIN
    PERFORM tiergate_api.check_query(query);
    PERFORM tiergate.delete_mesh(m.tenant);
    PERFORM tiergate_api.settle('mesh_tenant', m.number);
    RETURN tiergate_api.no_content();
END
$$;

COMMENT ON FUNCTION tiergate_api.delete_mesh(text[], jsonb, jsonb) IS 'DELETE /v1/tenants/{tenant}/mesh';


-- Services, workloads and policies differ in names, and in what their revision is.
DO $$
DECLARE
    c record;
BEGIN
    FOR c IN
        SELECT * FROM (VALUES
            ('services',  'service',  'mesh_services',  'id',     'mesh_service',  'services'),
            ('workloads', 'workload', 'mesh_workloads', 'id',     'mesh_workload', 'workloads'),
            ('policies',  'policy',   'mesh_policies',  'tenant', 'mesh_tenant',   'policies')
        ) AS v (plural, kind, tab, of, changed, path)
    LOOP
        EXECUTE format($f$
            CREATE FUNCTION tiergate_api.list_mesh_%1$s(path text[], query jsonb, body jsonb)
            RETURNS tiergate_api.response
            LANGUAGE plpgsql STABLE SECURITY DEFINER
            SET search_path = pg_catalog, pg_temp
            AS $body$
            DECLARE
                t     tiergate.tenants := tiergate.find_tenant(path[1]);
                most  integer := tiergate_api.page_limit(query);
                after text    := coalesce(tiergate_api.page_after(query), '');
                p     record;
            BEGIN
                PERFORM tiergate_api.check_query(query, 'limit', 'cursor');
                SELECT array_agg(x.item) AS items, array_agg(x.name) AS keys INTO p
                  FROM (SELECT o.name, tiergate.mesh_%2$s_json(o) AS item FROM tiergate.%3$s o
                         WHERE o.tenant = t.name AND o.name > after ORDER BY o.name LIMIT most + 1) x;
                RETURN tiergate_api.page(p.items, p.keys, most);
            END
            $body$
            $f$, c.plural, c.kind, c.tab);
        EXECUTE format($f$
            CREATE FUNCTION tiergate_api.find_mesh_%1$s(tenant text, name text)
            RETURNS tiergate.%2$s
            LANGUAGE plpgsql STABLE
            AS $body$
            DECLARE
                t tiergate.tenants := tiergate.find_tenant(tenant);
                o tiergate.%2$s;
            BEGIN
                SELECT * INTO o FROM tiergate.%2$s x WHERE x.tenant = t.name AND x.name = find_mesh_%1$s.name;
                IF NOT FOUND THEN
                    PERFORM tiergate.refuse(404, 'unknown-%1$s', '', format('tenant "%%s" has no %1$s "%%s" in the mesh', t.name, name));
                END IF;
                RETURN o;
            END
            $body$
            $f$, c.kind, c.tab);
        EXECUTE format($f$
            CREATE FUNCTION tiergate_api.mesh_%1$s_object(o tiergate.%2$s)
            RETURNS bigint
            LANGUAGE plpgsql STABLE
            AS $body$
            BEGIN
                RETURN %3$s;
            END
            $body$
            $f$, c.kind, c.tab, CASE c.of WHEN 'id' THEN 'o.id'
                 ELSE '(SELECT m.number FROM tiergate.mesh_tenants m WHERE m.tenant = o.tenant)' END);
        EXECUTE format($f$
            CREATE FUNCTION tiergate_api.get_mesh_%1$s(path text[], query jsonb, body jsonb)
            RETURNS tiergate_api.response
            LANGUAGE plpgsql STABLE SECURITY DEFINER
            SET search_path = pg_catalog, pg_temp
            AS $body$
            DECLARE
                o tiergate.%2$s := tiergate_api.find_mesh_%1$s(path[1], path[2]);
            BEGIN
                PERFORM tiergate_api.check_query(query);
                RETURN tiergate_api.ok(tiergate.mesh_%1$s_json(o),
                                       tiergate.revision_of('%3$s', tiergate_api.mesh_%1$s_object(o)));
            END
            $body$
            $f$, c.kind, c.tab, c.changed);
        EXECUTE format($f$
            CREATE FUNCTION tiergate_api.put_mesh_%1$s(path text[], query jsonb, body jsonb)
            RETURNS tiergate_api.response
            LANGUAGE plpgsql SECURITY DEFINER
            SET search_path = pg_catalog, pg_temp
            AS $body$
            DECLARE
                t      tiergate.tenants := tiergate.find_tenant(path[1]);
                is_new boolean := NOT EXISTS (SELECT FROM tiergate.%2$s o
                                               WHERE o.tenant = t.name AND o.name = put_mesh_%1$s.path[2]);
                o      tiergate.%2$s;
            BEGIN
                PERFORM tiergate_api.check_query(query);
                PERFORM tiergate.put_mesh_object('mesh_%1$s', t.name, path[2], body);
                o := tiergate_api.find_mesh_%1$s(t.name, path[2]);
                RETURN tiergate_api.ok(tiergate.mesh_%1$s_json(o),
                                       tiergate_api.settle('%3$s', tiergate_api.mesh_%1$s_object(o)),
                                       CASE WHEN is_new THEN 201 ELSE 200 END);
            END
            $body$
            $f$, c.kind, c.tab, c.changed);
        EXECUTE format($f$
            CREATE FUNCTION tiergate_api.delete_mesh_%1$s(path text[], query jsonb, body jsonb)
            RETURNS tiergate_api.response
            LANGUAGE plpgsql SECURITY DEFINER
            SET search_path = pg_catalog, pg_temp
            AS $body$
            DECLARE
                o  tiergate.%2$s := tiergate_api.find_mesh_%1$s(path[1], path[2]);
                of bigint := tiergate_api.mesh_%1$s_object(o);
            BEGIN
                PERFORM tiergate_api.check_query(query);
                %4$s
                DELETE FROM tiergate.%2$s x WHERE x.id = o.id;
                PERFORM tiergate_api.settle('%3$s', of);
                RETURN tiergate_api.no_content();
            END
            $body$
            $f$, c.kind, c.tab, c.changed,
                 CASE c.kind WHEN 'workload' THEN 'PERFORM tiergate.refuse_managed_workload(o.tenant, o.name);' ELSE '' END);

        EXECUTE format('COMMENT ON FUNCTION tiergate_api.find_mesh_%s(text, text) IS %L', c.kind,
                       format('The %s of a tenant in the mesh; refuses with 404', c.kind));
        EXECUTE format('COMMENT ON FUNCTION tiergate_api.mesh_%s_object(tiergate.%s) IS %L', c.kind, c.tab,
                       format('Id of the object of the stream whose revision is that of a %s', c.kind));
        EXECUTE format('COMMENT ON FUNCTION tiergate_api.list_mesh_%s(text[], jsonb, jsonb) IS %L', c.plural,
                       format('GET /v1/tenants/{tenant}/mesh/%s', c.path));
        EXECUTE format('COMMENT ON FUNCTION tiergate_api.get_mesh_%s(text[], jsonb, jsonb) IS %L', c.kind,
                       format('GET /v1/tenants/{tenant}/mesh/%s/{name}', c.path));
        EXECUTE format('COMMENT ON FUNCTION tiergate_api.put_mesh_%s(text[], jsonb, jsonb) IS %L', c.kind,
                       format('PUT /v1/tenants/{tenant}/mesh/%s/{name}', c.path));
        EXECUTE format('COMMENT ON FUNCTION tiergate_api.delete_mesh_%s(text[], jsonb, jsonb) IS %L', c.kind,
                       format('DELETE /v1/tenants/{tenant}/mesh/%s/{name}', c.path));
    END LOOP;
END
$$;


CREATE FUNCTION tiergate_api.list_mesh_endpoints(path text[], query jsonb, body jsonb)
RETURNS tiergate_api.response
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    s    tiergate.mesh_services := tiergate_api.find_mesh_service(path[1], path[2]);
    most integer := tiergate_api.page_limit(query);
    low  bigint  := coalesce(tiergate_api.page_number(query), 0);
    p    record;
BEGIN
    PERFORM tiergate_api.check_query(query, 'limit', 'cursor');
    SELECT array_agg(x.item) AS items, array_agg(x.id::text) AS keys INTO p
      FROM (SELECT e.id, tiergate.mesh_endpoint_json(e) AS item FROM tiergate.mesh_endpoints e
             WHERE e.tenant = s.tenant AND e.service = s.name AND e.id > low ORDER BY e.id LIMIT most + 1) x;
    RETURN tiergate_api.page(p.items, p.keys, most);
END
$$;

COMMENT ON FUNCTION tiergate_api.list_mesh_endpoints(text[], jsonb, jsonb) IS
    'GET /v1/tenants/{tenant}/mesh/services/{service}/endpoints';


CREATE FUNCTION tiergate_api.put_mesh_endpoint(path text[], query jsonb, body jsonb)
RETURNS tiergate_api.response
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    s      tiergate.mesh_services := tiergate_api.find_mesh_service(path[1], path[2]);
    named  record := tiergate_api.split_endpoint(path[3]);
    is_new boolean;
    given  jsonb := coalesce(body, '{}');
    e      tiergate.mesh_endpoints;
BEGIN
    PERFORM tiergate_api.check_query(query);
    IF jsonb_typeof(given) = 'object' THEN
        given := given || jsonb_build_object('address', host(named.address), 'port', named.port);
    END IF;
    is_new := NOT EXISTS (SELECT FROM tiergate.mesh_endpoints x
                           WHERE x.tenant = s.tenant AND x.service = s.name AND x.address = named.address AND x.port = named.port);
    PERFORM tiergate.put_mesh_object('mesh_endpoint', s.tenant, s.name, given);
    SELECT * INTO e FROM tiergate.mesh_endpoints x
     WHERE x.tenant = s.tenant AND x.service = s.name AND x.address = named.address AND x.port = named.port;
    RETURN tiergate_api.ok(tiergate.mesh_endpoint_json(e), tiergate_api.settle('mesh_service', s.id),
                           CASE WHEN is_new THEN 201 ELSE 200 END);
END
$$;

COMMENT ON FUNCTION tiergate_api.put_mesh_endpoint(text[], jsonb, jsonb) IS
    'PUT /v1/tenants/{tenant}/mesh/services/{service}/endpoints/{endpoint}';


CREATE FUNCTION tiergate_api.delete_mesh_endpoint(path text[], query jsonb, body jsonb)
RETURNS tiergate_api.response
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    s     tiergate.mesh_services := tiergate_api.find_mesh_service(path[1], path[2]);
    named record := tiergate_api.split_endpoint(path[3]);
BEGIN
    PERFORM tiergate_api.check_query(query);
    PERFORM tiergate.mesh_drop_endpoint(s.tenant, s.name, named.address, named.port);
    PERFORM tiergate_api.settle('mesh_service', s.id);
    RETURN tiergate_api.no_content();
END
$$;

COMMENT ON FUNCTION tiergate_api.delete_mesh_endpoint(text[], jsonb, jsonb) IS
    'DELETE /v1/tenants/{tenant}/mesh/services/{service}/endpoints/{endpoint}';


-- Nodes

CREATE FUNCTION tiergate_api.find_mesh_node(name text)
RETURNS tiergate.mesh_nodes
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    n tiergate.mesh_nodes;
BEGIN
    SELECT * INTO n FROM tiergate.mesh_nodes x WHERE x.name = find_mesh_node.name;
    IF NOT FOUND THEN
        PERFORM tiergate.refuse(404, 'unknown-node', '', format('there is no node "%s"', name));
    END IF;
    RETURN n;
END
$$;

COMMENT ON FUNCTION tiergate_api.find_mesh_node(text) IS 'The node of this name; refuses with 404';


CREATE FUNCTION tiergate_api.list_mesh_nodes(path text[], query jsonb, body jsonb)
RETURNS tiergate_api.response
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    most  integer := tiergate_api.page_limit(query);
    after text    := coalesce(tiergate_api.page_after(query), '');
    p     record;
BEGIN
    PERFORM tiergate_api.check_query(query, 'limit', 'cursor');
    SELECT array_agg(x.item) AS items, array_agg(x.name) AS keys INTO p
      FROM (SELECT n.name, tiergate.mesh_node_json(n) AS item FROM tiergate.mesh_nodes n
             WHERE n.name > after ORDER BY n.name LIMIT most + 1) x;
    RETURN tiergate_api.page(p.items, p.keys, most);
END
$$;

COMMENT ON FUNCTION tiergate_api.list_mesh_nodes(text[], jsonb, jsonb) IS 'GET /v1/mesh/nodes';


CREATE FUNCTION tiergate_api.get_mesh_node(path text[], query jsonb, body jsonb)
RETURNS tiergate_api.response
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    n tiergate.mesh_nodes := tiergate_api.find_mesh_node(path[1]);
BEGIN
    PERFORM tiergate_api.check_query(query);
    RETURN tiergate_api.ok(tiergate.mesh_node_json(n), tiergate.revision_of('mesh_node', n.id));
END
$$;

COMMENT ON FUNCTION tiergate_api.get_mesh_node(text[], jsonb, jsonb) IS 'GET /v1/mesh/nodes/{node}';


CREATE FUNCTION tiergate_api.put_mesh_node(path text[], query jsonb, body jsonb)
RETURNS tiergate_api.response
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    is_new boolean := NOT EXISTS (SELECT FROM tiergate.mesh_nodes x WHERE x.name = path[1]);
    n      tiergate.mesh_nodes;
BEGIN
    PERFORM tiergate_api.check_query(query);
    PERFORM tiergate.put_mesh_object('mesh_node', NULL, path[1], body);
    n := tiergate_api.find_mesh_node(path[1]);
    RETURN tiergate_api.ok(tiergate.mesh_node_json(n), tiergate_api.settle('mesh_node', n.id),
                           CASE WHEN is_new THEN 201 ELSE 200 END);
END
$$;

COMMENT ON FUNCTION tiergate_api.put_mesh_node(text[], jsonb, jsonb) IS 'PUT /v1/mesh/nodes/{node}';


CREATE FUNCTION tiergate_api.delete_mesh_node(path text[], query jsonb, body jsonb)
RETURNS tiergate_api.response
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    n tiergate.mesh_nodes := tiergate_api.find_mesh_node(path[1]);
BEGIN
    PERFORM tiergate_api.check_query(query);
    DELETE FROM tiergate.mesh_nodes x WHERE x.id = n.id;
    PERFORM tiergate_api.settle('mesh_node', n.id);
    RETURN tiergate_api.no_content();
END
$$;

COMMENT ON FUNCTION tiergate_api.delete_mesh_node(text[], jsonb, jsonb) IS 'DELETE /v1/mesh/nodes/{node}';


CREATE FUNCTION tiergate_api.report_mesh(path text[], query jsonb, body jsonb)
RETURNS tiergate_api.response
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    refused jsonb;
BEGIN
    PERFORM tiergate_api.check_query(query);
    refused := tiergate.mesh_report(path[1], body);
    IF refused = '[]' THEN
        RETURN tiergate_api.no_content();
    END IF;
    RETURN tiergate_api.ok(jsonb_build_object('refused', refused));
END
$$;

COMMENT ON FUNCTION tiergate_api.report_mesh(text[], jsonb, jsonb) IS 'POST /v1/gateways/{gateway}/mesh';


-- What gateways report is not for agents to say: they would be taken for shared ones.

CREATE FUNCTION tiergate_api.refuse_agent(gateway text)
RETURNS void
LANGUAGE plpgsql STABLE
AS $$
BEGIN
    IF EXISTS (SELECT FROM tiergate.gateways g WHERE g.name = gateway AND g.kind = 'agent')
       OR gateway LIKE 'node-%' AND NOT EXISTS (SELECT FROM tiergate.gateways g WHERE g.name = gateway) THEN
        PERFORM tiergate.refuse(403, 'forbidden', '', format('"%s" is an agent: gateways report this', gateway));
    END IF;
END
$$;

COMMENT ON FUNCTION tiergate_api.refuse_agent(text) IS 'Refuses an agent what only gateways may report';


CREATE OR REPLACE FUNCTION tiergate_api.report_usage(path text[], query jsonb, body jsonb)
RETURNS tiergate_api.response
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM tiergate_api.check_query(query);
    PERFORM tiergate_api.refuse_agent(path[1]);
    PERFORM tiergate.record_usage(path[1], tiergate.metered_usage(path[1], body));
    RETURN tiergate_api.no_content();
END
$$;


CREATE OR REPLACE FUNCTION tiergate_api.report_handover(path text[], query jsonb, body jsonb)
RETURNS tiergate_api.response
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM tiergate_api.check_query(query);
    PERFORM tiergate_api.refuse_agent(path[1]);
    PERFORM tiergate.handover_report(path[1], body);
    RETURN tiergate_api.no_content();
END
$$;


CREATE OR REPLACE FUNCTION tiergate.gateway_json(g tiergate.gateways)
RETURNS jsonb
LANGUAGE plpgsql STABLE
AS $$
BEGIN
    RETURN jsonb_strip_nulls(jsonb_build_object(
        'name', g.name, 'kind', g.kind, 'tenant', g.tenant, 'state', g.state, 'observedRevision', g.revision,
        'boot', g.boot, 'last_seen', g.last_seen, 'tenants', g.tenants,
        'zone', CASE WHEN g.zone_size IS NOT NULL THEN
            jsonb_build_object('size', g.zone_size, 'used', g.zone_used) END,
        'mesh', g.mesh, 'rejected', g.rejected, 'created_at', g.created_at))
        || coalesce((SELECT tiergate.instance_json(i) FROM tiergate.instances i WHERE i.name = g.name), '{}');
END
$$;


-- Who may do what, see 0013_security

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA tiergate, tiergate_api FROM PUBLIC;

GRANT SELECT ON tiergate.mesh_status TO tiergate_admin, tiergate_reader, tiergate_tenant;
GRANT SELECT ON tiergate.mesh_agents TO tiergate_admin, tiergate_reader;
GRANT EXECUTE ON FUNCTION tiergate.endpoint_name(inet, integer) TO tiergate_admin, tiergate_reader, tiergate_tenant;
GRANT EXECUTE ON FUNCTION
    tiergate.parse_network(text), tiergate.text_problem(text, text), tiergate.format_problem(text, text),
    tiergate.mesh_identity(text, text), tiergate.put_mesh_object(text, text, text, jsonb), tiergate.patch_mesh(text, jsonb),
    tiergate.delete_mesh(text), tiergate.refuse_foreign_addresses(text, inet[], text[]), tiergate.refuse_managed_workload(text, text),
    tiergate.write_mesh_endpoints(text, text, tiergate.mesh_endpoint_body[], boolean),
    tiergate.write_mesh_service(text, tiergate.mesh_service_body), tiergate.write_mesh_workload(text, tiergate.mesh_workload_body),
    tiergate.write_mesh_policy(text, tiergate.mesh_policy_body), tiergate.write_mesh_node(tiergate.mesh_node_body),
    tiergate.parse_mesh_service(jsonb), tiergate.parse_mesh_endpoint(jsonb), tiergate.parse_mesh_workload(jsonb),
    tiergate.parse_mesh_policy(jsonb), tiergate.parse_mesh_node(jsonb), tiergate.parse_mesh_settings(jsonb),
    tiergate.mesh_put_service(text, text, integer, text), tiergate.find_mesh_service(text, text), tiergate.mesh_drop_service(text, text),
    tiergate.mesh_set_endpoint(text, text, inet, integer, integer, integer, text),
    tiergate.mesh_drop_endpoint(text, text, inet, integer),
    tiergate.mesh_set_limit(text, text, integer, integer, integer),
    tiergate.mesh_allow(text, text, text, text, text, text, text, text, text, integer[], integer, text),
    tiergate.mesh_deny(text, text, text, text, text, text, text, text, text, integer[], integer, text),
    tiergate.mesh_drop_policy(text, text),
    tiergate.mesh_set_default(text, boolean, boolean, boolean, boolean, boolean, boolean, boolean),
    tiergate.mesh_put_node(text, inet[], text[], cidr[]), tiergate.mesh_drop_node(text)
    TO tiergate_admin;
GRANT EXECUTE ON FUNCTION
    tiergate.mesh_nodes_away(bigint), tiergate.gateway_ack(text, text, bigint, jsonb),
    tiergate.instance_observed(text, text, bigint, jsonb, integer, integer, bigint, integer, text, text, text)
    TO tiergate_daemon;
GRANT EXECUTE ON FUNCTION
    tiergate_api.get_mesh(text[], jsonb, jsonb), tiergate_api.patch_mesh(text[], jsonb, jsonb), tiergate_api.delete_mesh(text[], jsonb, jsonb),
    tiergate_api.list_mesh_services(text[], jsonb, jsonb), tiergate_api.get_mesh_service(text[], jsonb, jsonb),
    tiergate_api.put_mesh_service(text[], jsonb, jsonb), tiergate_api.delete_mesh_service(text[], jsonb, jsonb),
    tiergate_api.list_mesh_endpoints(text[], jsonb, jsonb), tiergate_api.put_mesh_endpoint(text[], jsonb, jsonb),
    tiergate_api.delete_mesh_endpoint(text[], jsonb, jsonb),
    tiergate_api.list_mesh_workloads(text[], jsonb, jsonb), tiergate_api.get_mesh_workload(text[], jsonb, jsonb),
    tiergate_api.put_mesh_workload(text[], jsonb, jsonb), tiergate_api.delete_mesh_workload(text[], jsonb, jsonb),
    tiergate_api.list_mesh_policies(text[], jsonb, jsonb), tiergate_api.get_mesh_policy(text[], jsonb, jsonb),
    tiergate_api.put_mesh_policy(text[], jsonb, jsonb), tiergate_api.delete_mesh_policy(text[], jsonb, jsonb),
    tiergate_api.list_mesh_nodes(text[], jsonb, jsonb), tiergate_api.get_mesh_node(text[], jsonb, jsonb),
    tiergate_api.put_mesh_node(text[], jsonb, jsonb), tiergate_api.delete_mesh_node(text[], jsonb, jsonb),
    tiergate_api.report_mesh(text[], jsonb, jsonb)
    TO tiergate_daemon;

COMMIT;
