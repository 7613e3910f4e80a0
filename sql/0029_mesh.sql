-- SPDX-License-Identifier: BSD-2-Clause
--
-- The mesh in the registry: where services are, who may call them, which
-- processes and addresses are whose; and what agents get of it on the stream.
--
-- 1. Tenants, services and policies have numbers beside their names: what kernels
--    keep.  They come from sequences and are never given twice.  Virtual addresses
--    are taken from a pool by a counter; one that was given back is given again
--    only when the counter has gone round, its quarantine is over, and every agent
--    has acknowledged that it was given back.
-- 2. A policy may name services of another tenant, by name: they may come and go.
--    Whoever makes a name or takes it away marks the tenants whose policies name
--    it.  So that two who cannot see each other do not miss each other, both hold
--    a lock of the tenant that is named: who names it alone, who makes names
--    together (hold_mesh_names).
-- 3. What would let a process fall out of its identity is refused: a service with
--    workloads is not deleted, a node with workloads of a tenant keeps the tenant.
-- 4. An agent is a gateway of kind agent, called node-<name of the node>.

BEGIN;

INSERT INTO tiergate.schema_migrations (version, name) VALUES (29, 'mesh');

INSERT INTO tiergate.settings (name, value, description) VALUES
    ('mesh.ipv4_pool', '"240.64.0.0/12"',
     'Network from which services get their IPv4 addresses'),
    ('mesh.ipv6_pool', '"fd74:6765::/64"',
     'Network from which services get their IPv6 addresses'),
    ('mesh.quarantine', '"24 hours"',
     'How long an address that a service has given back is given to no other'),
    ('mesh.node_timeout', '"30 seconds"',
     'After how long without a word of its agent the endpoints of a node count as unhealthy'),
    ('mesh.trust_domain', '"tiergate.local"',
     'Trust domain of the identities spiffe://<trust domain>/tenant/<tenant>/service/<service>');

INSERT INTO tiergate.limits (name, value, maximum, description) VALUES
    ('mesh_services_per_tenant',   10000, 10000, 'Mesh services of a tenant'),
    ('mesh_endpoints_per_service', 10000, 10000, 'Endpoints of a mesh service'),
    ('mesh_workloads_per_tenant',  10000, 10000, 'Workloads of a tenant'),
    ('mesh_policies_per_tenant',   1000,  1000,  'Mesh policies of a tenant');


CREATE FUNCTION tiergate.check_mesh_setting()
RETURNS trigger
LANGUAGE plpgsql
AS $$
DECLARE
    word  text := NEW.value #>> '{}';
    sound boolean;
BEGIN
    BEGIN
        sound := NEW.name = OLD.name AND jsonb_typeof(NEW.value) = 'string' AND CASE NEW.name
            WHEN 'mesh.ipv4_pool' THEN family(word::cidr) = 4 AND masklen(word::cidr) BETWEEN 8 AND 28
                AND NOT word::cidr && ANY ('{0.0.0.0/8,127.0.0.0/8,169.254.0.0/16,224.0.0.0/4}'::cidr[])
            WHEN 'mesh.ipv6_pool' THEN family(word::cidr) = 6 AND masklen(word::cidr) BETWEEN 16 AND 120
                AND NOT word::cidr && ANY ('{::/96,::ffff:0:0/96,fe80::/10,ff00::/8}'::cidr[])
            WHEN 'mesh.trust_domain' THEN tiergate.is_hostname(word) AND word NOT LIKE '*%'
            WHEN 'mesh.node_timeout' THEN word::interval BETWEEN '1 second' AND '1 day'
            ELSE word::interval BETWEEN '0' AND '10 years' END;
    EXCEPTION WHEN data_exception THEN
        sound := false;
    END;
    IF sound IS NOT TRUE THEN
        PERFORM tiergate.refuse(422, 'invalid-setting', '/value',
            format('setting "%s" cannot be %s', NEW.name, left(NEW.value::text, 100)),
            CASE NEW.name WHEN 'mesh.ipv4_pool'    THEN 'write an IPv4 network of 8 to 28 bits that nothing else uses: "240.64.0.0/12"'
                          WHEN 'mesh.ipv6_pool'    THEN 'write an IPv6 network of 16 to 120 bits that nothing else uses: "fd74:6765::/64"'
                          WHEN 'mesh.trust_domain' THEN 'write a name as of a host: "mesh.example.com"'
                          WHEN 'mesh.node_timeout' THEN 'write an interval from "1 second" to "1 day"'
                          ELSE 'write an interval of at most 10 years: "24 hours"' END);
    END IF;
    RETURN NEW;
END
$$;

COMMENT ON FUNCTION tiergate.check_mesh_setting() IS
    'Trigger: a setting about the mesh has a value that its readers can use';

DROP TRIGGER settings_check ON tiergate.settings;
CREATE TRIGGER settings_check BEFORE UPDATE ON tiergate.settings
    FOR EACH ROW WHEN (split_part(OLD.name, '.', 1) NOT IN ('gateways', 'mesh', 'flows'))
    EXECUTE FUNCTION tiergate.check_setting();
CREATE TRIGGER settings_check_mesh BEFORE UPDATE ON tiergate.settings
    FOR EACH ROW WHEN (OLD.name LIKE 'mesh.%') EXECUTE FUNCTION tiergate.check_mesh_setting();


-- Tables

CREATE TABLE tiergate.mesh_nodes (
    id            bigint      GENERATED ALWAYS AS IDENTITY UNIQUE,
    name          text        PRIMARY KEY COLLATE "C",
    addresses     inet[]      NOT NULL DEFAULT '{}',
    workload_nets cidr[]      NOT NULL DEFAULT '{}',
    tenants       text[]      NOT NULL DEFAULT '{}',
    created_at    timestamptz NOT NULL DEFAULT now()
);

COMMENT ON TABLE  tiergate.mesh_nodes               IS 'Machines with an agent; the agent is gateway node-<name>';
COMMENT ON COLUMN tiergate.mesh_nodes.id            IS 'Number that agents know it by; never reused';
COMMENT ON COLUMN tiergate.mesh_nodes.name          IS 'Name, as in node of the agent''s configuration; of tenantd''s for its gateways';
COMMENT ON COLUMN tiergate.mesh_nodes.addresses     IS 'Its own addresses: what comes from them was checked there';
COMMENT ON COLUMN tiergate.mesh_nodes.workload_nets IS 'Networks of which its agent gives workloads their addresses';
COMMENT ON COLUMN tiergate.mesh_nodes.tenants       IS 'Tenants whose workloads may run here; {*} means all. Its agent sees these and no others';
COMMENT ON COLUMN tiergate.mesh_nodes.created_at    IS 'When it was made';


CREATE TABLE tiergate.mesh_tenants (
    number        integer     GENERATED ALWAYS AS IDENTITY UNIQUE,
    tenant        text        PRIMARY KEY COLLATE "C" REFERENCES tiergate.tenants ON DELETE CASCADE,
    from_same     boolean     NOT NULL DEFAULT true,
    from_other    boolean     NOT NULL DEFAULT false,
    from_outside  boolean     NOT NULL DEFAULT false,
    from_node     boolean     NOT NULL DEFAULT true,
    to_same       boolean     NOT NULL DEFAULT true,
    to_other      boolean     NOT NULL DEFAULT true,
    to_outside    boolean     NOT NULL DEFAULT true,
    endpoint_nets cidr[]      NOT NULL DEFAULT '{}',
    families      text        NOT NULL DEFAULT 'dual',
    created_at    timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT mesh_tenants_families CHECK (families IN ('ipv4', 'ipv6', 'dual'))
);

COMMENT ON TABLE  tiergate.mesh_tenants               IS 'Tenants in the mesh: what holds where no policy does';
COMMENT ON COLUMN tiergate.mesh_tenants.number        IS 'Number in the kernel''s maps; never reused';
COMMENT ON COLUMN tiergate.mesh_tenants.tenant        IS 'Tenant';
COMMENT ON COLUMN tiergate.mesh_tenants.from_same     IS 'Whether its own workloads may call its services';
COMMENT ON COLUMN tiergate.mesh_tenants.from_other    IS 'Whether workloads of other tenants may';
COMMENT ON COLUMN tiergate.mesh_tenants.from_outside  IS 'Whether callers that the mesh does not know may';
COMMENT ON COLUMN tiergate.mesh_tenants.from_node     IS 'Whether nodes may: shared gateways, health checks, the host''s own processes';
COMMENT ON COLUMN tiergate.mesh_tenants.to_same       IS 'Whether its workloads may call its own services';
COMMENT ON COLUMN tiergate.mesh_tenants.to_other      IS 'Whether they may call other tenants, whose own policies and defaults hold, too';
COMMENT ON COLUMN tiergate.mesh_tenants.to_outside    IS 'Whether they may call out of the mesh';
COMMENT ON COLUMN tiergate.mesh_tenants.endpoint_nets IS 'Networks in which the tenant may itself name endpoints, beside addresses of its workloads';
COMMENT ON COLUMN tiergate.mesh_tenants.families      IS 'Which addresses its services get: ipv4, ipv6 or dual';
COMMENT ON COLUMN tiergate.mesh_tenants.created_at    IS 'When it came into the mesh';
COMMENT ON CONSTRAINT mesh_tenants_families ON tiergate.mesh_tenants IS 'families is ipv4, ipv6 or dual';


CREATE TABLE tiergate.mesh_services (
    id            bigint  GENERATED ALWAYS AS IDENTITY UNIQUE,
    number        integer GENERATED ALWAYS AS IDENTITY UNIQUE,
    tenant        text    NOT NULL COLLATE "C" REFERENCES tiergate.mesh_tenants ON DELETE CASCADE,
    name          text    NOT NULL COLLATE "C",
    tenant_number integer NOT NULL,
    ipv4          inet,
    ipv6          inet,
    ports         jsonb   NOT NULL DEFAULT '[]',
    limits        jsonb   NOT NULL DEFAULT '{}',
    health        jsonb,
    PRIMARY KEY (tenant, name)
);

COMMENT ON TABLE  tiergate.mesh_services               IS 'Services of tenants in the mesh: who is called, and who calls';
COMMENT ON COLUMN tiergate.mesh_services.id            IS 'Number that agents know the row by; never reused';
COMMENT ON COLUMN tiergate.mesh_services.number        IS 'Number in the kernel''s maps; never reused';
COMMENT ON COLUMN tiergate.mesh_services.tenant        IS 'Tenant that it belongs to';
COMMENT ON COLUMN tiergate.mesh_services.name          IS 'DNS label, unique within its tenant; gateway is the tenant''s own gateway, which has no address';
COMMENT ON COLUMN tiergate.mesh_services.tenant_number IS 'Number of the tenant';
COMMENT ON COLUMN tiergate.mesh_services.ipv4          IS 'Virtual IPv4 address, as families of the tenant says';
COMMENT ON COLUMN tiergate.mesh_services.ipv6          IS 'Virtual IPv6 address';
COMMENT ON COLUMN tiergate.mesh_services.ports         IS 'Ports of the virtual address: [{"port", "protocol": "tcp"|"udp"}], at most 16; the first is the default of endpoints';
COMMENT ON COLUMN tiergate.mesh_services.limits        IS 'What its callers may do on each node: {"connections_per_second", "burst", "open_connections"}; what is missing has no limit';
COMMENT ON COLUMN tiergate.mesh_services.health        IS 'How endpoints are checked: {"type": "tcp"|"http", "path", "port", "interval_ms", "timeout_ms", "rise", "fall"}; null: they are not';


CREATE TABLE tiergate.mesh_addresses (
    address      inet        PRIMARY KEY,
    service_id   bigint      NOT NULL,
    taken_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    released_at  timestamptz,
    released_xid xid8
);

CREATE INDEX mesh_addresses_service ON tiergate.mesh_addresses (service_id);
CREATE INDEX mesh_addresses_released ON tiergate.mesh_addresses (released_at) WHERE released_at IS NOT NULL;

COMMENT ON TABLE  tiergate.mesh_addresses              IS 'Virtual addresses that services have, or had and nobody has had since';
COMMENT ON COLUMN tiergate.mesh_addresses.address      IS 'Address, of setting mesh.ipv4_pool or mesh.ipv6_pool';
COMMENT ON COLUMN tiergate.mesh_addresses.service_id   IS 'Id of the service that has it, or last had it';
COMMENT ON COLUMN tiergate.mesh_addresses.taken_at     IS 'Since when it has it';
COMMENT ON COLUMN tiergate.mesh_addresses.released_at  IS 'When it was given back; null while the service has it';
COMMENT ON COLUMN tiergate.mesh_addresses.released_xid IS 'Transaction that gave it back, as in changes';

CREATE SEQUENCE tiergate.mesh_ipv4_next;
CREATE SEQUENCE tiergate.mesh_ipv6_next;
COMMENT ON SEQUENCE tiergate.mesh_ipv4_next IS 'Counter through setting mesh.ipv4_pool';
COMMENT ON SEQUENCE tiergate.mesh_ipv6_next IS 'Counter through setting mesh.ipv6_pool';


CREATE TABLE tiergate.mesh_endpoints (
    id            bigint      GENERATED ALWAYS AS IDENTITY UNIQUE,
    tenant        text        NOT NULL COLLATE "C",
    service       text        NOT NULL COLLATE "C",
    address       inet        NOT NULL,
    port          integer     NOT NULL,
    service_port  integer     NOT NULL,
    tcp           boolean     NOT NULL,
    udp           boolean     NOT NULL,
    weight        integer     NOT NULL DEFAULT 100,
    node          text        COLLATE "C" REFERENCES tiergate.mesh_nodes ON DELETE SET NULL,
    healthy       boolean     NOT NULL DEFAULT true,
    health_reason text,
    health_since  timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (tenant, service, address, port),
    FOREIGN KEY (tenant, service) REFERENCES tiergate.mesh_services ON DELETE CASCADE
);

CREATE UNIQUE INDEX mesh_endpoints_tcp ON tiergate.mesh_endpoints (address, port) WHERE tcp;
CREATE UNIQUE INDEX mesh_endpoints_udp ON tiergate.mesh_endpoints (address, port) WHERE udp;
CREATE INDEX mesh_endpoints_node ON tiergate.mesh_endpoints (node) WHERE node IS NOT NULL;

COMMENT ON TABLE  tiergate.mesh_endpoints               IS 'Where mesh services are served';
COMMENT ON COLUMN tiergate.mesh_endpoints.id            IS 'Number that agents know it by; never reused';
COMMENT ON COLUMN tiergate.mesh_endpoints.tenant        IS 'Tenant that it belongs to';
COMMENT ON COLUMN tiergate.mesh_endpoints.service       IS 'Service that it belongs to';
COMMENT ON COLUMN tiergate.mesh_endpoints.address       IS 'IPv4 or IPv6 address; with port and protocol it belongs to one service of all tenants';
COMMENT ON COLUMN tiergate.mesh_endpoints.port          IS 'Port';
COMMENT ON COLUMN tiergate.mesh_endpoints.service_port  IS 'Port of the service that it serves; the first by default';
COMMENT ON COLUMN tiergate.mesh_endpoints.tcp           IS 'Whether the service has that port with TCP; follows the service';
COMMENT ON COLUMN tiergate.mesh_endpoints.udp           IS 'Whether it has it with UDP';
COMMENT ON COLUMN tiergate.mesh_endpoints.weight        IS 'Share of new connections, 0 to 1000; 0 drains it';
COMMENT ON COLUMN tiergate.mesh_endpoints.node          IS 'Node whose agent checks its health; null: nobody does';
COMMENT ON COLUMN tiergate.mesh_endpoints.healthy       IS 'What that agent found; unhealthy ones get no new connections';
COMMENT ON COLUMN tiergate.mesh_endpoints.health_reason IS 'Why it is not healthy';
COMMENT ON COLUMN tiergate.mesh_endpoints.health_since  IS 'Since when healthy is as it is';


CREATE TABLE tiergate.mesh_workloads (
    id            bigint      GENERATED ALWAYS AS IDENTITY UNIQUE,
    tenant        text        NOT NULL COLLATE "C" REFERENCES tiergate.mesh_tenants ON DELETE CASCADE,
    name          text        NOT NULL COLLATE "C",
    tenant_number integer     NOT NULL,
    service       text        NOT NULL COLLATE "C",
    node          text        NOT NULL COLLATE "C" REFERENCES tiergate.mesh_nodes ON DELETE CASCADE,
    cgroup        text,
    pod_uid       uuid        UNIQUE,
    addresses     inet[]      NOT NULL DEFAULT '{}',
    any_source    boolean     NOT NULL DEFAULT false,
    source        text        NOT NULL DEFAULT 'api',
    boot          text,
    created_at    timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant, name),
    CONSTRAINT mesh_workloads_service_fkey FOREIGN KEY (tenant, service) REFERENCES tiergate.mesh_services,
    CONSTRAINT mesh_workloads_source CHECK (source IN ('api', 'exec', 'gateway'))
);

CREATE UNIQUE INDEX mesh_workloads_cgroup ON tiergate.mesh_workloads (node, cgroup) WHERE cgroup IS NOT NULL;
CREATE INDEX mesh_workloads_service ON tiergate.mesh_workloads (tenant, service);
CREATE INDEX mesh_workloads_node ON tiergate.mesh_workloads (node, tenant);

COMMENT ON TABLE  tiergate.mesh_workloads               IS 'Processes and addresses that are a service of a tenant';
COMMENT ON COLUMN tiergate.mesh_workloads.id            IS 'Number that agents know it by; never reused';
COMMENT ON COLUMN tiergate.mesh_workloads.tenant        IS 'Tenant that it belongs to';
COMMENT ON COLUMN tiergate.mesh_workloads.name          IS 'Name, unique within its tenant';
COMMENT ON COLUMN tiergate.mesh_workloads.tenant_number IS 'Number of the tenant';
COMMENT ON COLUMN tiergate.mesh_workloads.service       IS 'Service that it is';
COMMENT ON COLUMN tiergate.mesh_workloads.node          IS 'Node that it runs on';
COMMENT ON COLUMN tiergate.mesh_workloads.cgroup        IS 'Its cgroup, a path below the cgroup2 mount of the node';
COMMENT ON COLUMN tiergate.mesh_workloads.pod_uid       IS 'or the UID of its pod, whose cgroup the agent finds; with neither it is its addresses only';
COMMENT ON COLUMN tiergate.mesh_workloads.addresses     IS 'Its own addresses; each belongs to one workload or node';
COMMENT ON COLUMN tiergate.mesh_workloads.any_source    IS 'Whether it may send from any address';
COMMENT ON COLUMN tiergate.mesh_workloads.source        IS 'api (REST or psql), exec (reported by an agent) or gateway (follows the tenant''s own gateway)';
COMMENT ON COLUMN tiergate.mesh_workloads.boot          IS 'Life of the agent that reported it';
COMMENT ON COLUMN tiergate.mesh_workloads.created_at    IS 'When it was made';
COMMENT ON CONSTRAINT mesh_workloads_source ON tiergate.mesh_workloads IS 'source is api, exec or gateway';


CREATE TABLE tiergate.mesh_hosts (
    address     inet   PRIMARY KEY,
    node_id     bigint REFERENCES tiergate.mesh_nodes (id) ON DELETE CASCADE,
    workload_id bigint REFERENCES tiergate.mesh_workloads (id) ON DELETE CASCADE,
    CONSTRAINT mesh_hosts_one CHECK (num_nonnulls(node_id, workload_id) = 1)
);

CREATE INDEX mesh_hosts_node ON tiergate.mesh_hosts (node_id) WHERE node_id IS NOT NULL;
CREATE INDEX mesh_hosts_workload ON tiergate.mesh_hosts (workload_id) WHERE workload_id IS NOT NULL;

COMMENT ON TABLE  tiergate.mesh_hosts             IS 'Whose each address of nodes and workloads is; follows their addresses';
COMMENT ON COLUMN tiergate.mesh_hosts.address     IS 'Address';
COMMENT ON COLUMN tiergate.mesh_hosts.node_id     IS 'Node that has it';
COMMENT ON COLUMN tiergate.mesh_hosts.workload_id IS 'or workload';
COMMENT ON CONSTRAINT mesh_hosts_one ON tiergate.mesh_hosts IS 'an address belongs to a node or to a workload';


CREATE TABLE tiergate.mesh_policies (
    id            bigint  GENERATED ALWAYS AS IDENTITY UNIQUE,
    number        integer GENERATED ALWAYS AS IDENTITY UNIQUE,
    tenant        text    NOT NULL COLLATE "C" REFERENCES tiergate.mesh_tenants ON DELETE CASCADE,
    name          text    NOT NULL COLLATE "C",
    action        text    NOT NULL,
    precedence    integer NOT NULL DEFAULT 1000,
    from_service  text    COLLATE "C",
    from_tenant   text    COLLATE "C",
    from_cidr     cidr,
    to_service    text    COLLATE "C",
    to_tenant     text    COLLATE "C",
    to_cidr       cidr,
    protocol      text,
    ports         integer[] NOT NULL DEFAULT '{}',
    description   text    NOT NULL DEFAULT '',
    from_own      text    COLLATE "C" GENERATED ALWAYS AS (CASE WHEN from_tenant IS NULL THEN from_service END) STORED,
    to_own        text    COLLATE "C" GENERATED ALWAYS AS (CASE WHEN to_tenant IS NULL THEN to_service END) STORED,
    PRIMARY KEY (tenant, name),
    CONSTRAINT mesh_policies_from_fkey FOREIGN KEY (tenant, from_own) REFERENCES tiergate.mesh_services,
    CONSTRAINT mesh_policies_to_fkey   FOREIGN KEY (tenant, to_own)   REFERENCES tiergate.mesh_services
);

CREATE INDEX mesh_policies_from_own ON tiergate.mesh_policies (tenant, from_own) WHERE from_own IS NOT NULL;
CREATE INDEX mesh_policies_to_own   ON tiergate.mesh_policies (tenant, to_own)   WHERE to_own IS NOT NULL;
CREATE INDEX mesh_policies_from     ON tiergate.mesh_policies (from_tenant, from_service) WHERE from_tenant IS NOT NULL;
CREATE INDEX mesh_policies_to       ON tiergate.mesh_policies (to_tenant, to_service) WHERE to_tenant IS NOT NULL;

COMMENT ON TABLE  tiergate.mesh_policies              IS 'Who may call whom: the highest precedence counts, and of the same precedence a denial';
COMMENT ON COLUMN tiergate.mesh_policies.id           IS 'Number of the row; never reused';
COMMENT ON COLUMN tiergate.mesh_policies.number       IS 'Number in the kernel''s maps and in flows; never reused';
COMMENT ON COLUMN tiergate.mesh_policies.tenant       IS 'Tenant whose policy it is';
COMMENT ON COLUMN tiergate.mesh_policies.name         IS 'Name, unique within its tenant';
COMMENT ON COLUMN tiergate.mesh_policies.action       IS 'allow or deny';
COMMENT ON COLUMN tiergate.mesh_policies.precedence   IS '0 to 1000000';
COMMENT ON COLUMN tiergate.mesh_policies.from_service IS 'Calls of this service: of from_tenant, else of the tenant itself';
COMMENT ON COLUMN tiergate.mesh_policies.from_tenant  IS 'Calls of this tenant; null for the tenant itself, or with nothing else for anybody';
COMMENT ON COLUMN tiergate.mesh_policies.from_cidr    IS 'Calls from this network by callers without identity';
COMMENT ON COLUMN tiergate.mesh_policies.to_service   IS 'Calls to this service: of to_tenant, else of the tenant itself';
COMMENT ON COLUMN tiergate.mesh_policies.to_tenant    IS 'Calls to this tenant';
COMMENT ON COLUMN tiergate.mesh_policies.to_cidr      IS 'Calls to addresses of this network without identity';
COMMENT ON COLUMN tiergate.mesh_policies.protocol     IS 'tcp or udp; null for both';
COMMENT ON COLUMN tiergate.mesh_policies.ports        IS 'Ports of the endpoint, at most 16; none for any';
COMMENT ON COLUMN tiergate.mesh_policies.description  IS 'What it is for';
COMMENT ON COLUMN tiergate.mesh_policies.from_own     IS 'from_service if it is one of the tenant itself';
COMMENT ON COLUMN tiergate.mesh_policies.to_own       IS 'to_service if it is one of the tenant itself';


-- Rules.  A family's own form of an address is the only one: a mapped address
-- would be the same to kernels, and another one to unique indexes.

INSERT INTO tiergate.refusals (name, status, slug, pointer, detail, hint) VALUES
    ('mesh_nodes_name',          422, 'invalid-name',     '/name',          'node name "%s" is no name', 'use lower-case letters, digits and inner -._, at most 58'),
    ('mesh_nodes_addresses',     422, 'invalid-address',  '/addresses',     'addresses of node "%s" are not at most 64 that a machine could have', 'write single addresses, IPv4 not as ::ffff:, none of the virtual ones, and none twice'),
    ('mesh_nodes_nets',          422, 'invalid-network',  '/workload_nets', 'workload_nets of node "%s" are not at most 64 networks for machines', 'IPv4 not as ::ffff:, and none that overlaps mesh.ipv4_pool, mesh.ipv6_pool or loopback'),
    ('mesh_nodes_nets_taken',    409, 'network-taken',    '/workload_nets', 'a network of node "%s" overlaps one of another node', 'give each node its own'),
    ('mesh_nodes_tenants',       422, 'unknown-tenant',   '/tenants',       'tenants of node "%s" are not tenants, each once, or "*" alone', ''),
    ('mesh_hosts_pkey',          409, 'address-taken',    '/addresses',     'an address belongs to another node or workload already', 'each address belongs to one of them'),

    ('mesh_tenants_nets',        422, 'invalid-network',  '/endpoint_nets', 'endpoint_nets of tenant "%s" are not at most 64 networks', 'IPv4 not as ::ffff:, and none of the virtual ones'),
    ('mesh_tenants_families',    422, 'unknown-value',    '/families',      NULL, ''),

    ('mesh_services_name',       422, 'invalid-label',    '/name',          'service name "%s" is no DNS label', 'use lower-case letters, digits and inner hyphens, at most 63'),
    ('mesh_services_gateway',    422, 'reserved-name',    '/name',          'service "%s" is the tenant''s own gateway, which has no ports, endpoints, limits and health checks', 'choose another name'),
    ('mesh_services_ports',      422, 'invalid-ports',    '/ports',         'ports of service "%s" are not at most 16 of {port, protocol}, each once', 'port lies between 1 and 65535, protocol is tcp or udp'),
    ('mesh_services_limits',     422, 'invalid-limits',   '/limits',        'limits of service "%s" are not {connections_per_second, burst, open_connections}', 'each is a number from 1 to 2147483647; burst needs connections_per_second'),
    ('mesh_services_health',     422, 'invalid-health',   '/health',        'health of service "%s" is not {type, path, port, interval_ms, timeout_ms, rise, fall} with values within reason', 'type is tcp, or http with a path; interval_ms 100 to 3600000, timeout_ms 10 to 60000, rise and fall 1 to 100'),
    ('mesh_services_addresses',  422, 'address-observed', '/addresses',     'addresses of service "%s" are given by the registry', 'change families of the tenant'),
    ('mesh_services_keep',       409, 'service-in-use',   '',               'service "%s" is the tenant''s own gateway', ''),

    ('mesh_endpoints_address',   422, 'invalid-address',  '/address',       'endpoint %s has no address that a machine could have', 'write a single address, IPv4 not as ::ffff:, none of the virtual ones'),
    ('mesh_endpoints_port',      422, 'out-of-range',     '/port',          'port of endpoint %s does not lie between 1 and 65535', ''),
    ('mesh_endpoints_weight',    422, 'out-of-range',     '/weight',        'weight of endpoint %s does not lie between 0 and 1000', ''),
    ('mesh_endpoints_service',   422, 'unknown-port',     '/service_port',  'the service of endpoint %s has no such port', 'give the service the port first'),
    ('mesh_endpoints_node',      422, 'tenant-not-assigned', '/node',       'the node of endpoint %s does not run the tenant, so its agent does not see the endpoint', 'name a node that runs the tenant'),
    ('mesh_endpoints_reason',    422, 'wrong-length',     '/reason',        'health_reason of endpoint %s has more than 200 bytes, or control characters', ''),
    ('mesh_endpoints_tcp',       409, 'endpoint-taken',   '/address',       'this address and port belong to a service already', 'an endpoint belongs to one service'),
    ('mesh_endpoints_udp',       409, 'endpoint-taken',   '/address',       'this address and port belong to a service already', 'an endpoint belongs to one service'),
    ('mesh_endpoints_node_fkey', 422, 'unknown-node',     '/node',          'there is no node of this name', 'list the nodes with GET /v1/mesh/nodes'),
    ('mesh_endpoints_tenant_service_fkey', 404, 'unknown-service', '',     'the tenant has no service of this name', 'make the service first'),

    ('mesh_workloads_name',      422, 'invalid-name',     '/name',          'workload name "%s" is no name', 'use lower-case letters, digits and inner -._, at most 63'),
    ('mesh_workloads_cgroup',    409, 'cgroup-taken',     '/cgroup',        'this cgroup of the node is another workload already', 'a cgroup is one workload'),
    ('mesh_workloads_path',      422, 'invalid-path',     '/cgroup',        'cgroup of workload "%s" is no path below the mount', 'write 1 to 1024 bytes without empty segments, . and .. and control characters'),
    ('mesh_workloads_both',      422, 'invalid-workload', '/pod_uid',       'workload "%s" has both a cgroup and a pod', 'give one of them'),
    ('mesh_workloads_addresses', 422, 'invalid-address',  '/addresses',     'addresses of workload "%s" are not at most 64 that a machine could have', 'write single addresses, IPv4 not as ::ffff:, none of the virtual ones, and none twice'),
    ('mesh_workloads_nothing',   422, 'invalid-workload', '/cgroup',        'workload "%s" has neither a cgroup, nor a pod, nor an address', 'give one of them'),
    ('mesh_workloads_node',      422, 'tenant-not-assigned', '/node',       'the node of workload "%s" does not run this tenant', 'add the tenant to the tenants of the node'),
    ('mesh_workloads_node_fkey', 422, 'unknown-node',     '/node',          'there is no node of this name', 'list the nodes with GET /v1/mesh/nodes'),
    ('mesh_workloads_service_fkey', 422, 'unknown-service', '/service',     'the tenant has no service of this name, or workloads are of it', 'make the service first; a service goes after its workloads'),
    ('mesh_workloads_pod_uid_key', 409, 'pod-taken',      '/pod_uid',       'this pod is another workload already', 'a pod is one workload'),
    ('mesh_workloads_source',    422, 'unknown-value',    '/source',        NULL, ''),

    ('mesh_policies_name',       422, 'invalid-name',     '/name',          'policy name "%s" is no name', 'use lower-case letters, digits and inner -._, at most 63'),
    ('mesh_policies_action',     422, 'unknown-value',    '/action',        'action of policy "%s" is not known', 'use allow or deny'),
    ('mesh_policies_precedence', 422, 'out-of-range',     '/precedence',    'precedence of policy "%s" does not lie between 0 and 1000000', ''),
    ('mesh_policies_from',       422, 'invalid-side',     '/from',          'from of policy "%s" is neither a service, nor a tenant, nor a network', 'write {}, {"service"}, {"service", "tenant"}, {"tenant"} or {"cidr"}'),
    ('mesh_policies_to',         422, 'invalid-side',     '/to',            'to of policy "%s" is neither a service, nor a tenant, nor a network', 'write {}, {"service"}, {"service", "tenant"}, {"tenant"} or {"cidr"}'),
    ('mesh_policies_from_cidr',  422, 'invalid-network',  '/from/cidr',     'the network of policy "%s" is an IPv4 network written as IPv6', 'write it as IPv4'),
    ('mesh_policies_to_cidr',    422, 'invalid-network',  '/to/cidr',       'the network of policy "%s" is an IPv4 network written as IPv6', 'write it as IPv4'),
    ('mesh_policies_foreign',    422, 'invalid-side',     '/to',            'neither side of policy "%s" can be the tenant itself', 'a tenant decides about its own calls, in and out'),
    ('mesh_policies_protocol',   422, 'unknown-value',    '/protocol',      'protocol of policy "%s" is not known', 'use tcp or udp, or leave it out'),
    ('mesh_policies_ports',      422, 'invalid-ports',    '/ports',         'ports of policy "%s" are not at most 16 numbers from 1 to 65535, each once', ''),
    ('mesh_policies_description', 422, 'wrong-length',    '/description',   'description of policy "%s" has more than 1000 bytes', ''),
    ('mesh_policies_from_tenant', 422, 'unknown-tenant',  '/from/tenant',   'policy "%s" names a tenant that there is not', ''),
    ('mesh_policies_to_tenant',  422, 'unknown-tenant',   '/to/tenant',     'policy "%s" names a tenant that there is not', ''),
    ('mesh_policies_from_fkey',  422, 'unknown-service',  '/from/service',  'the tenant has no service of this name, or a policy names it', 'make the service first; a service goes after the policies that name it'),
    ('mesh_policies_to_fkey',    422, 'unknown-service',  '/to/service',    'the tenant has no service of this name, or a policy names it', 'make the service first; a service goes after the policies that name it'),

    ('gateways_agent',           422, 'reserved-name',    '/name',          'gateway name "%s" begins with node-, as do the agents of nodes', 'make the node: PUT /v1/mesh/nodes/{node}'),
    ('gateways_agent_kind',      422, 'invalid-gateway',  '/kind',          'gateway "%s" is no agent: there is no such node', 'make the node: PUT /v1/mesh/nodes/{node}'),
    ('gateways_agent_managed',   409, 'gateway-managed',  '',               'gateway "%s" is the agent of a node', 'change or delete the node');


CREATE FUNCTION tiergate.is_mesh_address(address inet)
RETURNS boolean
LANGUAGE plpgsql STABLE
AS $$
BEGIN
    RETURN masklen(address) = CASE family(address) WHEN 4 THEN 32 ELSE 128 END
       AND NOT address <<= ANY (CASE family(address)
               WHEN 4 THEN '{0.0.0.0/8,224.0.0.0/4,255.255.255.255/32}'
               ELSE '{::/128,::ffff:0:0/96,fe80::/10,ff00::/8}' END::inet[])
       AND NOT address <<= (tiergate.setting(CASE family(address) WHEN 4 THEN 'mesh.ipv4_pool' ELSE 'mesh.ipv6_pool' END) #>> '{}')::inet;
END
$$;

COMMENT ON FUNCTION tiergate.is_mesh_address(inet) IS
    'Whether a machine could have this address: it is a single one, not unspecified, multicast, link-local of IPv6 or IPv4-mapped, and not of the virtual ones';


CREATE FUNCTION tiergate.are_mesh_addresses(list inet[])
RETURNS boolean
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    a inet;
BEGIN
    IF cardinality(list) > 64 OR array_ndims(list) > 1
       OR (SELECT count(DISTINCT u) FROM unnest(list) u) <> cardinality(list) THEN
        RETURN false;
    END IF;
    FOREACH a IN ARRAY list LOOP
        IF tiergate.is_mesh_address(a) IS NOT TRUE THEN
            RETURN false;
        END IF;
    END LOOP;
    RETURN true;
END
$$;

COMMENT ON FUNCTION tiergate.are_mesh_addresses(inet[]) IS 'Whether these are at most 64 different addresses that machines could have';


CREATE FUNCTION tiergate.are_mesh_nets(list cidr[], refused cidr[] DEFAULT '{}')
RETURNS boolean
LANGUAGE plpgsql STABLE
AS $$
BEGIN
    RETURN cardinality(list) <= 64 AND coalesce(array_ndims(list), 1) = 1
       AND NOT EXISTS (SELECT FROM unnest(list) n
                        WHERE n IS NULL OR n <<= '::ffff:0:0/96'
                           OR n && (tiergate.setting('mesh.ipv4_pool') #>> '{}')::inet
                           OR n && (tiergate.setting('mesh.ipv6_pool') #>> '{}')::inet
                           OR n && ANY (refused));
END
$$;

COMMENT ON FUNCTION tiergate.are_mesh_nets(cidr[], cidr[]) IS
    'Whether these are at most 64 networks, none written as IPv4-mapped, none that overlaps the virtual ones or the refused ones';


CREATE FUNCTION tiergate.are_mesh_ports(ports jsonb)
RETURNS boolean
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
AS $$
DECLARE
    p jsonb;
BEGIN
    IF jsonb_typeof(ports) <> 'array' OR jsonb_array_length(ports) > 16 THEN
        RETURN false;
    END IF;
    FOR p IN SELECT value FROM jsonb_array_elements(ports) LOOP
        IF jsonb_typeof(p) <> 'object' OR p - '{port,protocol}'::text[] <> '{}'
           OR jsonb_typeof(p->'port') IS DISTINCT FROM 'number' OR p->>'port' !~ '^[1-9][0-9]{0,4}$'
           OR (p->>'protocol' IN ('tcp', 'udp')) IS NOT TRUE THEN
            RETURN false;
        END IF;
        IF (p->>'port')::integer > 65535 THEN
            RETURN false;
        END IF;
    END LOOP;
    RETURN (SELECT count(DISTINCT value) FROM jsonb_array_elements(ports)) = jsonb_array_length(ports);
END
$$;

COMMENT ON FUNCTION tiergate.are_mesh_ports(jsonb) IS 'Whether this is an array of at most 16 different {port, protocol}';


CREATE FUNCTION tiergate.are_mesh_numbers(object jsonb, bounds jsonb)
RETURNS boolean
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
AS $$
DECLARE
    m record;
BEGIN
    FOR m IN SELECT b.key, b.value AS bound, object->b.key AS value FROM jsonb_each(bounds) b WHERE object ? b.key LOOP
        IF jsonb_typeof(m.value) <> 'number' OR m.value #>> '{}' !~ '^[0-9]{1,10}$' THEN
            RETURN false;
        END IF;
        IF (m.value #>> '{}')::bigint NOT BETWEEN (m.bound->>0)::bigint AND (m.bound->>1)::bigint THEN
            RETURN false;
        END IF;
    END LOOP;
    RETURN true;
END
$$;

COMMENT ON FUNCTION tiergate.are_mesh_numbers(jsonb, jsonb) IS
    'Whether the members of an object that are named in the second, {"name": [low, high]}, are whole numbers within';


CREATE FUNCTION tiergate.are_mesh_limits(limits jsonb)
RETURNS boolean
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
AS $$
BEGIN
    RETURN jsonb_typeof(limits) = 'object'
       AND limits - '{connections_per_second,burst,open_connections}'::text[] = '{}'
       AND (NOT limits ? 'burst' OR limits ? 'connections_per_second')
       AND tiergate.are_mesh_numbers(limits, '{"connections_per_second": [1, 2147483647], "burst": [1, 2147483647],
                                               "open_connections": [1, 2147483647]}');
END
$$;

COMMENT ON FUNCTION tiergate.are_mesh_limits(jsonb) IS 'Whether this is {connections_per_second, burst, open_connections}, each of which may be missing';


CREATE FUNCTION tiergate.mesh_health(health jsonb)
RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
AS $$
BEGIN
    IF jsonb_typeof(health) <> 'object' OR health - '{type,path,port,interval_ms,timeout_ms,rise,fall}'::text[] <> '{}'
       OR (health->>'type' IN ('tcp', 'http')) IS NOT TRUE
       OR (health->>'type' = 'http') <> (health ? 'path')
       OR health ? 'path' AND (jsonb_typeof(health->'path') <> 'string' OR left(health->>'path', 1) <> '/'
                               OR octet_length(health->>'path') > 512 OR health->>'path' ~ '[^!-~]')
       OR NOT tiergate.are_mesh_numbers(health, '{"port": [1, 65535], "interval_ms": [100, 3600000], "timeout_ms": [10, 60000],
                                                  "rise": [1, 100], "fall": [1, 100]}') THEN
        RETURN NULL;
    END IF;
    RETURN '{"interval_ms": 1000, "timeout_ms": 500, "rise": 2, "fall": 3}' || health;
END
$$;

COMMENT ON FUNCTION tiergate.mesh_health(jsonb) IS
    'How the endpoints of a service are checked, with what was left out; null if it is not well-formed';


CREATE FUNCTION tiergate.hold_mesh_names(tenant text, alone boolean)
RETURNS void
LANGUAGE plpgsql
AS $$
BEGIN
    IF alone THEN
        PERFORM pg_advisory_xact_lock(hashtextextended('tiergate.mesh/' || tenant, 0));
    ELSE
        PERFORM pg_advisory_xact_lock_shared(hashtextextended('tiergate.mesh/' || tenant, 0));
    END IF;
END
$$;

COMMENT ON FUNCTION tiergate.hold_mesh_names(text, boolean) IS
    'Keeps who names services of a tenant (alone) apart from those who make or delete them, until the transaction ends';


CREATE FUNCTION tiergate.mesh_enable(tenant text)
RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    present integer := (SELECT m.number FROM tiergate.mesh_tenants m WHERE m.tenant = mesh_enable.tenant);
BEGIN
    IF present IS NOT NULL THEN
        RETURN present;
    END IF;
    PERFORM tiergate.find_tenant(tenant);
    INSERT INTO tiergate.mesh_tenants (tenant) VALUES (mesh_enable.tenant) ON CONFLICT DO NOTHING;
    IF FOUND THEN
        INSERT INTO tiergate.mesh_services (tenant, name) VALUES (mesh_enable.tenant, 'gateway');
    END IF;
    RETURN (SELECT m.number FROM tiergate.mesh_tenants m WHERE m.tenant = mesh_enable.tenant);
END
$$;

COMMENT ON FUNCTION tiergate.mesh_enable(text) IS
    'Brings a tenant into the mesh, with its service gateway, if it is not in it yet; returns its number. Whatever is written for a tenant in the mesh does this by itself';


CREATE FUNCTION tiergate.mesh_enable_tenant()
RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF tiergate.tier_kind(NEW.tier) = 'dedicated' THEN
        PERFORM tiergate.mesh_enable(NEW.name);
    END IF;
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION tiergate.mesh_enable_tenant() IS 'Trigger: tenants of a dedicated tier are in the mesh';

CREATE TRIGGER tenants_mesh_insert AFTER INSERT ON tiergate.tenants
    FOR EACH ROW WHEN (NEW.tier <> 'vcluster') EXECUTE FUNCTION tiergate.mesh_enable_tenant();
CREATE TRIGGER tenants_mesh_update AFTER UPDATE OF tier ON tiergate.tenants
    FOR EACH ROW WHEN (OLD.tier <> NEW.tier) EXECUTE FUNCTION tiergate.mesh_enable_tenant();


-- Names, ids and numbers stay.
CREATE FUNCTION tiergate.keep_mesh_identity()
RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
    PERFORM tiergate.refuse(422, 'name-immutable', '/name',
                            format('the names, ids and numbers of %s cannot be changed', TG_ARGV[0]),
                            'make a new one and delete the old one');
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION tiergate.keep_mesh_identity() IS 'Trigger: refuses to change what agents know an object by';

DO $$
DECLARE
    t record;
BEGIN
    FOR t IN
        SELECT * FROM (VALUES
            ('mesh_nodes',     'nodes',          '{id,name}'),
            ('mesh_tenants',   'tenants',        '{number,tenant}'),
            ('mesh_services',  'services',       '{id,number,tenant,name,tenant_number}'),
            ('mesh_endpoints', 'endpoints',      '{id,tenant,service,address,port}'),
            ('mesh_workloads', 'workloads',      '{id,tenant,name,tenant_number}'),
            ('mesh_policies',  'policies',       '{id,number,tenant,name}')
        ) AS v (tab, label, cols)
    LOOP
        EXECUTE format('CREATE TRIGGER %1$s_keep_identity BEFORE UPDATE ON tiergate.%1$s
                            FOR EACH ROW WHEN ((%2$s) IS DISTINCT FROM (%3$s))
                            EXECUTE FUNCTION tiergate.keep_mesh_identity(%4$L)',
                       t.tab, (SELECT string_agg('OLD.' || c, ', ') FROM unnest(t.cols::text[]) c),
                       (SELECT string_agg('NEW.' || c, ', ') FROM unnest(t.cols::text[]) c), t.label);
    END LOOP;
END
$$;


-- Nodes

CREATE FUNCTION tiergate.check_mesh_node()
RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    broken text := CASE
        WHEN NOT tiergate.is_name(NEW.name) OR length(NEW.name) > 58     THEN 'mesh_nodes_name'
        WHEN NOT tiergate.are_mesh_addresses(NEW.addresses)              THEN 'mesh_nodes_addresses'
        WHEN NOT tiergate.are_mesh_nets(NEW.workload_nets, '{127.0.0.0/8,::1/128,224.0.0.0/4,ff00::/8}') THEN 'mesh_nodes_nets'
        END;
BEGIN
    IF broken IS NULL AND NEW.tenants <> '{*}'
       AND ((SELECT count(DISTINCT t.name) FROM tiergate.tenants t WHERE t.name = ANY (NEW.tenants)) <> cardinality(NEW.tenants)) THEN
        broken := 'mesh_nodes_tenants';
    END IF;
    IF broken IS NULL AND NEW.workload_nets <> '{}' THEN
        PERFORM pg_advisory_xact_lock(hashtextextended('tiergate.mesh_nodes', 0));
        IF EXISTS (SELECT FROM tiergate.mesh_nodes n, unnest(n.workload_nets) theirs, unnest(NEW.workload_nets) ours
                    WHERE n.id <> NEW.id AND theirs && ours) THEN
            PERFORM tiergate.refuse_row('mesh_nodes_nets_taken', NEW.name);
        END IF;
    END IF;
    IF broken IS NOT NULL THEN
        PERFORM tiergate.refuse_row(broken, NEW.name);
    END IF;
    IF NEW.tenants <> '{*}' THEN
        PERFORM tiergate.mesh_enable(t) FROM unnest(NEW.tenants) t ORDER BY t;
        NEW.tenants := ARRAY(SELECT t FROM unnest(NEW.tenants) t ORDER BY t COLLATE "C");
    END IF;
    RETURN NEW;
END
$$;

COMMENT ON FUNCTION tiergate.check_mesh_node() IS
    'Trigger: what a node may be; tenants that it runs are in the mesh';

CREATE TRIGGER mesh_nodes_check BEFORE INSERT OR UPDATE ON tiergate.mesh_nodes
    FOR EACH ROW EXECUTE FUNCTION tiergate.check_mesh_node();


CREATE FUNCTION tiergate.mesh_runs(node tiergate.mesh_nodes, tenant text)
RETURNS boolean
LANGUAGE plpgsql IMMUTABLE
AS $$
BEGIN
    RETURN node.tenants = '{*}' OR tenant = ANY (node.tenants);
END
$$;

COMMENT ON FUNCTION tiergate.mesh_runs(tiergate.mesh_nodes, text) IS 'Whether workloads of a tenant may run on a node';


CREATE FUNCTION tiergate.keep_mesh_hosts()
RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
SET jit = off
AS $$
BEGIN
    IF TG_TABLE_NAME = 'mesh_nodes' THEN
        DELETE FROM tiergate.mesh_hosts h WHERE h.node_id = NEW.id AND h.address <> ALL (NEW.addresses);
        INSERT INTO tiergate.mesh_hosts (address, node_id)
        SELECT a, NEW.id FROM unnest(NEW.addresses) a
         WHERE NOT EXISTS (SELECT FROM tiergate.mesh_hosts h WHERE h.address = a AND h.node_id = NEW.id);
    ELSE
        DELETE FROM tiergate.mesh_hosts h WHERE h.workload_id = NEW.id AND h.address <> ALL (NEW.addresses);
        INSERT INTO tiergate.mesh_hosts (address, workload_id)
        SELECT a, NEW.id FROM unnest(NEW.addresses) a
         WHERE NOT EXISTS (SELECT FROM tiergate.mesh_hosts h WHERE h.address = a AND h.workload_id = NEW.id);
    END IF;
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION tiergate.keep_mesh_hosts() IS 'Trigger: writes down whose addresses these are; none belongs to two';

CREATE TRIGGER mesh_nodes_hosts AFTER INSERT OR UPDATE OF addresses ON tiergate.mesh_nodes
    FOR EACH ROW EXECUTE FUNCTION tiergate.keep_mesh_hosts();
CREATE TRIGGER mesh_workloads_hosts AFTER INSERT OR UPDATE OF addresses ON tiergate.mesh_workloads
    FOR EACH ROW EXECUTE FUNCTION tiergate.keep_mesh_hosts();


-- Tenants of the mesh

CREATE FUNCTION tiergate.check_mesh_tenant()
RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
    IF NOT tiergate.are_mesh_nets(NEW.endpoint_nets) THEN
        PERFORM tiergate.refuse_row('mesh_tenants_nets', NEW.tenant);
    END IF;
    IF TG_OP = 'INSERT' THEN
        PERFORM tiergate.hold_mesh_names(NEW.tenant, false);
    END IF;
    RETURN NEW;
END
$$;

COMMENT ON FUNCTION tiergate.check_mesh_tenant() IS 'Trigger: what a tenant of the mesh may be';

CREATE TRIGGER mesh_tenants_check BEFORE INSERT OR UPDATE ON tiergate.mesh_tenants
    FOR EACH ROW EXECUTE FUNCTION tiergate.check_mesh_tenant();


-- Virtual addresses

CREATE FUNCTION tiergate.is_mesh_reusable(a tiergate.mesh_addresses)
RETURNS boolean
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    told bigint;
BEGIN
    IF a.released_at IS NULL OR a.released_xid = pg_current_xact_id()
       OR a.released_at > clock_timestamp() - (tiergate.setting('mesh.quarantine') #>> '{}')::interval THEN
        RETURN false;
    END IF;
    -- history of what is gone is dropped in time: then it is not newer than what was dropped
    SELECT coalesce(max(c.revision), (SELECT r.pruned FROM tiergate.registry r)) INTO told
      FROM tiergate.changes c
     WHERE c.kind = 'mesh_service' AND c.object_id = a.service_id AND c.revision IS NOT NULL;
    RETURN NOT EXISTS (SELECT FROM tiergate.gateways g
                        WHERE g.kind = 'agent' AND g.boot IS NOT NULL AND g.revision < told);
END
$$;

COMMENT ON FUNCTION tiergate.is_mesh_reusable(tiergate.mesh_addresses) IS
    'Whether a virtual address that was given back may be given again: its quarantine is over, and every agent knows';


CREATE FUNCTION tiergate.mesh_hold_address(address inet, service_id bigint)
RETURNS boolean
LANGUAGE plpgsql
AS $$
BEGIN
    INSERT INTO tiergate.mesh_addresses (address, service_id)
    VALUES (mesh_hold_address.address, mesh_hold_address.service_id)
        ON CONFLICT DO NOTHING;
    IF FOUND THEN
        RETURN true;
    END IF;
    UPDATE tiergate.mesh_addresses a
       SET service_id = mesh_hold_address.service_id, taken_at = clock_timestamp(), released_at = NULL, released_xid = NULL
     WHERE a.address = mesh_hold_address.address AND tiergate.is_mesh_reusable(a);
    RETURN FOUND;
END
$$;

COMMENT ON FUNCTION tiergate.mesh_hold_address(inet, bigint) IS 'Gives a service this address, if nobody has it or may still know it';


-- Far from full the first that the counter names is free.  When many in a row are
-- not, the pool is nearly full: then what is left is looked for.
CREATE FUNCTION tiergate.mesh_take_address(fam integer, service_id bigint)
RETURNS inet
LANGUAGE plpgsql
AS $$
DECLARE
    named text    := CASE fam WHEN 4 THEN 'mesh.ipv4_pool' ELSE 'mesh.ipv6_pool' END;
    pool  inet    := (tiergate.setting(named) #>> '{}')::inet;
    bits  integer := CASE fam WHEN 4 THEN 32 ELSE 128 END - masklen(pool);
    -- neither the first nor the last
    size  bigint  := CASE WHEN bits >= 62 THEN 4611686018427387904 ELSE (1::bigint << bits) - 2 END;
    base  inet    := host(pool)::inet;
    taken inet;
BEGIN
    FOR attempt IN 1 .. 32 LOOP
        taken := base + (1 + (nextval(CASE fam WHEN 4 THEN 'tiergate.mesh_ipv4_next' ELSE 'tiergate.mesh_ipv6_next' END) - 1) % size);
        IF tiergate.mesh_hold_address(taken, service_id) THEN
            RETURN taken;
        END IF;
    END LOOP;

    PERFORM pg_advisory_xact_lock(hashtextextended('tiergate.' || named, 0));
    FOR taken IN
        SELECT g.free FROM (SELECT a.address + 1 AS free, lead(a.address) OVER (ORDER BY a.address) AS next
                              FROM tiergate.mesh_addresses a WHERE a.address << pool) g
         WHERE (g.next IS NULL OR g.next > g.free) AND g.free << pool AND g.free <= base + size
        UNION ALL
        SELECT base + 1
        UNION ALL
        (SELECT a.address FROM tiergate.mesh_addresses a
          WHERE a.address << pool AND a.released_at IS NOT NULL AND tiergate.is_mesh_reusable(a)
          ORDER BY a.released_at LIMIT 32)
    LOOP
        IF tiergate.mesh_hold_address(taken, service_id) THEN
            RETURN taken;
        END IF;
    END LOOP;
    PERFORM tiergate.refuse(409, 'pool-full', '', format('no address of setting %s = %s is free', named, pool),
                            format('give %s a larger network; addresses that services have given back wait for setting mesh.quarantine and for the agents', named));
END
$$;

COMMENT ON FUNCTION tiergate.mesh_take_address(integer, bigint) IS
    'Gives a service the next free virtual address of family 4 or 6; refuses with 409 when there is none';


CREATE FUNCTION tiergate.mesh_release_addresses(service_id bigint, kept inet[] DEFAULT '{}')
RETURNS void
LANGUAGE sql
AS $$
    UPDATE tiergate.mesh_addresses a SET released_at = clock_timestamp(), released_xid = pg_current_xact_id()
     WHERE a.service_id = mesh_release_addresses.service_id AND a.released_at IS NULL AND a.address <> ALL (kept)
$$;

COMMENT ON FUNCTION tiergate.mesh_release_addresses(bigint, inet[]) IS 'Gives addresses of a service back, but for those that it keeps';


-- Services

CREATE FUNCTION tiergate.check_mesh_service()
RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    owner  tiergate.mesh_tenants;
    broken text := CASE
        WHEN NOT tiergate.is_label(NEW.name)             THEN 'mesh_services_name'
        WHEN NOT tiergate.are_mesh_ports(NEW.ports)      THEN 'mesh_services_ports'
        WHEN NOT tiergate.are_mesh_limits(NEW.limits)    THEN 'mesh_services_limits'
        WHEN NEW.health IS NOT NULL AND tiergate.mesh_health(NEW.health) IS NULL THEN 'mesh_services_health'
        WHEN NEW.name = 'gateway' AND (NEW.ports <> '[]' OR NEW.limits <> '{}' OR NEW.health IS NOT NULL) THEN 'mesh_services_gateway'
        END;
BEGIN
    IF broken IS NOT NULL THEN
        PERFORM tiergate.refuse_row(broken, NEW.name);
    END IF;
    NEW.health := tiergate.mesh_health(NEW.health);

    IF TG_OP = 'INSERT' THEN
        IF NEW.ipv4 IS NOT NULL OR NEW.ipv6 IS NOT NULL THEN
            PERFORM tiergate.refuse_row('mesh_services_addresses', NEW.name);
        END IF;
        PERFORM tiergate.hold_mesh_names(NEW.tenant, false);
        NEW.tenant_number := tiergate.mesh_enable(NEW.tenant);
        -- what families says must not change meanwhile
        SELECT * INTO owner FROM tiergate.mesh_tenants m WHERE m.tenant = NEW.tenant FOR SHARE;
        IF NEW.name <> 'gateway' THEN
            NEW.ipv4 := CASE WHEN owner.families <> 'ipv6' THEN tiergate.mesh_take_address(4, NEW.id) END;
            NEW.ipv6 := CASE WHEN owner.families <> 'ipv4' THEN tiergate.mesh_take_address(6, NEW.id) END;
        END IF;
    ELSIF (OLD.ipv4, OLD.ipv6) IS DISTINCT FROM (NEW.ipv4, NEW.ipv6) THEN
        IF EXISTS (SELECT FROM unnest(ARRAY[NEW.ipv4, NEW.ipv6]) u
                    WHERE u IS NOT NULL AND NOT EXISTS (SELECT FROM tiergate.mesh_addresses a
                                                         WHERE a.address = u AND a.service_id = NEW.id AND a.released_at IS NULL))
           OR pg_trigger_depth() < 2 THEN
            PERFORM tiergate.refuse_row('mesh_services_addresses', NEW.name);
        END IF;
    END IF;
    RETURN NEW;
END
$$;

COMMENT ON FUNCTION tiergate.check_mesh_service() IS
    'Trigger: what a service may be; a new one gets its virtual addresses';

CREATE TRIGGER mesh_services_check BEFORE INSERT OR UPDATE ON tiergate.mesh_services
    FOR EACH ROW EXECUTE FUNCTION tiergate.check_mesh_service();


CREATE FUNCTION tiergate.mesh_families_changed()
RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    s tiergate.mesh_services;
BEGIN
    FOR s IN SELECT * FROM tiergate.mesh_services x WHERE x.tenant = NEW.tenant AND x.name <> 'gateway' ORDER BY x.name FOR UPDATE LOOP
        UPDATE tiergate.mesh_services x
           SET ipv4 = CASE WHEN NEW.families <> 'ipv6' THEN coalesce(s.ipv4, tiergate.mesh_take_address(4, s.id)) END,
               ipv6 = CASE WHEN NEW.families <> 'ipv4' THEN coalesce(s.ipv6, tiergate.mesh_take_address(6, s.id)) END
         WHERE x.id = s.id
        RETURNING * INTO s;
        PERFORM tiergate.mesh_release_addresses(s.id, ARRAY[host(s.ipv4)::inet, host(s.ipv6)::inet]);
    END LOOP;
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION tiergate.mesh_families_changed() IS 'Trigger: services get the addresses that they lack, and give back what they shall not have';

CREATE TRIGGER mesh_tenants_families_changed AFTER UPDATE OF families ON tiergate.mesh_tenants
    FOR EACH ROW WHEN (OLD.families <> NEW.families) EXECUTE FUNCTION tiergate.mesh_families_changed();


CREATE FUNCTION tiergate.mesh_ports_changed()
RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    used record;
BEGIN
    SELECT e.address, e.port, e.service_port INTO used FROM tiergate.mesh_endpoints e
     WHERE e.tenant = NEW.tenant AND e.service = NEW.name
       AND NOT NEW.ports @> jsonb_build_array(jsonb_build_object('port', e.service_port)) LIMIT 1;
    IF FOUND THEN
        PERFORM tiergate.refuse(409, 'port-in-use', '/ports',
            format('endpoint %s port %s serves port %s of service "%s"', host(used.address), used.port, used.service_port, NEW.name),
            'change or delete its endpoints first');
    END IF;
    UPDATE tiergate.mesh_endpoints e SET service_port = e.service_port
     WHERE e.tenant = NEW.tenant AND e.service = NEW.name;
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION tiergate.mesh_ports_changed() IS 'Trigger: ports that endpoints serve stay, and the endpoints follow their protocols';

CREATE TRIGGER mesh_services_ports_changed AFTER UPDATE OF ports ON tiergate.mesh_services
    FOR EACH ROW WHEN (OLD.ports <> NEW.ports) EXECUTE FUNCTION tiergate.mesh_ports_changed();


CREATE FUNCTION tiergate.mesh_health_changed()
RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    UPDATE tiergate.mesh_endpoints e SET healthy = true
     WHERE e.tenant = NEW.tenant AND e.service = NEW.name AND NOT e.healthy;
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION tiergate.mesh_health_changed() IS 'Trigger: nobody checks these endpoints any more, so none is unhealthy';

CREATE TRIGGER mesh_services_health_changed AFTER UPDATE OF health ON tiergate.mesh_services
    FOR EACH ROW WHEN (OLD.health IS NOT NULL AND NEW.health IS NULL) EXECUTE FUNCTION tiergate.mesh_health_changed();


CREATE FUNCTION tiergate.keep_used_mesh_service()
RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    users text;
BEGIN
    -- with the whole tenant everything goes
    IF NOT EXISTS (SELECT FROM tiergate.mesh_tenants m WHERE m.tenant = OLD.tenant) THEN
        RETURN OLD;
    END IF;
    IF OLD.name = 'gateway' THEN
        PERFORM tiergate.refuse_row('mesh_services_keep', OLD.name);
    END IF;
    SELECT string_agg(format('%s "%s"', u.kind, u.name), ', ' ORDER BY u.kind, u.name) INTO users
      FROM (SELECT 'policy' AS kind, p.name FROM tiergate.mesh_policies p
             WHERE p.tenant = OLD.tenant AND (p.from_own = OLD.name OR p.to_own = OLD.name)
            UNION ALL
            SELECT 'workload', w.name FROM tiergate.mesh_workloads w WHERE w.tenant = OLD.tenant AND w.service = OLD.name
             LIMIT 10) u;
    IF users IS NOT NULL THEN
        PERFORM tiergate.refuse(409, 'service-in-use', '', format('service "%s" is used by %s', OLD.name, users),
                                'change or delete them first');
    END IF;
    PERFORM tiergate.hold_mesh_names(OLD.tenant, false);
    RETURN OLD;
END
$$;

COMMENT ON FUNCTION tiergate.keep_used_mesh_service() IS
    'Trigger: a service that policies of its tenant name, or that workloads are, is not deleted';

CREATE TRIGGER mesh_services_keep_used BEFORE DELETE ON tiergate.mesh_services
    FOR EACH ROW EXECUTE FUNCTION tiergate.keep_used_mesh_service();


-- Endpoints

CREATE FUNCTION tiergate.check_mesh_endpoint()
RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    offered jsonb;
    broken  text := CASE
        WHEN NOT tiergate.is_mesh_address(NEW.address)      THEN 'mesh_endpoints_address'
        WHEN NEW.port NOT BETWEEN 1 AND 65535               THEN 'mesh_endpoints_port'
        WHEN NEW.weight NOT BETWEEN 0 AND 1000              THEN 'mesh_endpoints_weight'
        WHEN octet_length(NEW.health_reason) > 200 OR NEW.health_reason ~ '[\x01-\x1f\x7f]' THEN 'mesh_endpoints_reason'
        END;
BEGIN
    IF TG_OP = 'INSERT' OR NEW.service_port IS DISTINCT FROM OLD.service_port OR pg_trigger_depth() > 1 THEN
        -- its ports must not change meanwhile
        SELECT s.ports INTO offered FROM tiergate.mesh_services s
         WHERE s.tenant = NEW.tenant AND s.name = NEW.service FOR SHARE;
        IF NOT FOUND THEN
            RETURN NEW;   -- the foreign key says so
        END IF;
        NEW.service_port := coalesce(NEW.service_port, (offered #>> '{0,port}')::integer);
        NEW.tcp := offered @> jsonb_build_array(jsonb_build_object('port', NEW.service_port, 'protocol', 'tcp'));
        NEW.udp := offered @> jsonb_build_array(jsonb_build_object('port', NEW.service_port, 'protocol', 'udp'));
        IF broken IS NULL AND (NEW.tcp OR NEW.udp) IS NOT TRUE THEN
            broken := 'mesh_endpoints_service';
        END IF;
    END IF;
    IF broken IS NULL AND NEW.node IS NOT NULL AND (TG_OP = 'INSERT' OR NEW.node IS DISTINCT FROM OLD.node)
       AND EXISTS (SELECT FROM tiergate.mesh_nodes n WHERE n.name = NEW.node AND NOT tiergate.mesh_runs(n, NEW.tenant)) THEN
        broken := 'mesh_endpoints_node';
    END IF;
    IF broken IS NOT NULL THEN
        PERFORM tiergate.refuse_row(broken, CASE family(NEW.address) WHEN 6 THEN format('[%s]', host(NEW.address)) ELSE host(NEW.address) END
                                            || ':' || coalesce(NEW.port::text, '?'));
    END IF;
    IF TG_OP = 'UPDATE' THEN
        IF NEW.node IS DISTINCT FROM OLD.node THEN
            NEW.healthy := true;   -- until the other agent says otherwise
        END IF;
        IF NEW.healthy <> OLD.healthy THEN
            NEW.health_since := clock_timestamp();
        END IF;
    END IF;
    IF NEW.healthy THEN
        NEW.health_reason := NULL;
    END IF;
    RETURN NEW;
END
$$;

COMMENT ON FUNCTION tiergate.check_mesh_endpoint() IS
    'Trigger: what an endpoint may be; it has the protocols that its service has for the port';

CREATE TRIGGER mesh_endpoints_check BEFORE INSERT OR UPDATE ON tiergate.mesh_endpoints
    FOR EACH ROW EXECUTE FUNCTION tiergate.check_mesh_endpoint();


-- Workloads

CREATE FUNCTION tiergate.check_mesh_workload()
RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    n      tiergate.mesh_nodes;
    broken text;
BEGIN
    NEW.cgroup := ltrim(NEW.cgroup, '/');
    broken := CASE
        WHEN NOT tiergate.is_name(NEW.name)                             THEN 'mesh_workloads_name'
        WHEN octet_length(NEW.cgroup) NOT BETWEEN 1 AND 1024 OR NEW.cgroup ~ '[\x01-\x1f\x7f]|//|/$|(^|/)\.\.?(/|$)' THEN 'mesh_workloads_path'
        WHEN NEW.cgroup IS NOT NULL AND NEW.pod_uid IS NOT NULL         THEN 'mesh_workloads_both'
        WHEN NOT tiergate.are_mesh_addresses(NEW.addresses)             THEN 'mesh_workloads_addresses'
        WHEN NEW.cgroup IS NULL AND NEW.pod_uid IS NULL AND NEW.addresses = '{}' THEN 'mesh_workloads_nothing'
        END;
    IF broken IS NULL THEN
        -- its tenants must not change meanwhile
        SELECT * INTO n FROM tiergate.mesh_nodes x WHERE x.name = NEW.node FOR SHARE;
        IF FOUND AND NOT tiergate.mesh_runs(n, NEW.tenant) THEN
            broken := 'mesh_workloads_node';
        END IF;
    END IF;
    IF broken IS NOT NULL THEN
        PERFORM tiergate.refuse_row(broken, NEW.name);
    END IF;
    IF TG_OP = 'INSERT' THEN
        NEW.tenant_number := tiergate.mesh_enable(NEW.tenant);
    END IF;
    RETURN NEW;
END
$$;

COMMENT ON FUNCTION tiergate.check_mesh_workload() IS 'Trigger: what a workload may be; its node runs its tenant';

CREATE TRIGGER mesh_workloads_check BEFORE INSERT OR UPDATE ON tiergate.mesh_workloads
    FOR EACH ROW EXECUTE FUNCTION tiergate.check_mesh_workload();


-- Before the agent loses sight of them.
CREATE FUNCTION tiergate.keep_mesh_assignment()
RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    w tiergate.mesh_workloads;
BEGIN
    DELETE FROM tiergate.mesh_workloads x
     WHERE x.node = NEW.name AND x.source = 'gateway' AND NOT tiergate.mesh_runs(NEW, x.tenant);
    UPDATE tiergate.mesh_endpoints e SET node = NULL
     WHERE e.node = NEW.name AND NOT tiergate.mesh_runs(NEW, e.tenant);
    SELECT * INTO w FROM tiergate.mesh_workloads x
     WHERE x.node = NEW.name AND NOT tiergate.mesh_runs(NEW, x.tenant)
       -- those of a tenant that is being deleted are about to go
       AND EXISTS (SELECT FROM tiergate.mesh_tenants m WHERE m.tenant = x.tenant)
     ORDER BY x.tenant, x.name LIMIT 1;
    IF FOUND THEN
        PERFORM tiergate.refuse(409, 'node-in-use', '/tenants',
                                format('workload "%s" of tenant "%s" runs on node "%s"', w.name, w.tenant, NEW.name),
                                'delete its workloads first');
    END IF;
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION tiergate.keep_mesh_assignment() IS 'Trigger: a node keeps the tenants of which it has workloads';

CREATE TRIGGER mesh_nodes_keep_assignment AFTER UPDATE OF tenants ON tiergate.mesh_nodes
    FOR EACH ROW WHEN (OLD.tenants <> NEW.tenants) EXECUTE FUNCTION tiergate.keep_mesh_assignment();


-- The name of a tenant that is gone means nobody; the next of that name is another.
CREATE FUNCTION tiergate.mesh_forget_tenants()
RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
SET jit = off
AS $$
BEGIN
    UPDATE tiergate.mesh_nodes n
       SET tenants = ARRAY(SELECT t FROM unnest(n.tenants) t WHERE NOT EXISTS (SELECT FROM old_rows o WHERE o.name = t))
     WHERE n.tenants && ARRAY(SELECT o.name::text FROM old_rows o);
    DELETE FROM tiergate.mesh_policies p USING old_rows o WHERE p.from_tenant = o.name AND p.tenant <> o.name;
    DELETE FROM tiergate.mesh_policies p USING old_rows o WHERE p.to_tenant = o.name AND p.tenant <> o.name;
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION tiergate.mesh_forget_tenants() IS
    'Trigger: nodes do not run deleted tenants, and policies of others that name them go';

CREATE TRIGGER tenants_mesh_forget AFTER DELETE ON tiergate.tenants REFERENCING OLD TABLE AS old_rows
    FOR EACH STATEMENT EXECUTE FUNCTION tiergate.mesh_forget_tenants();


-- Policies

CREATE FUNCTION tiergate.check_mesh_policy()
RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    broken text;
BEGIN
    -- an own service is written in one way
    IF NEW.from_service IS NOT NULL AND NEW.from_tenant = NEW.tenant THEN
        NEW.from_tenant := NULL;
    END IF;
    IF NEW.to_service IS NOT NULL AND NEW.to_tenant = NEW.tenant THEN
        NEW.to_tenant := NULL;
    END IF;
    NEW.ports := ARRAY(SELECT p FROM unnest(NEW.ports) p ORDER BY p);

    broken := CASE
        WHEN NOT tiergate.is_name(NEW.name)                      THEN 'mesh_policies_name'
        WHEN (NEW.action IN ('allow', 'deny')) IS NOT TRUE       THEN 'mesh_policies_action'
        WHEN (NEW.precedence BETWEEN 0 AND 1000000) IS NOT TRUE  THEN 'mesh_policies_precedence'
        WHEN NEW.from_cidr IS NOT NULL AND num_nonnulls(NEW.from_service, NEW.from_tenant) > 0
             OR NOT tiergate.is_label(NEW.from_service)          THEN 'mesh_policies_from'
        WHEN NEW.to_cidr IS NOT NULL AND num_nonnulls(NEW.to_service, NEW.to_tenant) > 0
             OR NOT tiergate.is_label(NEW.to_service)            THEN 'mesh_policies_to'
        WHEN NEW.from_cidr <<= '::ffff:0:0/96'                   THEN 'mesh_policies_from_cidr'
        WHEN NEW.to_cidr <<= '::ffff:0:0/96'                     THEN 'mesh_policies_to_cidr'
        WHEN (NEW.from_cidr IS NOT NULL OR NEW.from_tenant <> NEW.tenant)
             AND (NEW.to_cidr IS NOT NULL OR NEW.to_tenant <> NEW.tenant) THEN 'mesh_policies_foreign'
        WHEN NEW.protocol NOT IN ('tcp', 'udp')                  THEN 'mesh_policies_protocol'
        WHEN cardinality(NEW.ports) > 16
             OR EXISTS (SELECT FROM unnest(NEW.ports) p WHERE (p BETWEEN 1 AND 65535) IS NOT TRUE)
             OR (SELECT count(DISTINCT p) FROM unnest(NEW.ports) p) <> cardinality(NEW.ports) THEN 'mesh_policies_ports'
        WHEN octet_length(NEW.description) > 1000                THEN 'mesh_policies_description'
        WHEN NEW.from_tenant IS NOT NULL
             AND NOT EXISTS (SELECT FROM tiergate.tenants t WHERE t.name = NEW.from_tenant) THEN 'mesh_policies_from_tenant'
        WHEN NEW.to_tenant IS NOT NULL
             AND NOT EXISTS (SELECT FROM tiergate.tenants t WHERE t.name = NEW.to_tenant) THEN 'mesh_policies_to_tenant'
        END;
    IF broken IS NOT NULL THEN
        PERFORM tiergate.refuse_row(broken, NEW.name);
    END IF;
    PERFORM tiergate.hold_mesh_names(t, true)
       FROM (SELECT DISTINCT u FROM unnest(ARRAY[NEW.from_tenant, NEW.to_tenant]) u WHERE u <> NEW.tenant ORDER BY u) n (t);
    IF TG_OP = 'INSERT' THEN
        PERFORM tiergate.mesh_enable(NEW.tenant);
    END IF;
    RETURN NEW;
END
$$;

COMMENT ON FUNCTION tiergate.check_mesh_policy() IS 'Trigger: what a policy may be';

CREATE TRIGGER mesh_policies_check BEFORE INSERT OR UPDATE ON tiergate.mesh_policies
    FOR EACH ROW EXECUTE FUNCTION tiergate.check_mesh_policy();


-- Agents among the gateways

ALTER TABLE tiergate.gateways DROP CONSTRAINT gateways_kind,
    ADD CONSTRAINT gateways_kind CHECK (kind IN ('shared', 'dedicated', 'agent')),
    ADD COLUMN mesh jsonb;

COMMENT ON CONSTRAINT gateways_kind ON tiergate.gateways IS 'kind is shared, dedicated or agent';
COMMENT ON COLUMN tiergate.gateways.kind IS 'shared, dedicated to one tenant, or agent of a node';
COMMENT ON COLUMN tiergate.gateways.mesh IS 'Of an agent: counters, fill of its maps, workloads, as it last reported them';


CREATE FUNCTION tiergate.check_agent_name()
RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    known boolean := EXISTS (SELECT FROM tiergate.mesh_nodes n WHERE 'node-' || n.name = NEW.name);
BEGIN
    IF NEW.kind = 'agent' AND NOT known THEN
        PERFORM tiergate.refuse_row('gateways_agent_kind', NEW.name);
    END IF;
    -- one that has had such a name since before there were nodes keeps it
    IF NEW.kind <> 'agent' AND NOT EXISTS (SELECT FROM tiergate.gateways g WHERE g.name = NEW.name) THEN
        PERFORM tiergate.refuse_row('gateways_agent', NEW.name);
    END IF;
    RETURN NEW;
END
$$;

COMMENT ON FUNCTION tiergate.check_agent_name() IS 'Trigger: names that begin with node- belong to agents of nodes';

CREATE TRIGGER gateways_check_agent BEFORE INSERT ON tiergate.gateways
    FOR EACH ROW WHEN (NEW.name LIKE 'node-%' OR NEW.kind = 'agent') EXECUTE FUNCTION tiergate.check_agent_name();
CREATE TRIGGER gateways_check_agent_kind BEFORE UPDATE OF kind ON tiergate.gateways
    FOR EACH ROW WHEN (NEW.kind = 'agent' AND OLD.kind <> 'agent') EXECUTE FUNCTION tiergate.check_agent_name();


CREATE FUNCTION tiergate.keep_agent()
RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF EXISTS (SELECT FROM tiergate.mesh_nodes n WHERE 'node-' || n.name = OLD.name) THEN
        PERFORM tiergate.refuse_row('gateways_agent_managed', OLD.name);
    END IF;
    RETURN CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END;
END
$$;

COMMENT ON FUNCTION tiergate.keep_agent() IS 'Trigger: an agent goes with its node';

CREATE TRIGGER gateways_keep_agent BEFORE DELETE ON tiergate.gateways
    FOR EACH ROW WHEN (OLD.kind = 'agent') EXECUTE FUNCTION tiergate.keep_agent();
CREATE TRIGGER gateways_keep_agent_update BEFORE UPDATE OF name, kind, tenant ON tiergate.gateways
    FOR EACH ROW WHEN (OLD.kind = 'agent' AND (OLD.name, OLD.kind, OLD.tenant) IS DISTINCT FROM (NEW.name, NEW.kind, NEW.tenant))
    EXECUTE FUNCTION tiergate.keep_agent();


CREATE FUNCTION tiergate.mesh_agent_follows()
RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        DELETE FROM tiergate.gateways g WHERE g.name = 'node-' || OLD.name AND g.kind = 'agent';
        RETURN NULL;
    END IF;
    IF EXISTS (SELECT FROM tiergate.gateways g WHERE g.name = 'node-' || NEW.name) THEN
        PERFORM tiergate.refuse(409, 'gateway-exists', '/name', format('there is a gateway "node-%s" already', NEW.name),
                                'delete that gateway, or choose another name');
    END IF;
    INSERT INTO tiergate.gateways (name, kind) VALUES ('node-' || NEW.name, 'agent');
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION tiergate.mesh_agent_follows() IS 'Trigger: a node has an agent among the gateways';

CREATE TRIGGER mesh_nodes_agent AFTER INSERT OR DELETE ON tiergate.mesh_nodes
    FOR EACH ROW EXECUTE FUNCTION tiergate.mesh_agent_follows();


-- What else knows of kinds of gateways

CREATE OR REPLACE FUNCTION tiergate.live_shared_gateways()
RETURNS text[]
LANGUAGE plpgsql STABLE
AS $$
BEGIN
    RETURN (SELECT coalesce(array_agg(g.name ORDER BY g.name), '{}') FROM tiergate.gateways g
             WHERE g.tenant IS NULL AND g.kind = 'shared'
               AND g.state = 'live' AND g.last_seen > clock_timestamp() - interval '5 seconds');
END
$$;

CREATE OR REPLACE FUNCTION tiergate.tenant_json(t tiergate.tenants)
RETURNS jsonb
LANGUAGE plpgsql STABLE
AS $$
BEGIN
    RETURN jsonb_strip_nulls(jsonb_build_object(
        'id', t.id, 'name', t.name, 'tier', t.tier, 'placement', t.placement, 'forwarding', t.forwarding,
        'state', t.state, 'reason', t.reason,
        'display_name', t.display_name, 'labels', t.labels,
        'boost', CASE WHEN t.boost_until > now() THEN
            jsonb_build_object('factor', t.boost_factor, 'until', t.boost_until) END,
        'hosts', (SELECT coalesce(jsonb_agg(h.host ORDER BY h.host), '[]')
                    FROM tiergate.hosts h WHERE h.tenant = t.name),
        'created_at', t.created_at,
        'revision', tiergate.revision_of('tenant', t.id),
        'observedRevision',
            (SELECT coalesce(jsonb_object_agg(g.name, g.revision), '{}')
               FROM tiergate.gateways g
              WHERE g.kind = 'shared'
                 OR t.placement = 'dedicated' AND g.tenant = t.name
                    AND NOT EXISTS (SELECT FROM tiergate.instances i WHERE i.name = g.name AND i.tenant_id <> t.id)),
        'rejected',
            (SELECT jsonb_object_agg(g.name, r.value->>'reason')
               FROM tiergate.gateways g, jsonb_array_elements(g.rejected) r
              WHERE g.rejected <> '[]' AND r.value @> jsonb_build_object('kind', 'tenant', 'name', t.name))));
END
$$;


-- Changes.  mesh_tenant says whose an object was, also when it is gone: by it the
-- stream knows which agents may hear of it.

ALTER TABLE tiergate.changes ADD COLUMN mesh_tenant integer;

COMMENT ON COLUMN tiergate.changes.kind        IS 'tenant, issuer (of the platform), tenant_issuer (a tenant''s own; not on the stream), or of the mesh: mesh_node, mesh_agent, mesh_tenant, mesh_workload, mesh_service';
COMMENT ON COLUMN tiergate.changes.mesh_tenant IS 'Of mesh_tenant, mesh_workload and mesh_service: number of the tenant whose it is';


CREATE FUNCTION tiergate.mark_mesh_tenant(tenant text)
RETURNS void
LANGUAGE sql
AS $$
    INSERT INTO tiergate.changes (kind, object_id, name, mesh_tenant)
    SELECT 'mesh_tenant', m.number, m.tenant, m.number FROM tiergate.mesh_tenants m WHERE m.tenant = mark_mesh_tenant.tenant
        ON CONFLICT DO NOTHING
$$;

COMMENT ON FUNCTION tiergate.mark_mesh_tenant(text) IS 'Marks what agents get of a tenant as changed: defaults and policies';


CREATE FUNCTION tiergate.mark_mesh_naming(tenant text, service text DEFAULT NULL)
RETURNS void
LANGUAGE sql
AS $$
    INSERT INTO tiergate.changes (kind, object_id, name, mesh_tenant)
    SELECT 'mesh_tenant', m.number, m.tenant, m.number
      FROM tiergate.mesh_tenants m
     WHERE m.tenant IN (SELECT p.tenant FROM tiergate.mesh_policies p
                         WHERE p.from_tenant = mark_mesh_naming.tenant
                           AND p.from_service IS NOT DISTINCT FROM mark_mesh_naming.service
                        UNION
                        SELECT p.tenant FROM tiergate.mesh_policies p
                         WHERE p.to_tenant = mark_mesh_naming.tenant
                           AND p.to_service IS NOT DISTINCT FROM mark_mesh_naming.service)
        ON CONFLICT DO NOTHING
$$;

COMMENT ON FUNCTION tiergate.mark_mesh_naming(text, text) IS
    'Marks tenants whose policies name this service of another tenant, or that tenant as a whole';


CREATE FUNCTION tiergate.mesh_nodes_marked()
RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
SET jit = off
AS $$
DECLARE
    n tiergate.mesh_nodes := CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END;
BEGIN
    INSERT INTO tiergate.changes (kind, object_id, name) VALUES ('mesh_node', n.id, n.name) ON CONFLICT DO NOTHING;
    IF TG_OP <> 'UPDATE' OR OLD.tenants <> NEW.tenants THEN
        INSERT INTO tiergate.changes (kind, object_id, name) VALUES ('mesh_agent', n.id, 'node-' || n.name) ON CONFLICT DO NOTHING;
    END IF;
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION tiergate.mesh_nodes_marked() IS 'Trigger: a node changed, or what its agent sees';

CREATE TRIGGER mesh_nodes_mark AFTER INSERT OR DELETE ON tiergate.mesh_nodes
    FOR EACH ROW EXECUTE FUNCTION tiergate.mesh_nodes_marked();
CREATE TRIGGER mesh_nodes_mark_update AFTER UPDATE ON tiergate.mesh_nodes
    FOR EACH ROW WHEN (OLD.* IS DISTINCT FROM NEW.*) EXECUTE FUNCTION tiergate.mesh_nodes_marked();


CREATE FUNCTION tiergate.mesh_tenants_marked()
RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
SET jit = off
AS $$
DECLARE
    m tiergate.mesh_tenants := CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END;
BEGIN
    INSERT INTO tiergate.changes (kind, object_id, name, mesh_tenant)
    VALUES ('mesh_tenant', m.number, m.tenant, m.number) ON CONFLICT DO NOTHING;
    IF TG_OP <> 'UPDATE' THEN
        PERFORM tiergate.hold_mesh_names(m.tenant, false);
        PERFORM tiergate.mark_mesh_naming(m.tenant);
        INSERT INTO tiergate.changes (kind, object_id, name)
        SELECT 'mesh_agent', n.id, 'node-' || n.name FROM tiergate.mesh_nodes n WHERE m.tenant = ANY (n.tenants)
            ON CONFLICT DO NOTHING;
    END IF;
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION tiergate.mesh_tenants_marked() IS
    'Trigger: a tenant of the mesh changed; one that came or went is news to those who name it';

CREATE TRIGGER mesh_tenants_mark AFTER INSERT OR DELETE ON tiergate.mesh_tenants
    FOR EACH ROW EXECUTE FUNCTION tiergate.mesh_tenants_marked();
CREATE TRIGGER mesh_tenants_mark_update AFTER UPDATE ON tiergate.mesh_tenants
    FOR EACH ROW WHEN (OLD.* IS DISTINCT FROM NEW.*) EXECUTE FUNCTION tiergate.mesh_tenants_marked();


CREATE FUNCTION tiergate.mesh_services_inserted()
RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
SET jit = off
AS $$
BEGIN
    INSERT INTO tiergate.changes (kind, object_id, name, mesh_tenant)
    SELECT 'mesh_service', n.id, n.tenant || '/' || n.name, n.tenant_number FROM new_rows n
        ON CONFLICT DO NOTHING;
    PERFORM tiergate.mark_mesh_naming(n.tenant, n.name) FROM new_rows n;
    PERFORM tiergate.hold_mesh_limit('mesh_services_per_tenant', o.tenant,
                (SELECT count(*) FROM tiergate.mesh_services s WHERE s.tenant = o.tenant AND s.name <> 'gateway'))
       FROM (SELECT DISTINCT n.tenant FROM new_rows n) o;
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION tiergate.mesh_services_inserted() IS
    'Trigger: marks new services, and who names them, and holds their tenant to its limit';

CREATE FUNCTION tiergate.hold_mesh_limit(name text, owner text, held bigint)
RETURNS void
LANGUAGE plpgsql
AS $$
BEGIN
    IF held <= (SELECT l.value / 2 FROM tiergate.limits l WHERE l.name = hold_mesh_limit.name) THEN
        RETURN;
    END IF;
    PERFORM tiergate.hold_limit(name, owner);
    -- others may have added some while this one waited
    held := CASE name
        WHEN 'mesh_services_per_tenant'  THEN (SELECT count(*) FROM tiergate.mesh_services x  WHERE x.tenant = owner AND x.name <> 'gateway')
        WHEN 'mesh_workloads_per_tenant' THEN (SELECT count(*) FROM tiergate.mesh_workloads x WHERE x.tenant = owner)
        WHEN 'mesh_policies_per_tenant'  THEN (SELECT count(*) FROM tiergate.mesh_policies x  WHERE x.tenant = owner)
        ELSE (SELECT count(*) FROM tiergate.mesh_endpoints x
               WHERE x.tenant = split_part(owner, '/', 1) AND x.service = split_part(owner, '/', 2)) END;
    PERFORM tiergate.refuse_excess(name, held);
END
$$;

COMMENT ON FUNCTION tiergate.hold_mesh_limit(text, text, bigint) IS
    'Refuses what is more than a limit of a tenant, or of <tenant>/<service>; from half of it on transactions take turns';

CREATE TRIGGER mesh_services_inserted AFTER INSERT ON tiergate.mesh_services REFERENCING NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION tiergate.mesh_services_inserted();


CREATE FUNCTION tiergate.mesh_services_marked()
RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
SET jit = off
AS $$
BEGIN
    INSERT INTO tiergate.changes (kind, object_id, name, mesh_tenant)
    VALUES ('mesh_service', OLD.id, OLD.tenant || '/' || OLD.name, OLD.tenant_number) ON CONFLICT DO NOTHING;
    IF TG_OP = 'DELETE' THEN
        PERFORM tiergate.mesh_release_addresses(OLD.id);
        PERFORM tiergate.mark_mesh_naming(OLD.tenant, OLD.name);
    END IF;
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION tiergate.mesh_services_marked() IS
    'Trigger: marks a service, and who names one that is gone, whose addresses are given back';

CREATE TRIGGER mesh_services_mark_update AFTER UPDATE ON tiergate.mesh_services
    FOR EACH ROW WHEN (OLD.* IS DISTINCT FROM NEW.*) EXECUTE FUNCTION tiergate.mesh_services_marked();
CREATE TRIGGER mesh_services_mark_delete AFTER DELETE ON tiergate.mesh_services
    FOR EACH ROW EXECUTE FUNCTION tiergate.mesh_services_marked();


-- Endpoints come and change in numbers.
CREATE FUNCTION tiergate.mesh_endpoints_changed()
RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
SET jit = off
AS $$
BEGIN
    IF TG_OP = 'UPDATE' THEN
        INSERT INTO tiergate.changes (kind, object_id, name, mesh_tenant)
        SELECT 'mesh_service', s.id, s.tenant || '/' || s.name, s.tenant_number
          FROM (SELECT DISTINCT n.tenant, n.service FROM old_rows o JOIN new_rows n ON n.id = o.id
                 WHERE (o.service_port, o.tcp, o.udp, o.weight, o.healthy, o.node)
                       IS DISTINCT FROM (n.service_port, n.tcp, n.udp, n.weight, n.healthy, n.node)) c
          JOIN tiergate.mesh_services s ON s.tenant = c.tenant AND s.name = c.service
            ON CONFLICT DO NOTHING;
        RETURN NULL;
    END IF;
    INSERT INTO tiergate.changes (kind, object_id, name, mesh_tenant)
    SELECT 'mesh_service', s.id, s.tenant || '/' || s.name, s.tenant_number
      FROM (SELECT DISTINCT n.tenant, n.service FROM new_rows n) c
      JOIN tiergate.mesh_services s ON s.tenant = c.tenant AND s.name = c.service
        ON CONFLICT DO NOTHING;
    IF TG_OP = 'INSERT' THEN
        PERFORM tiergate.hold_mesh_limit('mesh_endpoints_per_service', o.tenant || '/' || o.service,
                    (SELECT count(*) FROM tiergate.mesh_endpoints e WHERE e.tenant = o.tenant AND e.service = o.service))
           FROM (SELECT DISTINCT n.tenant, n.service FROM new_rows n) o;
    END IF;
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION tiergate.mesh_endpoints_changed() IS
    'Trigger: marks the services of endpoints that came, changed or went, and holds them to their limit';

CREATE TRIGGER mesh_endpoints_inserted AFTER INSERT ON tiergate.mesh_endpoints REFERENCING NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION tiergate.mesh_endpoints_changed();
CREATE TRIGGER mesh_endpoints_updated AFTER UPDATE ON tiergate.mesh_endpoints REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION tiergate.mesh_endpoints_changed();
CREATE TRIGGER mesh_endpoints_deleted AFTER DELETE ON tiergate.mesh_endpoints REFERENCING OLD TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION tiergate.mesh_endpoints_changed();


CREATE FUNCTION tiergate.mesh_workloads_inserted()
RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
SET jit = off
AS $$
BEGIN
    INSERT INTO tiergate.changes (kind, object_id, name, mesh_tenant)
    SELECT 'mesh_workload', n.id, n.tenant || '/' || n.name, n.tenant_number FROM new_rows n
        ON CONFLICT DO NOTHING;
    PERFORM tiergate.hold_mesh_limit('mesh_workloads_per_tenant', o.tenant,
                (SELECT count(*) FROM tiergate.mesh_workloads w WHERE w.tenant = o.tenant))
       FROM (SELECT DISTINCT n.tenant FROM new_rows n) o;
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION tiergate.mesh_workloads_inserted() IS 'Trigger: marks new workloads, and holds their tenant to its limit';

CREATE TRIGGER mesh_workloads_inserted AFTER INSERT ON tiergate.mesh_workloads REFERENCING NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION tiergate.mesh_workloads_inserted();


CREATE FUNCTION tiergate.mesh_workloads_marked()
RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
SET jit = off
AS $$
BEGIN
    INSERT INTO tiergate.changes (kind, object_id, name, mesh_tenant)
    VALUES ('mesh_workload', OLD.id, OLD.tenant || '/' || OLD.name, OLD.tenant_number) ON CONFLICT DO NOTHING;
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION tiergate.mesh_workloads_marked() IS 'Trigger: marks a workload';

CREATE TRIGGER mesh_workloads_mark_update AFTER UPDATE ON tiergate.mesh_workloads
    FOR EACH ROW WHEN ((OLD.service, OLD.node, OLD.cgroup, OLD.pod_uid, OLD.addresses, OLD.any_source)
                       IS DISTINCT FROM (NEW.service, NEW.node, NEW.cgroup, NEW.pod_uid, NEW.addresses, NEW.any_source))
    EXECUTE FUNCTION tiergate.mesh_workloads_marked();
CREATE TRIGGER mesh_workloads_mark_delete AFTER DELETE ON tiergate.mesh_workloads
    FOR EACH ROW EXECUTE FUNCTION tiergate.mesh_workloads_marked();


CREATE FUNCTION tiergate.mesh_policies_inserted()
RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
SET jit = off
AS $$
BEGIN
    PERFORM tiergate.mark_mesh_tenant(o.tenant),
            tiergate.hold_mesh_limit('mesh_policies_per_tenant', o.tenant,
                (SELECT count(*) FROM tiergate.mesh_policies p WHERE p.tenant = o.tenant))
       FROM (SELECT DISTINCT n.tenant FROM new_rows n) o;
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION tiergate.mesh_policies_inserted() IS 'Trigger: marks tenants that have new policies, and holds them to their limit';

CREATE TRIGGER mesh_policies_inserted AFTER INSERT ON tiergate.mesh_policies REFERENCING NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION tiergate.mesh_policies_inserted();


CREATE FUNCTION tiergate.mesh_policies_marked()
RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM tiergate.mark_mesh_tenant(OLD.tenant);
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION tiergate.mesh_policies_marked() IS 'Trigger: marks the tenant of a policy';

CREATE TRIGGER mesh_policies_mark_update AFTER UPDATE ON tiergate.mesh_policies
    FOR EACH ROW WHEN (OLD.* IS DISTINCT FROM NEW.*) EXECUTE FUNCTION tiergate.mesh_policies_marked();
CREATE TRIGGER mesh_policies_mark_delete AFTER DELETE ON tiergate.mesh_policies
    FOR EACH ROW EXECUTE FUNCTION tiergate.mesh_policies_marked();


CREATE FUNCTION tiergate.mesh_trust_domain_changed()
RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM tiergate.mark_mesh_tenant(m.tenant) FROM tiergate.mesh_tenants m;
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION tiergate.mesh_trust_domain_changed() IS 'Trigger: identities of all tenants have another trust domain';

CREATE TRIGGER settings_trust_domain AFTER UPDATE ON tiergate.settings
    FOR EACH ROW WHEN (NEW.name = 'mesh.trust_domain' AND OLD.value <> NEW.value)
    EXECUTE FUNCTION tiergate.mesh_trust_domain_changed();


-- Audit.  What an agent finds out about health is no change of what is wanted.
DO $$
DECLARE
    t record;
BEGIN
    FOR t IN
        SELECT * FROM (VALUES
            ('mesh_nodes',     '',       '{name}',                  '*'),
            ('mesh_tenants',   'tenant', '{tenant}',                '*'),
            ('mesh_services',  'tenant', '{name}',                  '*'),
            ('mesh_endpoints', 'tenant', '{service,address,port}',  '{service_port,weight,node}'),
            ('mesh_workloads', 'tenant', '{name}',                  '{service,node,cgroup,pod_uid,addresses,any_source,source}'),
            ('mesh_policies',  'tenant', '{name}',                  '*')
        ) AS v (tab, tenant, label, cols)
    LOOP
        EXECUTE format(
            'CREATE TRIGGER %I AFTER INSERT ON tiergate.%I REFERENCING NEW TABLE AS new_rows
             FOR EACH STATEMENT EXECUTE FUNCTION tiergate.audit_inserted(%L, %s)',
            t.tab || '_audit_insert', t.tab, t.tenant,
            (SELECT string_agg(quote_literal(l), ', ') FROM unnest(t.label::text[]) l));
        EXECUTE format(
            'CREATE TRIGGER %I AFTER UPDATE ON tiergate.%I
             FOR EACH ROW WHEN (%s IS DISTINCT FROM %s) EXECUTE FUNCTION tiergate.audit_changed(%L, %s)',
            t.tab || '_audit_update', t.tab,
            CASE t.cols WHEN '*' THEN 'OLD.*' ELSE (SELECT '(' || string_agg('OLD.' || c, ', ') || ')' FROM unnest(t.cols::text[]) c) END,
            CASE t.cols WHEN '*' THEN 'NEW.*' ELSE (SELECT '(' || string_agg('NEW.' || c, ', ') || ')' FROM unnest(t.cols::text[]) c) END,
            t.tenant, (SELECT string_agg(quote_literal(l), ', ') FROM unnest(t.label::text[]) l));
        EXECUTE format(
            'CREATE TRIGGER %I AFTER DELETE ON tiergate.%I
             FOR EACH ROW EXECUTE FUNCTION tiergate.audit_changed(%L, %s)',
            t.tab || '_audit_delete', t.tab, t.tenant,
            (SELECT string_agg(quote_literal(l), ', ') FROM unnest(t.label::text[]) l));
        EXECUTE format(
            'CREATE TRIGGER %I BEFORE TRUNCATE ON tiergate.%I
             FOR EACH STATEMENT EXECUTE FUNCTION tiergate.keep_rows()',
            t.tab || '_keep', t.tab);
    END LOOP;
END
$$;


CREATE OR REPLACE FUNCTION tiergate.prune_changes()
RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    low  bigint := (SELECT r.pruned FROM tiergate.registry r);
    high bigint;
    gone bigint;
BEGIN
    SELECT max(c.revision) INTO high
      FROM (SELECT c.revision, c.at FROM tiergate.changes c
             WHERE c.revision > low ORDER BY c.revision LIMIT 10000) c
     WHERE c.at < now() - (tiergate.setting('changes.retention') #>> '{}')::interval;
    IF high IS NULL THEN
        RETURN 0;
    END IF;

    WITH old AS MATERIALIZED (
        SELECT c.kind, c.object_id, max(c.revision) AS revision,
               CASE c.kind WHEN 'tenant'        THEN EXISTS (SELECT FROM tiergate.tenants x WHERE x.id = c.object_id)
                           WHEN 'mesh_node'     THEN EXISTS (SELECT FROM tiergate.mesh_nodes x WHERE x.id = c.object_id)
                           WHEN 'mesh_agent'    THEN EXISTS (SELECT FROM tiergate.mesh_nodes x WHERE x.id = c.object_id)
                           WHEN 'mesh_tenant'   THEN EXISTS (SELECT FROM tiergate.mesh_tenants x WHERE x.number = c.object_id)
                           WHEN 'mesh_workload' THEN EXISTS (SELECT FROM tiergate.mesh_workloads x WHERE x.id = c.object_id)
                           WHEN 'mesh_service'  THEN EXISTS (SELECT FROM tiergate.mesh_services x WHERE x.id = c.object_id)
                           ELSE EXISTS (SELECT FROM tiergate.issuers x WHERE x.id = c.object_id) END AS lives
          FROM tiergate.changes c
         WHERE c.revision > low AND c.revision <= high
         GROUP BY c.kind, c.object_id
    )
    DELETE FROM tiergate.changes c
     USING old o
     WHERE c.kind = o.kind AND c.object_id = o.object_id
       AND (c.revision < o.revision OR (c.revision = o.revision AND NOT o.lives));
    GET DIAGNOSTICS gone = ROW_COUNT;

    UPDATE tiergate.registry SET pruned = high;
    RETURN gone;
END
$$;


-- Documents: docs/reference/mesh-document.md is the contract.

CREATE FUNCTION tiergate.mesh_node_document(n tiergate.mesh_nodes)
RETURNS text
LANGUAGE plpgsql STABLE
AS $$
BEGIN
    RETURN json_strip_nulls(json_build_object(
        'id', n.id, 'name', n.name, 'revision', coalesce(tiergate.revision_of('mesh_node', n.id), 1),
        'addresses', ARRAY(SELECT host(a) FROM unnest(n.addresses) a), 'workload_nets', n.workload_nets));
END
$$;

COMMENT ON FUNCTION tiergate.mesh_node_document(tiergate.mesh_nodes) IS 'What every agent gets of a node';


CREATE FUNCTION tiergate.mesh_numbers(n tiergate.mesh_nodes)
RETURNS integer[]
LANGUAGE plpgsql STABLE
SET enable_seqscan = off
SET jit = off
AS $$
BEGIN
    RETURN CASE WHEN n.tenants <> '{*}' THEN
        ARRAY(SELECT m.number FROM tiergate.mesh_tenants m WHERE m.tenant = ANY (n.tenants) ORDER BY m.number) END;
END
$$;

COMMENT ON FUNCTION tiergate.mesh_numbers(tiergate.mesh_nodes) IS 'Numbers of the tenants that a node runs; null means all';


CREATE FUNCTION tiergate.mesh_agent_document(n tiergate.mesh_nodes)
RETURNS text
LANGUAGE plpgsql STABLE
AS $$
BEGIN
    RETURN json_strip_nulls(json_build_object(
        'id', n.id, 'name', 'node-' || n.name, 'revision', coalesce(tiergate.revision_of('mesh_agent', n.id), 1),
        'node', n.name, 'tenants', coalesce(to_json(tiergate.mesh_numbers(n)), '"*"')));
END
$$;

COMMENT ON FUNCTION tiergate.mesh_agent_document(tiergate.mesh_nodes) IS 'What the agent of a node gets about itself: which tenants it sees';


CREATE FUNCTION tiergate.mesh_side(owner text, service text, tenant text, net cidr)
RETURNS json
LANGUAGE plpgsql STABLE
SET enable_seqscan = off
SET jit = off
AS $$
DECLARE
    named integer;
BEGIN
    IF net IS NOT NULL THEN
        RETURN json_build_object('cidr', net);
    ELSIF service IS NOT NULL THEN
        SELECT s.number INTO named FROM tiergate.mesh_services s
         WHERE s.tenant = coalesce(mesh_side.tenant, owner) AND s.name = service;
        RETURN CASE WHEN named IS NOT NULL THEN json_build_object('service', named) END;
    ELSIF tenant IS NOT NULL THEN
        SELECT m.number INTO named FROM tiergate.mesh_tenants m WHERE m.tenant = mesh_side.tenant;
        RETURN CASE WHEN named IS NOT NULL THEN json_build_object('tenant', named) END;
    END IF;
    RETURN '{}';
END
$$;

COMMENT ON FUNCTION tiergate.mesh_side(text, text, text, cidr) IS
    'A side of a policy with numbers for names; null if it names nobody that there is';


CREATE FUNCTION tiergate.mesh_tenant_documents(numbers integer[])
RETURNS TABLE (number integer, name text, revision bigint, document text)
LANGUAGE plpgsql STABLE
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off
SET jit = off
AS $$
#variable_conflict use_column
DECLARE
    domain text := tiergate.setting('mesh.trust_domain') #>> '{}';
BEGIN
    RETURN QUERY
    SELECT m.number, m.tenant, v.revision,
           json_strip_nulls(json_build_object(
               'id', m.number, 'name', m.tenant, 'number', m.number, 'revision', coalesce(v.revision, 1),
               'trust_domain', domain,
               'defaults', json_build_object(
                   'from_same', m.from_same, 'from_other', m.from_other, 'from_outside', m.from_outside,
                   'from_node', m.from_node, 'to_same', m.to_same, 'to_other', m.to_other, 'to_outside', m.to_outside),
               'policies', (SELECT coalesce(json_agg(json_build_object(
                       'name', p.name, 'number', p.number, 'action', p.action, 'precedence', p.precedence,
                       'from', s.source, 'to', s.target,
                       'own_from', p.from_cidr IS NULL AND coalesce(p.from_tenant, p.tenant) = p.tenant,
                       'own_to',   p.to_cidr IS NULL AND coalesce(p.to_tenant, p.tenant) = p.tenant,
                       'protocol', p.protocol, 'ports', p.ports) ORDER BY p.precedence DESC, p.number), '[]')
                  FROM tiergate.mesh_policies p,
                       LATERAL (SELECT tiergate.mesh_side(p.tenant, p.from_service, p.from_tenant, p.from_cidr) AS source,
                                       tiergate.mesh_side(p.tenant, p.to_service, p.to_tenant, p.to_cidr) AS target) s
                 WHERE p.tenant = m.tenant AND s.source IS NOT NULL AND s.target IS NOT NULL)))::text
      FROM tiergate.mesh_tenants m
      LEFT JOIN LATERAL (SELECT max(c.revision) AS revision FROM tiergate.changes c
                          WHERE c.kind = 'mesh_tenant' AND c.object_id = m.number AND c.revision IS NOT NULL) v ON true
     WHERE m.number = ANY (numbers);
END
$$;

COMMENT ON FUNCTION tiergate.mesh_tenant_documents(integer[]) IS
    'What agents get of tenants: defaults and policies; a policy that names nobody is left out';


CREATE FUNCTION tiergate.mesh_workload_documents(ids bigint[])
RETURNS TABLE (id bigint, name text, tenant_number integer, revision bigint, document text)
LANGUAGE plpgsql STABLE
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off
SET jit = off
AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    SELECT w.id, w.tenant || '/' || w.name, w.tenant_number, v.revision,
           json_strip_nulls(json_build_object(
               'id', w.id, 'name', w.tenant || '/' || w.name, 'tenant', w.tenant, 'tenant_number', w.tenant_number,
               'service', w.service, 'service_number', s.number, 'revision', coalesce(v.revision, 1),
               'node', w.node, 'cgroup', w.cgroup, 'pod_uid', w.pod_uid,
               'addresses', ARRAY(SELECT host(a) FROM unnest(w.addresses) a), 'any_source', w.any_source))::text
      FROM tiergate.mesh_workloads w
      JOIN tiergate.mesh_services s ON s.tenant = w.tenant AND s.name = w.service
      LEFT JOIN LATERAL (SELECT max(c.revision) AS revision FROM tiergate.changes c
                          WHERE c.kind = 'mesh_workload' AND c.object_id = w.id AND c.revision IS NOT NULL) v ON true
     WHERE w.id = ANY (ids);
END
$$;

COMMENT ON FUNCTION tiergate.mesh_workload_documents(bigint[]) IS 'What agents get of workloads';


CREATE FUNCTION tiergate.mesh_service_documents(ids bigint[])
RETURNS TABLE (id bigint, name text, tenant_number integer, revision bigint, document text)
LANGUAGE plpgsql STABLE
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off
SET jit = off
AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    SELECT s.id, s.tenant || '/' || s.name, s.tenant_number, v.revision,
           json_strip_nulls(json_build_object(
               'id', s.id, 'name', s.tenant || '/' || s.name, 'tenant', s.tenant, 'tenant_number', s.tenant_number,
               'number', s.number, 'revision', coalesce(v.revision, 1),
               'addresses', ARRAY(SELECT host(a) FROM unnest(ARRAY[s.ipv4, s.ipv6]) a WHERE a IS NOT NULL),
               'ports', s.ports, 'limits', nullif(s.limits, '{}'), 'health', s.health,
               'endpoints', (SELECT coalesce(json_agg(json_build_object(
                       'id', e.id, 'address', host(e.address), 'port', e.port, 'service_port', e.service_port,
                       'weight', e.weight, 'healthy', e.healthy, 'node', e.node) ORDER BY e.id), '[]')
                  FROM tiergate.mesh_endpoints e WHERE e.tenant = s.tenant AND e.service = s.name)))::text
      FROM tiergate.mesh_services s
      LEFT JOIN LATERAL (SELECT max(c.revision) AS revision FROM tiergate.changes c
                          WHERE c.kind = 'mesh_service' AND c.object_id = s.id AND c.revision IS NOT NULL) v ON true
     WHERE s.id = ANY (ids);
END
$$;

COMMENT ON FUNCTION tiergate.mesh_service_documents(bigint[]) IS 'What agents get of services, with their endpoints';


-- The watch stream

-- An agent without a node is refused: if it were told that there is nothing, it would
-- let go of what it enforces.  revision is that of its view: who comes from before it
-- has other objects than the view, and has to list.
DROP FUNCTION tiergate.watch_view(text);

CREATE FUNCTION tiergate.watch_view(gateway text, OUT kind text, OUT tenant text, OUT tenant_id bigint, OUT numbers integer[],
                                    OUT revision bigint)
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    i tiergate.instances;
    n tiergate.mesh_nodes;
BEGIN
    SELECT g.kind, g.tenant INTO kind, tenant FROM tiergate.gateways g WHERE g.name = gateway;
    IF kind = 'agent' OR kind IS NULL AND gateway LIKE 'node-%' THEN
        SELECT * INTO n FROM tiergate.mesh_nodes x WHERE x.name = substr(gateway, 6);
        IF NOT FOUND THEN
            PERFORM tiergate.refuse(404, 'unknown-node', '', format('there is no node "%s"', substr(gateway, 6)),
                                    'make it: PUT /v1/mesh/nodes/{node}');
        END IF;
        kind      := 'agent';
        tenant_id := n.id;
        numbers   := tiergate.mesh_numbers(n);
        revision  := tiergate.revision_of('mesh_agent', n.id);
        RETURN;
    END IF;
    IF gateway NOT LIKE 'dedicated-%' THEN
        tenant_id := (SELECT t.id FROM tiergate.tenants t WHERE t.name = tenant);
        RETURN;
    END IF;
    SELECT * INTO i FROM tiergate.instances x WHERE x.name = gateway;
    kind      := 'dedicated';
    tenant    := coalesce(i.tenant, '');
    tenant_id := coalesce(i.tenant_id, 0);
END
$$;

COMMENT ON FUNCTION tiergate.watch_view(text) IS
    'Kind of a gateway, and what it sees: a dedicated one a tenant by id, an agent the mesh objects of tenants by number (null: of all), with its node''s id as tenant_id, and since which revision; nulls for one that nobody has registered, which is a shared one; 0 for an instance that is gone, which sees nothing';


DROP FUNCTION tiergate.watch_list(text);

CREATE FUNCTION tiergate.watch_list(gateway text)
RETURNS TABLE (kind text, name text, id bigint, revision bigint, document text, mesh_tenant integer)
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
SET jit = off
AS $$
    WITH g AS MATERIALIZED (
        SELECT v.kind IS NOT DISTINCT FROM 'dedicated' AS own, v.tenant_id FROM tiergate.watch_view(watch_list.gateway) v
         WHERE v.kind IS DISTINCT FROM 'agent'
    ), a AS MATERIALIZED (
        SELECT v.tenant_id AS node_id, v.numbers FROM tiergate.watch_view(watch_list.gateway) v
         WHERE v.kind = 'agent'
    ), moving AS MATERIALIZED (
        SELECT array_agg(m.tenant_id) AS ids
          FROM (SELECT i.tenant_id FROM tiergate.instances i
                UNION
                SELECT h.tenant_id FROM tiergate.handovers h
                 WHERE h.finished_at > clock_timestamp() - interval '60 seconds') m
    )
    SELECT 'issuer', i.name, i.id, tiergate.revision_of('issuer', i.id), tiergate.issuer_document(i), NULL::integer
      FROM g, tiergate.issuers i
     WHERE i.tenant IS NULL
    UNION ALL
    SELECT 'tenant', d.name, d.id, d.revision,
           CASE WHEN d.id = ANY ((SELECT m.ids FROM moving m)::bigint[])
                THEN (SELECT CASE WHEN g.own THEN v.document ELSE coalesce(v.shared_document, v.document) END
                        FROM g, tiergate.tenants t, tiergate.gateway_documents(t, d.document) v WHERE t.id = d.id)
                ELSE d.document END, NULL
      FROM (SELECT array_agg(n.id) AS ids
              FROM (SELECT t.id, row_number() OVER () / 50 AS fifty
                      FROM tiergate.tenants t, g WHERE NOT g.own OR t.id = g.tenant_id) n
             GROUP BY n.fifty) part,
           LATERAL tiergate.tenant_documents(part.ids) d
    UNION ALL
    SELECT 'mesh_agent', 'node-' || n.name, n.id, tiergate.revision_of('mesh_agent', n.id), tiergate.mesh_agent_document(n), NULL
      FROM a, tiergate.mesh_nodes n WHERE n.id = a.node_id
    UNION ALL
    SELECT 'mesh_node', n.name, n.id, tiergate.revision_of('mesh_node', n.id), tiergate.mesh_node_document(n), NULL
      FROM a, tiergate.mesh_nodes n
    UNION ALL
    SELECT 'mesh_tenant', d.name, d.number, d.revision, d.document, d.number
      FROM (SELECT array_agg(n.number) AS numbers
              FROM (SELECT m.number, row_number() OVER () / 50 AS fifty
                      FROM a, tiergate.mesh_tenants m WHERE a.numbers IS NULL OR m.number = ANY (a.numbers)) n
             GROUP BY n.fifty) part,
           LATERAL tiergate.mesh_tenant_documents(part.numbers) d
    UNION ALL
    SELECT 'mesh_workload', d.name, d.id, d.revision, d.document, d.tenant_number
      FROM (SELECT array_agg(n.id) AS ids
              FROM (SELECT w.id, row_number() OVER () / 250 AS part
                      FROM a, tiergate.mesh_workloads w WHERE a.numbers IS NULL OR w.tenant_number = ANY (a.numbers)) n
             GROUP BY n.part) part,
           LATERAL tiergate.mesh_workload_documents(part.ids) d
    UNION ALL
    SELECT 'mesh_service', d.name, d.id, d.revision, d.document, d.tenant_number
      FROM (SELECT array_agg(n.id) AS ids
              FROM (SELECT s.id, row_number() OVER () / 50 AS fifty
                      FROM a, tiergate.mesh_services s WHERE a.numbers IS NULL OR s.tenant_number = ANY (a.numbers)) n
             GROUP BY n.fifty) part,
           LATERAL tiergate.mesh_service_documents(part.ids) d
$$;

COMMENT ON FUNCTION tiergate.watch_list(text) IS
    'Everything that a gateway or agent sees; read it in one REPEATABLE READ transaction with registry_state()';


DROP FUNCTION tiergate.watch_read(bigint, integer);
DROP FUNCTION tiergate.watch_feed(bigint, integer);
DROP FUNCTION tiergate.watch_since(bigint, integer);

CREATE FUNCTION tiergate.watch_since(since bigint, max integer, kinds text[] DEFAULT '{tenant,issuer}', numbers integer[] DEFAULT NULL,
                                     node_id bigint DEFAULT NULL)
RETURNS TABLE (revision bigint, kind text, name text, id bigint, op text, tier text, gateway text,
               document text, shared boolean, shared_document text, mesh_tenant integer)
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
SET jit = off
AS $$
#variable_conflict use_column
BEGIN
    IF since < (SELECT r.pruned FROM tiergate.registry r) THEN
        PERFORM tiergate.refuse(410, 'revision-gone', '/since',
            format('changes since revision %s are no longer kept', since), 'list again with since=0');
    END IF;

    RETURN QUERY
    WITH changed AS MATERIALIZED (
        SELECT DISTINCT ON (b.kind, b.object_id) b.*
          FROM (SELECT c.revision, c.kind, c.object_id, c.name, c.mesh_tenant
                  FROM tiergate.changes c
                 WHERE c.revision > since AND c.kind = ANY (kinds)
                   AND (numbers IS NULL OR c.mesh_tenant IS NULL OR c.mesh_tenant = ANY (numbers))
                   AND (node_id IS NULL OR c.kind <> 'mesh_agent' OR c.object_id = node_id)
                 ORDER BY c.revision
                 FETCH FIRST max ROWS WITH TIES) b
         ORDER BY b.kind, b.object_id, b.revision
    ), mesh AS MATERIALIZED (
        SELECT 'mesh_tenant' AS kind, d.number::bigint AS id, d.document
          FROM tiergate.mesh_tenant_documents(ARRAY(SELECT x.object_id::integer FROM changed x WHERE x.kind = 'mesh_tenant')) d
        UNION ALL
        SELECT 'mesh_workload', d.id, d.document
          FROM tiergate.mesh_workload_documents(ARRAY(SELECT x.object_id FROM changed x WHERE x.kind = 'mesh_workload')) d
        UNION ALL
        SELECT 'mesh_service', d.id, d.document
          FROM tiergate.mesh_service_documents(ARRAY(SELECT x.object_id FROM changed x WHERE x.kind = 'mesh_service')) d
        UNION ALL
        SELECT x.kind, n.id, CASE x.kind WHEN 'mesh_node' THEN tiergate.mesh_node_document(n) ELSE tiergate.mesh_agent_document(n) END
          FROM changed x JOIN tiergate.mesh_nodes n ON n.id = x.object_id WHERE x.kind IN ('mesh_node', 'mesh_agent')
    )
    SELECT c.revision, c.kind, c.name, c.object_id,
           CASE WHEN coalesce(d.document, i.document, m.document) IS NULL THEN 'DELETE' ELSE 'PUT' END,
           d.tier,
           (SELECT min(g.name) FROM tiergate.gateways g WHERE g.tenant = d.name),
           coalesce(v.document, i.document, m.document), d.id IS NOT NULL, v.shared_document, c.mesh_tenant
      FROM changed c
      LEFT JOIN tiergate.tenant_documents(ARRAY(SELECT x.object_id FROM changed x WHERE x.kind = 'tenant')) d
             ON c.kind = 'tenant' AND d.id = c.object_id
      LEFT JOIN mesh m ON m.kind = c.kind AND m.id = c.object_id
      -- OFFSET makes it a lookup for each: a plan for few rows that suits many
      LEFT JOIN LATERAL (SELECT w.* FROM tiergate.tenants t, tiergate.gateway_documents(t, d.document) w
                          WHERE t.id = d.id OFFSET 0) v ON true
      LEFT JOIN LATERAL (SELECT tiergate.issuer_document(p) AS document FROM tiergate.issuers p
                          WHERE c.kind = 'issuer' AND p.id = c.object_id OFFSET 0) i ON true
     -- within a revision issuers come before the tenants that refer to them, and a
     -- deleted tenant before its successor of the same name
     ORDER BY c.revision, c.kind, c.object_id;
END
$$;

COMMENT ON FUNCTION tiergate.watch_since(bigint, integer, text[], integer[], bigint) IS
    'Changes of objects of some kinds after a revision, in its order: about max rows, each object once with its present state; op is PUT or DELETE. document is what the tenant''s own gateway gets, and shared ones too unless there is a shared_document. With numbers only mesh objects of these tenants, with node_id of agents only that';


CREATE FUNCTION tiergate.mesh_kinds()
RETURNS text[]
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT '{mesh_agent,mesh_node,mesh_tenant,mesh_workload,mesh_service}'::text[]
$$;

COMMENT ON FUNCTION tiergate.mesh_kinds() IS 'Kinds of objects that agents get';


CREATE FUNCTION tiergate.watch_feed(since bigint, most integer, gateway text DEFAULT NULL)
RETURNS TABLE (revision bigint, kind text, name text, id bigint, shared boolean,
               object_revision bigint, document text, shared_document text, mesh_tenant integer)
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    kinds text[] := '{tenant,issuer}' || tiergate.mesh_kinds();
    view  record;
    seen  integer[];
    own   bigint;
BEGIN
    IF gateway IS NOT NULL THEN
        SELECT v.kind, v.tenant_id, v.numbers INTO view FROM tiergate.watch_view(gateway) v;
        kinds := CASE view.kind WHEN 'agent' THEN tiergate.mesh_kinds() ELSE '{tenant,issuer}' END;
        seen  := view.numbers;
        own   := CASE view.kind WHEN 'agent' THEN view.tenant_id END;
    END IF;
    RETURN QUERY
    SELECT w.revision, w.kind, w.name, w.id, w.shared,
           (SELECT max(c.revision) FROM tiergate.changes c
             WHERE c.kind = w.kind AND c.object_id = w.id AND c.revision IS NOT NULL),
           w.document, w.shared_document, w.mesh_tenant
      FROM tiergate.watch_since(since, most, kinds, seen, own) w;
END
$$;

COMMENT ON FUNCTION tiergate.watch_feed(bigint, integer, text) IS
    'watch_since() of what one gateway or agent sees (null: everything), with whether shared gateways see the tenant, and how new the document is; no document is a deletion';


-- The first row has no kind: it is the registry's state.
CREATE FUNCTION tiergate.watch_read(since bigint, most integer)
RETURNS TABLE (revision bigint, kind text, name text, id bigint, shared boolean,
               object_revision bigint, document text, shared_document text, mesh_tenant integer)
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    registry tiergate.registry;
    newest   bigint;
    flooded  boolean := false;
BEGIN
    SELECT * INTO registry FROM tiergate.registry;
    SELECT greatest(max(c.revision), registry.pruned) INTO newest
      FROM tiergate.changes c WHERE c.revision IS NOT NULL;

    IF since >= 0 AND newest > since THEN
        SELECT count(*) > most INTO flooded
          FROM (SELECT FROM tiergate.changes c
                 WHERE c.revision > since AND c.kind = ANY ('{tenant,issuer}' || tiergate.mesh_kinds()) LIMIT most + 1) x;
    END IF;

    RETURN QUERY SELECT newest, NULL::text, registry.id::text, registry.pruned, flooded, NULL::bigint, NULL::text,
                        NULL::text, NULL::integer;

    IF since >= 0 AND newest > since AND NOT flooded THEN
        RETURN QUERY SELECT * FROM tiergate.watch_feed(since, most);
    END IF;
END
$$;

COMMENT ON FUNCTION tiergate.watch_read(bigint, integer) IS
    'One read of the change feed: first a row with the newest revision, the registry as name, its oldest revision as id, and as shared whether more than most changes follow; then, unless they are too many, the changes';


-- Tenants of a dedicated tier from before this migration
DO $$
BEGIN
    PERFORM tiergate.mesh_enable(t.name) FROM tiergate.tenants t
      WHERE t.tier IN (SELECT s.name FROM tiergate.tiers s WHERE s.gateway_kind = 'dedicated');
END
$$;


-- Who may do what, see 0013_security

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA tiergate, tiergate_api FROM PUBLIC;

GRANT SELECT, INSERT, UPDATE, DELETE
   ON tiergate.mesh_nodes, tiergate.mesh_tenants, tiergate.mesh_services, tiergate.mesh_endpoints,
      tiergate.mesh_workloads, tiergate.mesh_policies
   TO tiergate_admin;
GRANT SELECT ON tiergate.mesh_addresses, tiergate.mesh_hosts TO tiergate_admin, tiergate_reader;
GRANT SELECT ON tiergate.mesh_nodes TO tiergate_reader;
GRANT SELECT ON tiergate.mesh_tenants, tiergate.mesh_services, tiergate.mesh_endpoints, tiergate.mesh_workloads, tiergate.mesh_policies
   TO tiergate_reader, tiergate_tenant;
GRANT EXECUTE ON FUNCTION
    tiergate.mesh_enable(text), tiergate.is_mesh_address(inet), tiergate.are_mesh_addresses(inet[]),
    tiergate.are_mesh_nets(cidr[], cidr[]), tiergate.are_mesh_ports(jsonb), tiergate.are_mesh_numbers(jsonb, jsonb),
    tiergate.are_mesh_limits(jsonb), tiergate.mesh_health(jsonb), tiergate.hold_mesh_names(text, boolean),
    tiergate.mesh_runs(tiergate.mesh_nodes, text), tiergate.mesh_numbers(tiergate.mesh_nodes), tiergate.mesh_kinds(),
    tiergate.mesh_node_document(tiergate.mesh_nodes), tiergate.mesh_agent_document(tiergate.mesh_nodes),
    tiergate.mesh_side(text, text, text, cidr), tiergate.mesh_tenant_documents(integer[]),
    tiergate.mesh_workload_documents(bigint[]), tiergate.mesh_service_documents(bigint[]),
    tiergate.watch_view(text), tiergate.watch_list(text), tiergate.watch_since(bigint, integer, text[], integer[], bigint)
    TO tiergate_admin;
GRANT EXECUTE ON FUNCTION
    tiergate.watch_view(text), tiergate.watch_list(text), tiergate.watch_since(bigint, integer, text[], integer[], bigint),
    tiergate.watch_read(bigint, integer), tiergate.watch_feed(bigint, integer, text)
    TO tiergate_daemon;

DO $$
DECLARE
    t text;
BEGIN
    FOREACH t IN ARRAY '{mesh_tenants,mesh_services,mesh_endpoints,mesh_workloads,mesh_policies}'::text[] LOOP
        EXECUTE format('ALTER TABLE tiergate.%I ENABLE ROW LEVEL SECURITY', t);
        EXECUTE format('CREATE POLICY operators ON tiergate.%I
                            TO tiergate_admin, tiergate_quota_admin, tiergate_reader
                            USING (true) WITH CHECK (true)', t);
        EXECUTE format('COMMENT ON POLICY operators ON tiergate.%I IS ''Operators see every tenant''', t);
        EXECUTE format('CREATE POLICY own ON tiergate.%I FOR SELECT TO tiergate_tenant
                            USING (tenant IN (SELECT r.tenant FROM tiergate.tenant_roles r))', t);
        EXECUTE format('COMMENT ON POLICY own ON tiergate.%I IS ''A tenant''''s role sees its tenants''', t);
    END LOOP;
END
$$;

COMMIT;
