-- SPDX-License-Identifier: BSD-2-Clause
--
-- What flowed in the mesh, as the agents of the nodes report it: records for about
-- an hour, sums of who called whom for a week, and how much was lost on the way.
--
--   1. Records live in a ring of unlogged tables: one is written to, the oldest is
--      emptied before it is written to again.  Nothing is deleted row by row, no
--      table is made or dropped, and a flood makes the ring turn faster, not grow.
--   2. Agents send at least once, their batches one after the other; what has a
--      number that was seen is passed over.
--   3. Of a report only records count whose own side is a tenant assigned to the
--      node, and whose other side is a tenant or nobody.

BEGIN;

INSERT INTO tiergate.schema_migrations (version, name) VALUES (31, 'flows');

INSERT INTO tiergate.settings (name, value, description) VALUES
    ('flows.retention', '"1 hour"', 'How long records of flows are kept, at most 7 days'),
    ('flows.max_rows', '5000000', 'How many records of flows are kept at most; the oldest go first'),
    ('flows.edge_retention', '"7 days"', 'How long it is kept who called whom, at most 400 days'),
    ('flows.max_edges', '20000', 'How many pairs of services one tenant can have in ten minutes of the service map');

CREATE FUNCTION tiergate.check_flow_setting()
RETURNS trigger
LANGUAGE plpgsql
AS $$
DECLARE
    word  text := NEW.value #>> '{}';
    sound boolean;
BEGIN
    BEGIN
        sound := NEW.name = OLD.name AND CASE NEW.name
            WHEN 'flows.retention' THEN
                jsonb_typeof(NEW.value) = 'string' AND word::interval BETWEEN '1 second' AND '7 days'
            WHEN 'flows.edge_retention' THEN
                jsonb_typeof(NEW.value) = 'string' AND word::interval BETWEEN '1 hour' AND '400 days'
            ELSE jsonb_typeof(NEW.value) = 'number' AND word::numeric BETWEEN 100 AND 1000000000 AND word::numeric % 1 = 0 END;
    EXCEPTION WHEN data_exception THEN
        sound := false;
    END;
    IF sound IS NOT TRUE THEN
        PERFORM tiergate.refuse(422, 'invalid-setting', '/value',
            format('setting "%s" cannot be %s', NEW.name, left(NEW.value::text, 100)),
            CASE NEW.name WHEN 'flows.retention' THEN 'write an interval from "1 second" to "7 days"'
                          WHEN 'flows.edge_retention' THEN 'write an interval from "1 hour" to "400 days"'
                          ELSE 'write a whole number from 100 to 1000000000' END);
    END IF;
    RETURN NEW;
END
$$;

COMMENT ON FUNCTION tiergate.check_flow_setting() IS
    'Trigger: a setting about flows has a value that its readers can use';

CREATE TRIGGER settings_check_flows BEFORE UPDATE ON tiergate.settings
    FOR EACH ROW WHEN (OLD.name LIKE 'flows.%') EXECUTE FUNCTION tiergate.check_flow_setting();

DROP TRIGGER settings_check ON tiergate.settings;
CREATE TRIGGER settings_check BEFORE UPDATE ON tiergate.settings
    FOR EACH ROW WHEN (split_part(OLD.name, '.', 1) NOT IN ('gateways', 'mesh', 'flows'))
    EXECUTE FUNCTION tiergate.check_setting();


CREATE TABLE tiergate.flow_reasons (
    number      smallint PRIMARY KEY,
    name        text     NOT NULL UNIQUE,
    description text     NOT NULL
);

COMMENT ON TABLE  tiergate.flow_reasons             IS 'Numbers of verdicts, as in bpf/tg_mesh.h; from 64 on the call was refused';
COMMENT ON COLUMN tiergate.flow_reasons.number      IS 'Number';
COMMENT ON COLUMN tiergate.flow_reasons.name        IS 'Name';
COMMENT ON COLUMN tiergate.flow_reasons.description IS 'What it says';

INSERT INTO tiergate.flow_reasons (number, name, description) VALUES
    (0,  'NONE',                'none'),
    (1,  'OUTSIDE',             'outside the mesh'),
    (2,  'RULE',                'allowed by a policy'),
    (3,  'SAME_TENANT',         'same tenant'),
    (4,  'OTHER_TENANT',        'other tenants are allowed'),
    (5,  'FROM_OUTSIDE',        'callers from outside are allowed'),
    (6,  'FROM_HOST',           'callers of a node are allowed'),
    (7,  'REPLY',               'reply to a datagram'),
    (8,  'UNKNOWN_CGROUP',      'cgroup without workload, destination judges'),
    (9,  'CLOSED',              'connection ended'),
    (64, 'DENY_RULE',           'denied by a policy'),
    (65, 'DENY_SAME_TENANT',    'same tenant is denied by default'),
    (66, 'DENY_OTHER_TENANT',   'other tenants are denied'),
    (67, 'DENY_FROM_OUTSIDE',   'callers from outside are denied'),
    (68, 'DENY_FROM_HOST',      'callers of a node are denied'),
    (69, 'DENY_TO_SAME',        'calls within the tenant are denied'),
    (70, 'DENY_TO_OTHER',       'calls to other tenants are denied'),
    (71, 'DENY_TO_OUTSIDE',     'calls out of the mesh are denied'),
    (72, 'DENY_NO_ENDPOINT',    'service without endpoints'),
    (73, 'DENY_NO_TENANT',      'tenant not known on this node'),
    (74, 'DENY_UNKNOWN_CGROUP', 'cgroup without workload'),
    (75, 'DENY_SPOOFED',        'source address is not the workload''s'),
    (76, 'DENY_RATE',           'connections per second'),
    (77, 'DENY_OPEN',           'open connections'),
    (78, 'DENY_FULL',           'no room to keep state'),
    (79, 'DENY_FAMILY',         'endpoint of another address family'),
    (80, 'DENY_MALFORMED',      'headers cannot be read');


-- Records

CREATE SEQUENCE tiergate.flow_id;

COMMENT ON SEQUENCE tiergate.flow_id IS 'Numbers records of flows and the reports that they came with, in one row';

CREATE TABLE tiergate.flows (
    slot                smallint    NOT NULL,
    id                  bigint      NOT NULL,
    at                  timestamptz NOT NULL,
    tenant              text        NOT NULL COLLATE "C",
    type                text        NOT NULL COLLATE "C",
    side                text        NOT NULL COLLATE "C",
    protocol            text        COLLATE "C",
    source_tenant       text        COLLATE "C",
    source_service      text        COLLATE "C",
    source_address      inet,
    source_port         integer,
    destination_tenant  text        COLLATE "C",
    destination_service text        COLLATE "C",
    destination_address inet,
    destination_port    integer,
    virtual_address     inet,
    virtual_port        integer,
    reason              smallint    NOT NULL,
    policy_tenant       text        COLLATE "C",
    policy              text        COLLATE "C",
    bytes_sent          bigint,
    bytes_received      bigint,
    rtt_us              bigint,
    retransmits         bigint,
    duration_us         bigint,
    node                text        NOT NULL COLLATE "C",
    cgroup              bigint,
    cookie              bigint,
    lost                bigint      NOT NULL
) PARTITION BY LIST (slot);

COMMENT ON TABLE  tiergate.flows                     IS 'Records of the mesh, kept for setting flows.retention; not after a crash of PostgreSQL';
COMMENT ON COLUMN tiergate.flows.slot                IS 'Which table of the ring it is in';
COMMENT ON COLUMN tiergate.flows.id                  IS 'Number, rising as reports came';
COMMENT ON COLUMN tiergate.flows.at                  IS 'When it happened, by the node''s clock if that is near ours';
COMMENT ON COLUMN tiergate.flows.tenant              IS 'Tenant on whose side it was seen';
COMMENT ON COLUMN tiergate.flows.type                IS 'open (connected), accept, close, failed (nobody answered), denied';
COMMENT ON COLUMN tiergate.flows.side                IS 'Where it was seen: source or destination';
COMMENT ON COLUMN tiergate.flows.protocol            IS 'tcp, udp or a number';
COMMENT ON COLUMN tiergate.flows.source_tenant       IS 'Who called: tenant, null if outside the mesh';
COMMENT ON COLUMN tiergate.flows.source_service      IS 'Who called: service';
COMMENT ON COLUMN tiergate.flows.source_address      IS 'From where; null if refused before an address was chosen';
COMMENT ON COLUMN tiergate.flows.source_port         IS 'Port of it';
COMMENT ON COLUMN tiergate.flows.destination_tenant  IS 'Who was called: tenant, null if outside the mesh';
COMMENT ON COLUMN tiergate.flows.destination_service IS 'Who was called: service';
COMMENT ON COLUMN tiergate.flows.destination_address IS 'Where: the endpoint';
COMMENT ON COLUMN tiergate.flows.destination_port    IS 'Port of it';
COMMENT ON COLUMN tiergate.flows.virtual_address     IS 'Address of the service, if that was called';
COMMENT ON COLUMN tiergate.flows.virtual_port        IS 'Port of it';
COMMENT ON COLUMN tiergate.flows.reason              IS 'Number of the verdict, see flow_reasons';
COMMENT ON COLUMN tiergate.flows.policy_tenant       IS 'Whose policy decided';
COMMENT ON COLUMN tiergate.flows.policy              IS 'Which';
COMMENT ON COLUMN tiergate.flows.bytes_sent          IS 'Bytes that the side which saw it sent, and the other has acknowledged';
COMMENT ON COLUMN tiergate.flows.bytes_received      IS 'Bytes that it got';
COMMENT ON COLUMN tiergate.flows.rtt_us              IS 'Smoothed round trip time in microseconds';
COMMENT ON COLUMN tiergate.flows.retransmits         IS 'Segments sent again';
COMMENT ON COLUMN tiergate.flows.duration_us         IS 'How long it was open, in microseconds';
COMMENT ON COLUMN tiergate.flows.node                IS 'Node that saw it';
COMMENT ON COLUMN tiergate.flows.cgroup              IS 'Id of the workload''s cgroup there';
COMMENT ON COLUMN tiergate.flows.cookie              IS 'Number of the socket there';
COMMENT ON COLUMN tiergate.flows.lost                IS 'Records of this tenant that were left out before this one';

CREATE INDEX flows_id_idx ON tiergate.flows (id);
CREATE INDEX flows_source_idx ON tiergate.flows (source_tenant, at, id);
CREATE INDEX flows_destination_idx ON tiergate.flows (destination_tenant, at, id)
    WHERE destination_tenant IS DISTINCT FROM source_tenant;

DO $$
BEGIN
    FOR n IN 0 .. 11 LOOP
        EXECUTE format('CREATE UNLOGGED TABLE tiergate.flows_%s PARTITION OF tiergate.flows FOR VALUES IN (%s)', n, n);
        EXECUTE format('ALTER TABLE tiergate.flows_%s ENABLE ROW LEVEL SECURITY', n);
        EXECUTE format('COMMENT ON TABLE tiergate.flows_%s IS ''Part %s of the ring that flows is''', n, n);
    END LOOP;
END
$$;


CREATE TABLE tiergate.flow_ring (
    one      boolean     PRIMARY KEY DEFAULT true,
    slot     smallint    NOT NULL,
    since    timestamptz NOT NULL,
    first_id bigint      NOT NULL,
    CONSTRAINT flow_ring_one CHECK (one)
) WITH (fillfactor = 50);

COMMENT ON TABLE  tiergate.flow_ring          IS 'Which table of the ring of flows is written to';
COMMENT ON COLUMN tiergate.flow_ring.one      IS 'There is one row';
COMMENT ON CONSTRAINT flow_ring_one ON tiergate.flow_ring IS 'there is one row';
COMMENT ON COLUMN tiergate.flow_ring.slot     IS 'Its number';
COMMENT ON COLUMN tiergate.flow_ring.since    IS 'Since when';
COMMENT ON COLUMN tiergate.flow_ring.first_id IS 'Record from which on';

INSERT INTO tiergate.flow_ring (slot, since, first_id) VALUES (0, now(), 0);


CREATE TABLE tiergate.flow_reporters (
    gateway  text        NOT NULL COLLATE "C",
    boot     text        NOT NULL COLLATE "C",
    sequence bigint      NOT NULL,
    lost     bigint      NOT NULL,
    at       timestamptz NOT NULL,
    PRIMARY KEY (gateway, boot)
) WITH (fillfactor = 50);

COMMENT ON TABLE  tiergate.flow_reporters          IS 'Which report of each agent was the last';
COMMENT ON COLUMN tiergate.flow_reporters.gateway  IS 'Agent';
COMMENT ON COLUMN tiergate.flow_reporters.boot     IS 'Life of the agent';
COMMENT ON COLUMN tiergate.flow_reporters.sequence IS 'Number of its last report';
COMMENT ON COLUMN tiergate.flow_reporters.lost     IS 'Records that it had lost by then without knowing whose they were';
COMMENT ON COLUMN tiergate.flow_reporters.at       IS 'When it came';


CREATE TABLE tiergate.flow_losses (
    start   timestamptz NOT NULL,
    tenant  text        NOT NULL COLLATE "C",
    gateway text        NOT NULL COLLATE "C",
    reason  text        NOT NULL COLLATE "C",
    count   bigint      NOT NULL,
    PRIMARY KEY (start, tenant, gateway, reason)
) WITH (fillfactor = 50);

COMMENT ON TABLE  tiergate.flow_losses         IS 'Records of flows that there should be, by ten minutes';
COMMENT ON COLUMN tiergate.flow_losses.start   IS 'Begin of the ten minutes';
COMMENT ON COLUMN tiergate.flow_losses.tenant  IS 'Whose; empty where nobody knows';
COMMENT ON COLUMN tiergate.flow_losses.gateway IS 'Agent';
COMMENT ON COLUMN tiergate.flow_losses.reason  IS 'sampled (over the tenant''s rate, or its part of the agent''s queue), ring (the agent did not keep up), refused (not the node''s to report), edges (flows.max_edges: recorded, but not in the map)';
COMMENT ON COLUMN tiergate.flow_losses.count   IS 'How many';


-- No part of the key is null: nobody known is empty.
CREATE TABLE tiergate.mesh_edges (
    start               timestamptz NOT NULL,
    source_tenant       text        NOT NULL COLLATE "C",
    source_service      text        NOT NULL COLLATE "C",
    destination_tenant  text        NOT NULL COLLATE "C",
    destination_service text        NOT NULL COLLATE "C",
    connections         bigint      NOT NULL,
    failed              bigint      NOT NULL,
    denied              bigint      NOT NULL,
    bytes_sent          bigint      NOT NULL,
    bytes_received      bigint      NOT NULL,
    rtt_us              bigint      NOT NULL,
    rtt_count           bigint      NOT NULL,
    retransmits         bigint      NOT NULL,
    last_at             timestamptz NOT NULL,
    PRIMARY KEY (source_tenant, start, source_service, destination_tenant, destination_service)
) WITH (fillfactor = 50);

CREATE INDEX mesh_edges_destination_idx ON tiergate.mesh_edges (destination_tenant, start);
CREATE INDEX mesh_edges_start_idx ON tiergate.mesh_edges (start);

COMMENT ON TABLE  tiergate.mesh_edges                     IS 'Who called whom, by ten minutes; kept for setting flows.edge_retention';
COMMENT ON COLUMN tiergate.mesh_edges.start               IS 'Begin of the ten minutes';
COMMENT ON COLUMN tiergate.mesh_edges.source_tenant       IS 'Who called: tenant; empty outside the mesh';
COMMENT ON COLUMN tiergate.mesh_edges.source_service      IS 'Who called: service; empty if none is known';
COMMENT ON COLUMN tiergate.mesh_edges.destination_tenant  IS 'Who was called: tenant; empty outside the mesh';
COMMENT ON COLUMN tiergate.mesh_edges.destination_service IS 'Who was called: service; empty if none is known';
COMMENT ON COLUMN tiergate.mesh_edges.connections         IS 'Connections that were opened';
COMMENT ON COLUMN tiergate.mesh_edges.failed              IS 'Calls that nobody answered';
COMMENT ON COLUMN tiergate.mesh_edges.denied              IS 'Calls that were denied';
COMMENT ON COLUMN tiergate.mesh_edges.bytes_sent          IS 'Bytes from source to destination, of connections that were closed';
COMMENT ON COLUMN tiergate.mesh_edges.bytes_received      IS 'Bytes from destination to source';
COMMENT ON COLUMN tiergate.mesh_edges.rtt_us              IS 'Sum of smoothed round trip times, in microseconds';
COMMENT ON COLUMN tiergate.mesh_edges.rtt_count           IS 'Of how many connections';
COMMENT ON COLUMN tiergate.mesh_edges.retransmits         IS 'Segments sent again';
COMMENT ON COLUMN tiergate.mesh_edges.last_at             IS 'Last record';


CREATE FUNCTION tiergate.ten_minutes(at timestamptz)
RETURNS timestamptz
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT date_bin('10 minutes', at, '2020-01-01 00:00:00+00')
$$;

COMMENT ON FUNCTION tiergate.ten_minutes(timestamptz) IS 'Begin of the ten minutes that this is in';


-- A tenth of the retention is the longest that one table is written to, a twelfth
-- of the rows the most that it holds: there are twelve.  Where a reader is still in
-- the oldest table the ring turns a little later.
CREATE FUNCTION tiergate.turn_flow_ring(OUT slot smallint)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    ring tiergate.flow_ring;
    last bigint := (SELECT s.last_value FROM tiergate.flow_id s);
BEGIN
    SELECT * INTO STRICT ring FROM tiergate.flow_ring r;
    slot := ring.slot;
    IF clock_timestamp() - ring.since < (tiergate.setting('flows.retention') #>> '{}')::interval / 10
       AND last - ring.first_id < tiergate.setting('flows.max_rows')::bigint / 12
       OR NOT pg_try_advisory_xact_lock(hashtextextended('tiergate.flow_ring', 0)) THEN
        RETURN;
    END IF;

    SELECT * INTO STRICT ring FROM tiergate.flow_ring r;
    IF ring.slot <> slot THEN       -- another was here first
        slot := ring.slot;
        RETURN;
    END IF;
    EXECUTE format('LOCK TABLE tiergate.flows_%s IN ACCESS EXCLUSIVE MODE NOWAIT', (slot + 1) % 12);
    EXECUTE format('TRUNCATE tiergate.flows_%s', (slot + 1) % 12);
    slot := (slot + 1) % 12;
    UPDATE tiergate.flow_ring SET slot = turn_flow_ring.slot, since = clock_timestamp(), first_id = last;
EXCEPTION WHEN lock_not_available THEN
    slot := ring.slot;
END
$$;

COMMENT ON FUNCTION tiergate.turn_flow_ring() IS
    'Empties the oldest table of the ring of flows and writes to it, if it is time; returns which is written to';


-- Reports.  The columns are those of docs/reference/flows.md, in their order.

CREATE FUNCTION tiergate.is_flow_name(name text)
RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT name IS NULL OR (length(name) <= 63 AND name ~ '^[a-z0-9]([-a-z0-9._]*[a-z0-9])?$')
$$;

COMMENT ON FUNCTION tiergate.is_flow_name(text) IS 'Whether this is a name, or nobody';


CREATE FUNCTION tiergate.node_tenants(gateway text)
RETURNS text[]
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    assigned text[];
BEGIN
    SELECT n.tenants INTO assigned
      FROM tiergate.mesh_nodes n JOIN tiergate.gateways g ON g.name = 'node-' || n.name AND g.kind = 'agent'
     WHERE g.name = node_tenants.gateway;
    IF NOT FOUND THEN
        PERFORM tiergate.refuse(404, 'unknown-node', '', format('gateway "%s" is no agent of a node', left(gateway, 100)),
                                'PUT /v1/mesh/nodes/{node} makes it');
    END IF;
    RETURN assigned;
END
$$;

COMMENT ON FUNCTION tiergate.node_tenants(text) IS
    'Tenants that are assigned to the node of an agent, * for all; refuses other gateways';


-- Whether this report is new; takes note of it.  The row is the lock under which
-- two tenantd that got the same report find out.
CREATE FUNCTION tiergate.begin_flow_report(gateway text, report jsonb, OUT fresh boolean, OUT newly_lost bigint)
LANGUAGE plpgsql
AS $$
#variable_conflict use_column
DECLARE
    this   text   := report->>'boot';
    number bigint := (report->>'sequence')::bigint;
    gone   bigint := coalesce((report->>'lost')::bigint, 0);
    before tiergate.flow_reporters;
BEGIN
    IF this IS NULL OR jsonb_typeof(report->'boot') <> 'string' OR octet_length(this) NOT BETWEEN 1 AND 128 THEN
        PERFORM tiergate.refuse(422, 'invalid-report', '/boot', 'boot has 1 to 128 bytes');
    END IF;
    IF number IS NULL OR number < 1 OR gone < 0 THEN
        PERFORM tiergate.refuse(422, 'invalid-report', '/sequence', 'sequence is a number from 1, lost one from 0');
    END IF;
    IF jsonb_typeof(report->'flows') IS DISTINCT FROM 'array' OR jsonb_array_length(report->'flows') > 1000 THEN
        PERFORM tiergate.refuse(422, 'invalid-report', '/flows', 'flows is an array of at most 1000');
    END IF;

    INSERT INTO tiergate.flow_reporters AS r (gateway, boot, sequence, lost, at)
    VALUES (begin_flow_report.gateway, this, 0, 0, now())
        ON CONFLICT (gateway, boot) DO NOTHING;
    SELECT * INTO before FROM tiergate.flow_reporters r
     WHERE r.gateway = begin_flow_report.gateway AND r.boot = this FOR UPDATE;
    fresh := number > before.sequence;
    newly_lost := greatest(gone - before.lost, 0);
    IF fresh THEN
        UPDATE tiergate.flow_reporters r SET sequence = number, lost = greatest(r.lost, gone), at = now()
         WHERE r.gateway = begin_flow_report.gateway AND r.boot = this;
    END IF;
END
$$;

COMMENT ON FUNCTION tiergate.begin_flow_report(text, jsonb) IS
    'Whether a report of an agent is new, and how many records it has lost since the last; takes note of it';


CREATE FUNCTION tiergate.add_flow_loss(stamp timestamptz, tenant text, gateway text, reason text, count bigint)
RETURNS void
LANGUAGE sql
AS $$
    INSERT INTO tiergate.flow_losses AS l (start, tenant, gateway, reason, count)
    SELECT stamp, add_flow_loss.tenant, add_flow_loss.gateway, add_flow_loss.reason, add_flow_loss.count
     WHERE add_flow_loss.count > 0
        ON CONFLICT (start, tenant, gateway, reason) DO UPDATE SET count = l.count + EXCLUDED.count
$$;

COMMENT ON FUNCTION tiergate.add_flow_loss(timestamptz, text, text, text, bigint) IS 'Counts records that were lost';


-- A call is counted where it began; where that is outside the mesh, where it
-- arrived.  What was denied has happened at one place only.
CREATE FUNCTION tiergate.add_mesh_edges(first bigint, last bigint, slot smallint, gateway text)
RETURNS void
LANGUAGE plpgsql
AS $$
#variable_conflict use_column
DECLARE
    most   bigint := tiergate.setting('flows.max_edges')::bigint;
    beyond record;
BEGIN
    WITH summed AS MATERIALIZED (
        SELECT tiergate.ten_minutes(f.at) AS start,
               coalesce(f.source_tenant, '') AS st, coalesce(f.source_service, '') AS ss,
               coalesce(f.destination_tenant, '') AS dt, coalesce(f.destination_service, '') AS ds,
               min(f.tenant) AS tenant,
               count(*) FILTER (WHERE f.type = 'open' OR f.type = 'accept' AND f.source_tenant IS NULL) AS connections,
               count(*) FILTER (WHERE f.type = 'failed') AS failed,
               count(*) FILTER (WHERE f.type = 'denied') AS denied,
               coalesce(sum(CASE f.side WHEN 'source' THEN f.bytes_sent ELSE f.bytes_received END), 0)::bigint AS sent,
               coalesce(sum(CASE f.side WHEN 'source' THEN f.bytes_received ELSE f.bytes_sent END), 0)::bigint AS received,
               coalesce(sum(f.rtt_us), 0)::bigint AS rtt_us,
               count(*) FILTER (WHERE f.rtt_us > 0) AS rtt_count,
               coalesce(sum(f.retransmits), 0)::bigint AS retransmits,
               max(f.at) AS last_at
          FROM tiergate.flows f
         WHERE f.slot = add_mesh_edges.slot AND f.id BETWEEN first AND last AND f.node = substr(gateway, 6)
           AND (f.type = 'denied' OR f.side = 'source' AND f.source_tenant IS NOT NULL OR f.type = 'failed'
                OR f.side = 'destination' AND f.source_tenant IS NULL)
         GROUP BY 1, 2, 3, 4, 5
    ), known AS MATERIALIZED (
        SELECT s.*, e.start IS NOT NULL AS known
          FROM summed s
          LEFT JOIN tiergate.mesh_edges e
                 ON e.source_tenant = s.st AND e.start = s.start AND e.source_service = s.ss
                AND e.destination_tenant = s.dt AND e.destination_service = s.ds
    ), room AS (
        -- only when there is a pair that was not there
        SELECT n.tenant, n.start, most - (SELECT count(*) FROM tiergate.mesh_edges e
                                           WHERE e.start = n.start AND (e.source_tenant = n.tenant OR e.destination_tenant = n.tenant)) AS free
          FROM (SELECT DISTINCT k.tenant, k.start FROM known k WHERE NOT k.known) n
    ), taken AS MATERIALIZED (
        SELECT k.*, k.known OR row_number() OVER (PARTITION BY k.tenant, k.start, k.known ORDER BY k.ss, k.dt, k.ds) <= r.free AS fits
          FROM known k LEFT JOIN room r ON r.tenant = k.tenant AND r.start = k.start
    ), added AS (
        INSERT INTO tiergate.mesh_edges AS e
            (start, source_tenant, source_service, destination_tenant, destination_service, connections, failed, denied,
             bytes_sent, bytes_received, rtt_us, rtt_count, retransmits, last_at)
        SELECT t.start, t.st, t.ss, t.dt, t.ds, t.connections, t.failed, t.denied, t.sent, t.received, t.rtt_us, t.rtt_count,
               t.retransmits, t.last_at
          FROM taken t WHERE t.fits
         ORDER BY t.st, t.start, t.ss, t.dt, t.ds       -- in one order, for two agents may report the same pairs
            ON CONFLICT (source_tenant, start, source_service, destination_tenant, destination_service) DO UPDATE SET
               connections = e.connections + EXCLUDED.connections, failed = e.failed + EXCLUDED.failed,
               denied = e.denied + EXCLUDED.denied, bytes_sent = e.bytes_sent + EXCLUDED.bytes_sent,
               bytes_received = e.bytes_received + EXCLUDED.bytes_received, rtt_us = e.rtt_us + EXCLUDED.rtt_us,
               rtt_count = e.rtt_count + EXCLUDED.rtt_count, retransmits = e.retransmits + EXCLUDED.retransmits,
               last_at = greatest(e.last_at, EXCLUDED.last_at)
    )
    SELECT t.tenant, sum(t.connections + t.failed + t.denied)::bigint AS count INTO beyond
      FROM taken t WHERE t.fits IS NOT TRUE GROUP BY t.tenant LIMIT 1;
    IF beyond.count > 0 THEN
        PERFORM tiergate.add_flow_loss(tiergate.ten_minutes(now()), beyond.tenant, gateway, 'edges', beyond.count);
    END IF;
END
$$;

COMMENT ON FUNCTION tiergate.add_mesh_edges(bigint, bigint, smallint, text) IS
    'Adds records of a report to the sums of who called whom';


CREATE FUNCTION tiergate.record_flows(gateway text, report jsonb)
RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    assigned text[] := tiergate.node_tenants(gateway);
    stamp    timestamptz := tiergate.ten_minutes(now());
    begun    record;
    batch    bigint;
    last     bigint;
    kept     bigint;
    ring     smallint;
BEGIN
    PERFORM tiergate.relax_commit();
    SELECT * INTO begun FROM tiergate.begin_flow_report(gateway, report);
    IF NOT begun.fresh THEN
        RETURN 0;
    END IF;

    ring  := tiergate.turn_flow_ring();
    batch := nextval('tiergate.flow_id');

    WITH given AS MATERIALIZED (
        SELECT (r.value->>0)::bigint AS ms, r.value->>1 AS type,
               r.value->>2 AS side, r.value->>3 AS protocol,
               r.value->>4 AS st, r.value->>5 AS ss, (r.value->>6)::inet AS sa, (r.value->>7)::integer AS sp,
               r.value->>8 AS dt, r.value->>9 AS ds, (r.value->>10)::inet AS da, (r.value->>11)::integer AS dp,
               (r.value->>12)::inet AS va, (r.value->>13)::integer AS vp,
               (r.value->>14)::smallint AS reason, r.value->>15 AS policy_tenant, r.value->>16 AS policy,
               (r.value->>17)::bigint AS bytes_sent, (r.value->>18)::bigint AS bytes_received,
               (r.value->>19)::bigint AS rtt_us, (r.value->>20)::bigint AS retransmits,
               (r.value->>21)::bigint AS duration_us, (r.value->>22)::bigint AS cgroup,
               (r.value->>23)::bigint AS cookie, coalesce((r.value->>24)::bigint, 0) AS lost
          FROM jsonb_array_elements(report->'flows') r
    ), sided AS (
        SELECT g.*, CASE g.side WHEN 'source' THEN coalesce(g.st, g.dt) ELSE coalesce(g.dt, g.st) END AS tenant,
               CASE g.side WHEN 'source' THEN g.dt ELSE g.st END AS other
          FROM given g
    )
    INSERT INTO tiergate.flows
        (slot, id, at, tenant, type, side, protocol, source_tenant, source_service, source_address, source_port,
         destination_tenant, destination_service, destination_address, destination_port, virtual_address, virtual_port,
         reason, policy_tenant, policy, bytes_sent, bytes_received, rtt_us, retransmits, duration_us, node, cgroup,
         cookie, lost)
    SELECT ring, nextval('tiergate.flow_id'),
           -- a node's clock is believed if it is near ours
           CASE WHEN s.ms BETWEEN extract(epoch FROM now()) * 1000 - 600000 AND extract(epoch FROM now()) * 1000 + 5000
                THEN to_timestamp(s.ms / 1000.0) ELSE now() END,
           s.tenant, s.type, s.side, s.protocol, s.st, s.ss, s.sa, s.sp, s.dt, s.ds, s.da, s.dp, s.va, s.vp, s.reason,
           s.policy_tenant, s.policy, s.bytes_sent, s.bytes_received, s.rtt_us, s.retransmits, s.duration_us,
           substr(gateway, 6), s.cgroup, s.cookie, s.lost
      FROM sided s
     WHERE (s.tenant = ANY (assigned) OR assigned = '{*}')
       AND EXISTS (SELECT FROM tiergate.tenants t WHERE t.name = s.tenant)
       AND (s.other IS NULL OR s.other = s.tenant OR EXISTS (SELECT FROM tiergate.tenants t WHERE t.name = s.other))
       AND s.type IN ('open', 'accept', 'close', 'failed', 'denied') AND s.side IN ('source', 'destination')
       AND coalesce(s.protocol ~ '^([a-z]{1,8}|[0-9]{1,3})$', true)
       AND tiergate.is_flow_name(s.ss) AND tiergate.is_flow_name(s.ds)
       AND tiergate.is_flow_name(s.policy_tenant) AND tiergate.is_flow_name(s.policy)
       AND EXISTS (SELECT FROM tiergate.flow_reasons w WHERE w.number = s.reason)
       AND s.lost >= 0 AND least(s.bytes_sent, s.bytes_received, s.rtt_us, s.retransmits, s.duration_us, 0) = 0
       AND greatest(s.bytes_sent, s.bytes_received, s.rtt_us, s.retransmits, s.duration_us, s.lost) < 1000000000000000
       AND coalesce(s.sp, 0) BETWEEN 0 AND 65535 AND coalesce(s.dp, 0) BETWEEN 0 AND 65535
       AND coalesce(s.vp, 0) BETWEEN 0 AND 65535;
    GET DIAGNOSTICS kept = ROW_COUNT;

    PERFORM tiergate.add_flow_loss(stamp, '', gateway, 'ring', begun.newly_lost);
    PERFORM tiergate.add_flow_loss(stamp, '', gateway, 'refused', jsonb_array_length(report->'flows') - kept);
    IF kept = 0 THEN
        RETURN 0;
    END IF;

    last := (SELECT s.last_value FROM tiergate.flow_id s);
    PERFORM tiergate.add_flow_loss(stamp, l.tenant, gateway, 'sampled', l.lost)
       FROM (SELECT f.tenant, sum(f.lost)::bigint AS lost FROM tiergate.flows f
              WHERE f.slot = ring AND f.id BETWEEN batch AND last AND f.node = substr(gateway, 6)
              GROUP BY f.tenant ORDER BY f.tenant) l;
    PERFORM tiergate.add_mesh_edges(batch, last, ring, gateway);
    PERFORM pg_notify('tiergate_flows', format('%s %s %s', batch, last, substr(gateway, 6)));
    RETURN kept;
EXCEPTION WHEN data_exception OR not_null_violation THEN
    PERFORM tiergate.refuse(422, 'invalid-report', '/flows', 'the report has a value of another type than it should be',
                            'docs/reference/flows.md describes it');
END
$$;

COMMENT ON FUNCTION tiergate.record_flows(text, jsonb) IS
    'Keeps the records that an agent reports, once each; returns how many of them it may report';


-- What a tenant sees.  Of the other side it sees who that is; on which node, by which
-- socket and by which policy is for whose it is.

CREATE FUNCTION tiergate.flow_json(f tiergate.flows, viewer text)
RETURNS jsonb
LANGUAGE plpgsql STABLE
AS $$
BEGIN
    RETURN jsonb_strip_nulls(jsonb_build_object(
        'id', f.id, 'time', floor(extract(epoch FROM f.at) * 1000)::bigint, 'type', f.type, 'side', f.side, 'tenant', f.tenant,
        'source', jsonb_build_object('tenant', f.source_tenant, 'service', f.source_service,
                                     'address', host(f.source_address), 'port', nullif(f.source_port, 0)),
        'destination', jsonb_build_object('tenant', f.destination_tenant, 'service', f.destination_service,
                                          'address', host(f.destination_address), 'port', nullif(f.destination_port, 0)),
        'virtual', CASE WHEN f.virtual_address IS NOT NULL THEN
            jsonb_build_object('address', host(f.virtual_address), 'port', f.virtual_port) END,
        'protocol', f.protocol, 'verdict', CASE WHEN f.type = 'denied' THEN 'denied' ELSE 'allowed' END,
        'reason', (SELECT r.name FROM tiergate.flow_reasons r WHERE r.number = f.reason), 'reason_number', f.reason,
        'policy', CASE WHEN coalesce(f.policy_tenant, f.tenant) = viewer THEN f.policy END,
        'bytes_sent', f.bytes_sent, 'bytes_received', f.bytes_received, 'rtt_us', f.rtt_us, 'retransmits', f.retransmits,
        'duration_us', f.duration_us,
        'node', CASE WHEN f.tenant = viewer THEN f.node END, 'cgroup', CASE WHEN f.tenant = viewer THEN f.cgroup END,
        'cookie', CASE WHEN f.tenant = viewer THEN f.cookie END,
        'lost', CASE WHEN f.tenant = viewer THEN nullif(f.lost, 0) END));
END
$$;

COMMENT ON FUNCTION tiergate.flow_json(tiergate.flows, text) IS 'A record as the REST API shows it to a tenant';


-- One read of what has been reported, for those who follow: each record once for
-- each of these tenants that has part in it.
CREATE FUNCTION tiergate.flows_reported(first bigint[], last bigint[], nodes text[], tenants text[], most integer)
RETURNS TABLE (tenant text, id bigint, type text, source_tenant text, source_service text, destination_tenant text,
               destination_service text, port integer, virtual_port integer, reason integer, document text)
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
SET jit = off
AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    SELECT v.viewer, f.id, f.type, f.source_tenant, f.source_service, f.destination_tenant, f.destination_service,
           f.destination_port, f.virtual_port, f.reason::integer, tiergate.flow_json(f, v.viewer)::text
      FROM unnest(first, last, nodes) b (first, last, node)
     CROSS JOIN LATERAL (SELECT * FROM tiergate.flows x
                          WHERE x.id BETWEEN b.first AND b.last AND x.node = b.node
                            AND (x.source_tenant = ANY (tenants) OR x.destination_tenant = ANY (tenants))) f
     CROSS JOIN LATERAL (SELECT DISTINCT u.viewer FROM unnest(ARRAY[f.source_tenant, f.destination_tenant]) u (viewer)
                          WHERE u.viewer = ANY (tenants)) v
     ORDER BY f.id
     LIMIT most;
END
$$;

COMMENT ON FUNCTION tiergate.flows_reported(bigint[], bigint[], text[], text[], integer) IS
    'Records of these reports, as notifications of tiergate_flows name them, that these tenants have part in';


-- Query parameters

CREATE FUNCTION tiergate_api.query_ago(query jsonb, name text, fallback timestamptz)
RETURNS timestamptz
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    given text := query->>name;
    parts text[] := regexp_match(given, '^([0-9]{1,6})(s|m|h|d)$');
BEGIN
    IF parts IS NOT NULL THEN
        RETURN now() - parts[1]::integer * CASE parts[2] WHEN 's' THEN interval '1 second' WHEN 'm' THEN interval '1 minute'
                                                         WHEN 'h' THEN interval '1 hour' ELSE interval '1 day' END;
    ELSIF given IS NOT NULL AND tiergate.parse_time(given) IS NULL THEN
        PERFORM tiergate.refuse(400, 'invalid-parameter', '',
            format('query parameter %s is "%s", which is no time', name, left(given, 100)),
            'say how long ago, as in 90s, 5m, 1h, 7d, or use RFC 3339, as in 2030-01-31T12:00:00Z');
    END IF;
    RETURN tiergate_api.query_time(query, name, fallback);
END
$$;

COMMENT ON FUNCTION tiergate_api.query_ago(jsonb, text, timestamptz) IS
    'A query parameter as time: RFC 3339, or how long ago, as in 5m';


CREATE FUNCTION tiergate_api.query_one_of(query jsonb, name text, VARIADIC known text[])
RETURNS text
LANGUAGE plpgsql IMMUTABLE
AS $$
BEGIN
    IF query ? name AND query->>name <> ALL (known) THEN
        PERFORM tiergate.refuse(400, 'invalid-parameter', '', format('query parameter %s is "%s"', name, left(query->>name, 100)),
                                'known are: ' || array_to_string(known, ', '));
    END IF;
    RETURN (query->>name);
END
$$;

COMMENT ON FUNCTION tiergate_api.query_one_of(jsonb, text, text[]) IS 'A query parameter that is one of a few words';


-- SERVICE of the tenant, TENANT/SERVICE, TENANT/* or, with nothing at all, /* for
-- who is outside the mesh.
CREATE FUNCTION tiergate_api.query_party(query jsonb, name text, tenant text, OUT party_tenant text, OUT party_service text)
LANGUAGE plpgsql IMMUTABLE
AS $$
DECLARE
    given text := query->>name;
BEGIN
    IF given IS NULL THEN
        RETURN;
    ELSIF strpos(given, '/') = 0 THEN
        party_tenant  := tenant;
        party_service := given;
    ELSE
        party_tenant  := split_part(given, '/', 1);
        party_service := nullif(substr(given, strpos(given, '/') + 1), '*');
    END IF;
    IF NOT tiergate.is_flow_name(nullif(party_tenant, '')) OR NOT tiergate.is_flow_name(party_service) THEN
        PERFORM tiergate.refuse(400, 'invalid-parameter', '', format('query parameter %s is "%s"', name, left(given, 100)),
                                'write SERVICE, TENANT/SERVICE, TENANT/*, or /* for outside the mesh');
    END IF;
END
$$;

COMMENT ON FUNCTION tiergate_api.query_party(jsonb, text, text) IS
    'A query parameter that says who: tenant (empty: outside the mesh) and service (null: any); both null without it';


CREATE FUNCTION tiergate_api.query_reason(query jsonb)
RETURNS smallint
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    found smallint;
BEGIN
    IF query ? 'reason' THEN
        SELECT r.number INTO found FROM tiergate.flow_reasons r
         WHERE r.name = upper(query->>'reason') OR r.number::text = query->>'reason';
        IF found IS NULL THEN
            PERFORM tiergate.refuse(400, 'invalid-parameter', '',
                format('query parameter reason is "%s", which is no verdict', left(query->>'reason', 100)),
                'SELECT * FROM tiergate.flow_reasons');
        END IF;
    END IF;
    RETURN found;
END
$$;

COMMENT ON FUNCTION tiergate_api.query_reason(jsonb) IS 'Query parameter reason, a name or number of a verdict, as number';


CREATE FUNCTION tiergate_api.query_port(query jsonb)
RETURNS integer
LANGUAGE plpgsql IMMUTABLE
AS $$
BEGIN
    IF query->>'port' !~ '^[1-9][0-9]{0,4}$' OR (query->>'port')::integer > 65535 THEN
        PERFORM tiergate.refuse(400, 'invalid-parameter', '',
            format('query parameter port is "%s", but must be a number from 1 to 65535', left(query->>'port', 100)));
    END IF;
    RETURN (query->>'port')::integer;
END
$$;

COMMENT ON FUNCTION tiergate_api.query_port(jsonb) IS 'Query parameter port';


-- As one object, for get_flows() and for tenantd, which filters what it streams by
-- the same: a missing member passes all.
CREATE FUNCTION tiergate_api.flow_filter(tenant text, query jsonb)
RETURNS jsonb
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    source      record := tiergate_api.query_party(query, 'source', tenant);
    destination record := tiergate_api.query_party(query, 'destination', tenant);
BEGIN
    PERFORM tiergate_api.check_query(query, 'limit', 'cursor', 'since', 'until', 'source', 'destination', 'verdict', 'reason',
                                     'port', 'type', 'follow');
    RETURN jsonb_strip_nulls(jsonb_build_object(
        'source_tenant', source.party_tenant, 'source_service', source.party_service,
        'destination_tenant', destination.party_tenant, 'destination_service', destination.party_service,
        'verdict', tiergate_api.query_one_of(query, 'verdict', 'allowed', 'denied'),
        'type', tiergate_api.query_one_of(query, 'type', 'open', 'accept', 'close', 'failed', 'denied'),
        'reason', tiergate_api.query_reason(query), 'port', tiergate_api.query_port(query),
        'follow', tiergate_api.query_one_of(query, 'follow', '0', '1')));
END
$$;

COMMENT ON FUNCTION tiergate_api.flow_filter(text, jsonb) IS 'Query parameters about flows, checked';


CREATE FUNCTION tiergate.flow_passes(f tiergate.flows, filter jsonb)
RETURNS boolean
LANGUAGE sql IMMUTABLE
AS $$
    SELECT (filter->>'source_tenant' IS NULL OR coalesce(f.source_tenant, '') = filter->>'source_tenant')
       AND (filter->>'source_service' IS NULL OR coalesce(f.source_service, '') = filter->>'source_service')
       AND (filter->>'destination_tenant' IS NULL OR coalesce(f.destination_tenant, '') = filter->>'destination_tenant')
       AND (filter->>'destination_service' IS NULL OR coalesce(f.destination_service, '') = filter->>'destination_service')
       AND (filter->>'verdict' IS NULL OR (filter->>'verdict' = 'denied') = (f.type = 'denied'))
       AND (filter->>'type' IS NULL OR f.type = filter->>'type')
       AND (filter->>'reason' IS NULL OR f.reason = (filter->>'reason')::smallint)
       AND (filter->>'port' IS NULL OR (filter->>'port')::integer IN (f.destination_port, f.virtual_port))
$$;

COMMENT ON FUNCTION tiergate.flow_passes(tiergate.flows, jsonb) IS 'Whether a record is one of those that flow_filter() asks for';


CREATE FUNCTION tiergate_api.flow_cursor(query jsonb, OUT at timestamptz, OUT id bigint)
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    parts text[] := regexp_match(tiergate_api.page_after(query), '^([0-9]{1,18})-([0-9]{1,18})$');
BEGIN
    IF parts IS NULL THEN
        PERFORM tiergate.refuse(400, 'invalid-parameter', '', 'query parameter cursor is not one that was given out',
                                'take it from "next" of the page before');
    END IF;
    at := 'epoch'::timestamptz + parts[1]::bigint * interval '1 microsecond';
    id := parts[2]::bigint;
EXCEPTION WHEN datetime_field_overflow OR interval_field_overflow THEN
    PERFORM tiergate.refuse(400, 'invalid-parameter', '', 'query parameter cursor is not one that was given out',
                            'take it from "next" of the page before');
END
$$;

COMMENT ON FUNCTION tiergate_api.flow_cursor(jsonb) IS 'Record before which the page of flows begins';


CREATE FUNCTION tiergate.flow_loss(tenant text, since timestamptz)
RETURNS bigint
LANGUAGE sql STABLE
AS $$
    SELECT coalesce(sum(l.count), 0)::bigint FROM tiergate.flow_losses l
     WHERE l.start >= tiergate.ten_minutes(since)
       AND (l.tenant = flow_loss.tenant AND l.reason = 'sampled' OR l.tenant = '' AND l.reason = 'ring')
$$;

COMMENT ON FUNCTION tiergate.flow_loss(text, timestamptz) IS
    'How many records of a tenant were lost since then, with those of which nobody knows whose they were';


-- Newest first.  Two walks down the indexes: as source, and as destination of
-- somebody else.
CREATE FUNCTION tiergate_api.get_flows(path text[], query jsonb, body jsonb)
RETURNS tiergate_api.response
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    t      tiergate.tenants := tiergate.find_tenant(path[1]);
    filter jsonb       := tiergate_api.flow_filter(t.name, query);
    most   integer     := tiergate_api.page_limit(query);
    kept   timestamptz := now() - (tiergate.setting('flows.retention') #>> '{}')::interval;
    low    timestamptz := greatest(tiergate_api.query_ago(query, 'since', kept), kept);
    high   timestamptz := tiergate_api.query_ago(query, 'until', 'infinity');
    before record;
    answer tiergate_api.response;
    p      record;
BEGIN
    SELECT 'infinity'::timestamptz AS at, 9223372036854775807 AS id INTO before;
    IF query ? 'cursor' THEN
        before := tiergate_api.flow_cursor(query);
    END IF;
    SELECT array_agg(x.item) AS items, array_agg(x.key) AS keys INTO p
      FROM (SELECT tiergate.flow_json(y.f, t.name) AS item,
                   floor(extract(epoch FROM y.at) * 1000000)::bigint || '-' || y.id AS key
              FROM ((SELECT f, f.at, f.id FROM tiergate.flows f
                      WHERE f.source_tenant = t.name AND f.at >= low AND f.at < high
                        AND (f.at, f.id) < (before.at, before.id) AND tiergate.flow_passes(f, filter)
                      ORDER BY f.at DESC, f.id DESC LIMIT most + 1)
                    UNION ALL
                    (SELECT f, f.at, f.id FROM tiergate.flows f
                      WHERE f.destination_tenant = t.name AND f.destination_tenant IS DISTINCT FROM f.source_tenant
                        AND f.at >= low AND f.at < high
                        AND (f.at, f.id) < (before.at, before.id) AND tiergate.flow_passes(f, filter)
                      ORDER BY f.at DESC, f.id DESC LIMIT most + 1)) y
             ORDER BY y.at DESC, y.id DESC LIMIT most + 1) x;
    answer := tiergate_api.page(p.items, p.keys, most);
    answer.body := (answer.body::jsonb || jsonb_build_object('lost', tiergate.flow_loss(t.name, low)))::text;
    RETURN answer;
END
$$;

COMMENT ON FUNCTION tiergate_api.get_flows(text[], jsonb, jsonb) IS 'GET /v1/tenants/{tenant}/flows';


CREATE FUNCTION tiergate_api.report_flows(path text[], query jsonb, body jsonb)
RETURNS tiergate_api.response
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM tiergate_api.check_query(query);
    PERFORM tiergate.record_flows(path[1], body);
    RETURN tiergate_api.no_content();
END
$$;

COMMENT ON FUNCTION tiergate_api.report_flows(text[], jsonb, jsonb) IS 'POST /v1/gateways/{gateway}/flows';


-- The busiest pairs; who is only in others is left out with them.
CREATE FUNCTION tiergate.service_map(tenant text, since timestamptz, most integer DEFAULT 500)
RETURNS jsonb
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    low   timestamptz := tiergate.ten_minutes(since);
    edges jsonb[];
    nodes jsonb;
BEGIN
    SELECT array_agg(jsonb_build_object(
               'source', jsonb_strip_nulls(jsonb_build_object('tenant', nullif(x.st, ''), 'service', nullif(x.ss, ''))),
               'destination', jsonb_strip_nulls(jsonb_build_object('tenant', nullif(x.dt, ''), 'service', nullif(x.ds, ''))),
               'connections', x.connections, 'failed', x.failed, 'denied', x.denied, 'bytes_sent', x.sent,
               'bytes_received', x.received, 'rtt_us', x.rtt, 'retransmits', x.retransmits,
               'last', floor(extract(epoch FROM x.last) * 1000)::bigint)
               ORDER BY x.calls DESC, x.st, x.ss, x.dt, x.ds) INTO edges
      FROM (SELECT e.source_tenant AS st, e.source_service AS ss, e.destination_tenant AS dt, e.destination_service AS ds,
                   sum(e.connections)::bigint AS connections, sum(e.failed)::bigint AS failed, sum(e.denied)::bigint AS denied,
                   sum(e.bytes_sent)::bigint AS sent, sum(e.bytes_received)::bigint AS received,
                   (sum(e.rtt_us) / nullif(sum(e.rtt_count), 0))::bigint AS rtt, sum(e.retransmits)::bigint AS retransmits,
                   max(e.last_at) AS last, sum(e.connections + e.failed + e.denied) AS calls
              FROM (SELECT * FROM tiergate.mesh_edges a WHERE a.source_tenant = service_map.tenant AND a.start >= low
                    UNION ALL
                    SELECT * FROM tiergate.mesh_edges b WHERE b.destination_tenant = service_map.tenant AND b.start >= low
                       AND b.source_tenant <> service_map.tenant) e
             GROUP BY 1, 2, 3, 4
             ORDER BY calls DESC, 1, 2, 3, 4 LIMIT most + 1) x;
    SELECT coalesce(jsonb_agg(DISTINCT n.node), '[]') INTO nodes
      FROM unnest(edges[:most]) e, LATERAL (VALUES (e->'source'), (e->'destination')) n (node);
    RETURN jsonb_build_object(
        'tenant', service_map.tenant, 'since', low, 'nodes', nodes, 'edges', to_jsonb(coalesce(edges[:most], '{}')),
        'truncated', coalesce(cardinality(edges), 0) > most, 'lost', tiergate.flow_loss(service_map.tenant, low));
END
$$;

COMMENT ON FUNCTION tiergate.service_map(text, timestamptz, integer) IS
    'Who called whom since then, of a tenant: {"nodes", "edges"}, the busiest first';


CREATE FUNCTION tiergate_api.get_servicemap(path text[], query jsonb, body jsonb)
RETURNS tiergate_api.response
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM tiergate_api.check_query(query, 'since', 'format');
    PERFORM tiergate_api.query_one_of(query, 'format', 'json', 'dot', 'svg');
    RETURN tiergate_api.ok(tiergate.service_map((tiergate.find_tenant(path[1])).name,
                                                tiergate_api.query_ago(query, 'since', now() - interval '1 hour')));
END
$$;

COMMENT ON FUNCTION tiergate_api.get_servicemap(text[], jsonb, jsonb) IS 'GET /v1/tenants/{tenant}/servicemap';


-- For psql

CREATE FUNCTION tiergate.flow_party(tenant text, service text, address inet, port integer)
RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT concat_ws(' ', CASE WHEN tenant IS NULL THEN 'outside' ELSE concat_ws('/', tenant, service) END,
                     CASE WHEN address IS NULL THEN NULL
                          WHEN family(address) = 6 THEN format('[%s]:%s', host(address), port)
                          ELSE format('%s:%s', host(address), port) END)
$$;

COMMENT ON FUNCTION tiergate.flow_party(text, text, inet, integer) IS 'One side of a flow, in words';


CREATE VIEW tiergate.recent_flows WITH (security_invoker = true) AS
    SELECT f.at, f.type,
           tiergate.flow_party(f.source_tenant, f.source_service, f.source_address, f.source_port) AS source,
           tiergate.flow_party(f.destination_tenant, f.destination_service,
                               coalesce(f.virtual_address, f.destination_address),
                               coalesce(f.virtual_port, f.destination_port)) AS destination,
           f.protocol, CASE WHEN f.type = 'denied' THEN 'denied' ELSE 'allowed' END AS verdict, r.name AS reason,
           nullif(concat_ws('/', f.policy_tenant, f.policy), '') AS policy, f.bytes_sent AS sent, f.bytes_received AS received,
           round(f.rtt_us / 1000.0, 2) AS rtt_ms, f.retransmits, round(f.duration_us / 1000.0, 1) AS duration_ms,
           f.node, nullif(f.lost, 0) AS lost, f.tenant, f.source_tenant, f.source_service, f.destination_tenant,
           f.destination_service
      FROM tiergate.flows f
      LEFT JOIN tiergate.flow_reasons r ON r.number = f.reason
     WHERE f.at > now() - interval '10 minutes'
     ORDER BY f.at DESC, f.id DESC;

COMMENT ON VIEW   tiergate.recent_flows                     IS 'Flows of the last ten minutes, newest first';
COMMENT ON COLUMN tiergate.recent_flows.at                  IS 'When';
COMMENT ON COLUMN tiergate.recent_flows.type                IS 'open, accept, close, failed or denied';
COMMENT ON COLUMN tiergate.recent_flows.source              IS 'Who called, from where';
COMMENT ON COLUMN tiergate.recent_flows.destination         IS 'Who was called, at which address';
COMMENT ON COLUMN tiergate.recent_flows.protocol            IS 'tcp or udp';
COMMENT ON COLUMN tiergate.recent_flows.verdict             IS 'allowed or denied';
COMMENT ON COLUMN tiergate.recent_flows.reason              IS 'Why';
COMMENT ON COLUMN tiergate.recent_flows.policy              IS 'By which policy';
COMMENT ON COLUMN tiergate.recent_flows.sent                IS 'Bytes that the side which saw it sent';
COMMENT ON COLUMN tiergate.recent_flows.received            IS 'Bytes that it got';
COMMENT ON COLUMN tiergate.recent_flows.rtt_ms              IS 'Smoothed round trip time';
COMMENT ON COLUMN tiergate.recent_flows.retransmits         IS 'Segments sent again';
COMMENT ON COLUMN tiergate.recent_flows.duration_ms         IS 'How long it was open';
COMMENT ON COLUMN tiergate.recent_flows.node                IS 'Node that saw it';
COMMENT ON COLUMN tiergate.recent_flows.lost                IS 'Records that were left out before this one';
COMMENT ON COLUMN tiergate.recent_flows.tenant              IS 'On whose side it was seen';
COMMENT ON COLUMN tiergate.recent_flows.source_tenant       IS 'Who called: tenant';
COMMENT ON COLUMN tiergate.recent_flows.source_service      IS 'Who called: service';
COMMENT ON COLUMN tiergate.recent_flows.destination_tenant  IS 'Who was called: tenant';
COMMENT ON COLUMN tiergate.recent_flows.destination_service IS 'Who was called: service';


-- Housekeeping

ALTER FUNCTION tiergate.housekeeping() RENAME TO housekeeping_but_flows;

COMMENT ON FUNCTION tiergate.housekeeping_but_flows() IS 'Part of housekeeping(): all but flows';

CREATE FUNCTION tiergate.housekeeping()
RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM tiergate.housekeeping_but_flows();

    PERFORM tiergate.turn_flow_ring();
    DELETE FROM tiergate.mesh_edges e
     WHERE e.start < now() - (tiergate.setting('flows.edge_retention') #>> '{}')::interval;
    DELETE FROM tiergate.flow_losses l
     WHERE l.start < now() - (tiergate.setting('flows.edge_retention') #>> '{}')::interval;
    DELETE FROM tiergate.flow_reporters r WHERE r.at < now() - interval '7 days';
END
$$;

COMMENT ON FUNCTION tiergate.housekeeping() IS
    'Makes partitions ahead, and drops what has outlived its retention: usage, changes, remembered answers, API keys that expired 30 days ago, events and handovers of 30 days ago, flows';


-- Who may do what, see 0013_security

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA tiergate, tiergate_api FROM PUBLIC;

DO $$
DECLARE
    t record;
BEGIN
    FOR t IN
        SELECT * FROM (VALUES
            ('flows',       '{source_tenant,destination_tenant}'::text[]),
            ('mesh_edges',  '{source_tenant,destination_tenant}'),
            ('flow_losses', '{tenant}')
        ) AS v (tab, cols)
    LOOP
        EXECUTE format('ALTER TABLE tiergate.%I ENABLE ROW LEVEL SECURITY', t.tab);
        EXECUTE format('CREATE POLICY operators ON tiergate.%I FOR SELECT TO tiergate_admin, tiergate_reader USING (true)', t.tab);
        EXECUTE format('COMMENT ON POLICY operators ON tiergate.%I IS ''Operators see every tenant''', t.tab);
        EXECUTE format('CREATE POLICY own ON tiergate.%I FOR SELECT TO tiergate_tenant USING (%s)', t.tab,
                       (SELECT string_agg(format('%I IN (SELECT r.tenant FROM tiergate.tenant_roles r)', c), ' OR ')
                          FROM unnest(t.cols) c));
        EXECUTE format('COMMENT ON POLICY own ON tiergate.%I IS ''A tenant''''s role sees what its tenants have part in''', t.tab);
    END LOOP;
END
$$;

-- A tenant's role sees of records what both sides may know, see flow_json().
GRANT SELECT ON tiergate.flow_reasons, tiergate.mesh_edges, tiergate.flow_losses
   TO tiergate_admin, tiergate_reader, tiergate_tenant;
GRANT SELECT ON tiergate.flows, tiergate.recent_flows, tiergate.flow_reporters, tiergate.flow_ring
   TO tiergate_admin, tiergate_reader;
GRANT SELECT (id, at, tenant, type, side, protocol, source_tenant, source_service, source_address, source_port,
              destination_tenant, destination_service, destination_address, destination_port, virtual_address, virtual_port,
              reason, bytes_sent, bytes_received, rtt_us, retransmits, duration_us)
   ON tiergate.flows TO tiergate_tenant;
GRANT SELECT ON SEQUENCE tiergate.flow_id TO tiergate_admin, tiergate_reader;
GRANT EXECUTE ON FUNCTION
    tiergate.flow_party(text, text, inet, integer), tiergate.ten_minutes(timestamptz)
    TO tiergate_admin, tiergate_reader, tiergate_tenant;
GRANT EXECUTE ON FUNCTION tiergate.service_map(text, timestamptz, integer) TO tiergate_admin, tiergate_reader;
GRANT EXECUTE ON FUNCTION
    tiergate.housekeeping(), tiergate.flows_reported(bigint[], bigint[], text[], text[], integer),
    tiergate_api.report_flows(text[], jsonb, jsonb), tiergate_api.get_flows(text[], jsonb, jsonb),
    tiergate_api.get_servicemap(text[], jsonb, jsonb), tiergate_api.flow_filter(text, jsonb)
    TO tiergate_daemon;

COMMIT;
