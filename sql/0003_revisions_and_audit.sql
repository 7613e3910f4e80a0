-- SPDX-License-Identifier: BSD-2-Clause
--
-- How a change becomes a revision, and who did it.
--
-- 1. Whatever changes an object of the watch stream leaves one row in
--    tiergate.changes per object and transaction, at once, without a revision.
-- 2. The deferred trigger of that table runs at commit.  It takes the revision
--    lock, draws one revision for the whole transaction, and sends the one
--    notification.  The lock is held until the commit is visible, so that a
--    revision is never visible before a smaller one; and since nothing but
--    commit takes it, a session that sits in an open transaction delays nobody.
-- 3. The newest row of each object is kept for ever: it says which revision the
--    object has.  Older rows and those of deleted objects go when they are older
--    than the setting changes.retention.
-- 4. Nothing here may write to a row that other transactions lock: at commit,
--    under the lock, there must be nothing to wait for.
-- 5. Sequential scans are off wherever a plan is made here: a session keeps the
--    plan that it made while a table was small.
--    So is compilation: a scan that cannot be avoided then counts as immensely
--    expensive, and would be compiled each time.

BEGIN;

INSERT INTO tiergate.schema_migrations (version, name) VALUES (3, 'revisions_and_audit');

CREATE SEQUENCE tiergate.revision;

COMMENT ON SEQUENCE tiergate.revision IS
    'Revisions; drawn under the revision lock only, by tiergate.assign_revision';


CREATE TABLE tiergate.changes (
    revision  bigint,
    kind      text        NOT NULL COLLATE "C",
    object_id bigint      NOT NULL,
    name      text        NOT NULL COLLATE "C",
    xid       xid8        NOT NULL DEFAULT pg_current_xact_id(),
    at        timestamptz NOT NULL DEFAULT clock_timestamp()
);

CREATE UNIQUE INDEX changes_revision ON tiergate.changes (revision, kind, object_id)
    WHERE revision IS NOT NULL;
CREATE UNIQUE INDEX changes_object ON tiergate.changes (kind, object_id, revision)
    WHERE revision IS NOT NULL;
CREATE UNIQUE INDEX changes_pending ON tiergate.changes (xid, kind, object_id)
    WHERE revision IS NULL;

COMMENT ON TABLE  tiergate.changes           IS 'Which object changed at which revision';
COMMENT ON COLUMN tiergate.changes.revision  IS 'Revision; null only inside the transaction that makes the change';
COMMENT ON COLUMN tiergate.changes.kind      IS 'tenant, issuer (of the platform) or tenant_issuer (a tenant''s own; not on the stream)';
COMMENT ON COLUMN tiergate.changes.object_id IS 'Its id';
COMMENT ON COLUMN tiergate.changes.name      IS 'Its name';
COMMENT ON COLUMN tiergate.changes.xid       IS 'Transaction, as in the audit';
COMMENT ON COLUMN tiergate.changes.at        IS 'When it was committed';


CREATE FUNCTION tiergate.lock_revision()
RETURNS void
LANGUAGE sql
AS $$
    SELECT pg_advisory_xact_lock(8388342690480383076)   -- "tiergate"
$$;

COMMENT ON FUNCTION tiergate.lock_revision() IS
    'Takes the lock under which revisions are drawn, until the transaction ends';


CREATE FUNCTION tiergate.assign_revision()
RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
SET jit = off
AS $$
DECLARE
    drawn bigint;
BEGIN
    -- the first row's turn has served the others of the transaction
    IF NOT EXISTS (SELECT FROM tiergate.changes
                    WHERE xid = NEW.xid AND kind = NEW.kind AND object_id = NEW.object_id
                      AND revision IS NULL) THEN
        RETURN NULL;
    END IF;

    PERFORM tiergate.lock_revision();

    drawn := nextval('tiergate.revision');
    UPDATE tiergate.changes
       SET revision = drawn, at = clock_timestamp()
     WHERE xid = NEW.xid AND revision IS NULL;

    PERFORM pg_notify('tiergate_changes', '');
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION tiergate.assign_revision() IS
    'Trigger: draws the revision of the transaction at commit';

CREATE CONSTRAINT TRIGGER changes_assign_revision
    AFTER INSERT ON tiergate.changes
    DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION tiergate.assign_revision();


CREATE FUNCTION tiergate.revision_of(kind text, object_id bigint)
RETURNS bigint
LANGUAGE plpgsql STABLE
SET enable_seqscan = off
SET jit = off
AS $$
BEGIN
    RETURN (SELECT max(c.revision) FROM tiergate.changes c
             WHERE c.kind = revision_of.kind AND c.object_id = revision_of.object_id
               AND c.revision IS NOT NULL);
END
$$;

COMMENT ON FUNCTION tiergate.revision_of(text, bigint) IS 'Newest revision of an object';


CREATE FUNCTION tiergate.mark_changed()
RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
SET jit = off
AS $$
BEGIN
    -- when the tenant itself was deleted there is none to mark, it has marked itself
    INSERT INTO tiergate.changes (kind, object_id, name)
    SELECT 'tenant', t.id, t.name FROM tiergate.tenants t WHERE t.name = OLD.tenant
        ON CONFLICT DO NOTHING;
    IF TG_OP = 'UPDATE' AND NEW.tenant <> OLD.tenant THEN
        INSERT INTO tiergate.changes (kind, object_id, name)
        SELECT 'tenant', t.id, t.name FROM tiergate.tenants t WHERE t.name = NEW.tenant
            ON CONFLICT DO NOTHING;
    END IF;
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION tiergate.mark_changed() IS
    'Trigger: a row that a tenant owns was updated or deleted, so the tenant changed';


CREATE FUNCTION tiergate.mark_tenant_changed()
RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
SET jit = off
AS $$
BEGIN
    INSERT INTO tiergate.changes (kind, object_id, name)
    VALUES ('tenant', OLD.id, OLD.name)
        ON CONFLICT DO NOTHING;
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION tiergate.mark_tenant_changed() IS 'Trigger: a tenant was updated or deleted';


CREATE FUNCTION tiergate.mark_issuer_changed()
RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
SET jit = off
AS $$
BEGIN
    INSERT INTO tiergate.changes (kind, object_id, name)
    SELECT CASE WHEN OLD.tenant IS NULL THEN 'issuer' ELSE 'tenant_issuer' END, OLD.id, OLD.name
    UNION ALL
    SELECT 'tenant', t.id, t.name FROM tiergate.tenants t WHERE t.name = OLD.tenant
        ON CONFLICT DO NOTHING;
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION tiergate.mark_issuer_changed() IS 'Trigger: an issuer was updated or deleted';


-- Audit

CREATE TABLE tiergate.audit (
    id         bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at         timestamptz NOT NULL DEFAULT now(),
    db_role    text        NOT NULL,
    actor      text,
    request_id text,
    action     text        NOT NULL,
    object     text        NOT NULL,
    tenant     text        COLLATE "C",
    name       text,
    old        jsonb,
    new        jsonb,
    xid        xid8        NOT NULL DEFAULT pg_current_xact_id()
);

CREATE INDEX audit_tenant ON tiergate.audit (tenant, id);

COMMENT ON TABLE  tiergate.audit            IS 'Who changed what, when, from what to what; written by triggers only, never changed';
COMMENT ON COLUMN tiergate.audit.id         IS 'Number of the entry';
COMMENT ON COLUMN tiergate.audit.at         IS 'When the transaction began';
COMMENT ON COLUMN tiergate.audit.db_role    IS 'Database login; "login as role" after SET ROLE';
COMMENT ON COLUMN tiergate.audit.actor      IS 'Credential of the REST call, as tenantd vouches for it; null for psql';
COMMENT ON COLUMN tiergate.audit.request_id IS 'Id of the REST call';
COMMENT ON COLUMN tiergate.audit.action     IS 'insert, update or delete';
COMMENT ON COLUMN tiergate.audit.object     IS 'Table';
COMMENT ON COLUMN tiergate.audit.tenant     IS 'Tenant that it concerns';
COMMENT ON COLUMN tiergate.audit.name       IS 'Which row';
COMMENT ON COLUMN tiergate.audit.old        IS 'Old values: of the changed columns, or of the deleted row; secrets are left out';
COMMENT ON COLUMN tiergate.audit.new        IS 'New values: of the changed columns, or of the new row; secrets are left out';
COMMENT ON COLUMN tiergate.audit.xid        IS 'Transaction, as in changes';


-- Anyone may set a variable, but only tenantd's role is believed about it.
CREATE FUNCTION tiergate.current_actor()
RETURNS text
LANGUAGE sql STABLE
AS $$
    SELECT CASE WHEN current_setting('tiergate.actor', true) <> ''
                 AND pg_has_role(session_user, 'tiergate_daemon', 'MEMBER')
                THEN current_setting('tiergate.actor') END
$$;

COMMENT ON FUNCTION tiergate.current_actor() IS
    'Credential of the REST call that this transaction serves; null in psql';


CREATE FUNCTION tiergate.current_db_role()
RETURNS text
LANGUAGE sql STABLE
AS $$
    SELECT session_user || CASE WHEN current_setting('role') IN ('none', session_user) THEN ''
                                ELSE ' as ' || current_setting('role') END
$$;

COMMENT ON FUNCTION tiergate.current_db_role() IS
    'Database login, and the role it has set';


CREATE FUNCTION tiergate.current_request_ids()
RETURNS jsonb
LANGUAGE sql STABLE
AS $$
    SELECT nullif(current_setting('tiergate.request_ids', true), '')::jsonb
$$;

COMMENT ON FUNCTION tiergate.current_request_ids() IS
    'Ids of the REST calls that this transaction serves, by the name of the tenant that each creates; null if it serves one call';


CREATE FUNCTION tiergate.redact_keys(keys jsonb)
RETURNS jsonb
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT coalesce(jsonb_agg(k.value - '{k,k_sealed,d,p,q,dp,dq,qi,oth}'::text[] ORDER BY k.ordinality),
                    '[]')
      FROM jsonb_array_elements(CASE jsonb_typeof(keys) WHEN 'array' THEN keys ELSE '[]' END)
           WITH ORDINALITY k
$$;

COMMENT ON FUNCTION tiergate.redact_keys(jsonb) IS
    'JSON Web Keys without their secret members, sealed or not';


CREATE FUNCTION tiergate.redact(object text, record jsonb)
RETURNS jsonb
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT CASE object
        WHEN 'api_keys'   THEN record - 'sha256'
        WHEN 'api_tokens' THEN record - '{token_sha256,certificate_sha256}'::text[]
        WHEN 'issuers'    THEN CASE WHEN record ? 'keys'
            THEN jsonb_set(record, '{keys}', tiergate.redact_keys(record->'keys')) ELSE record END
        ELSE record END
$$;

COMMENT ON FUNCTION tiergate.redact(text, jsonb) IS
    'A row of the named table without its secrets';


-- Arguments of the audit triggers: the column with the tenant ('' for none), then
-- the columns that name the row.
CREATE FUNCTION tiergate.audit_inserted()
RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    INSERT INTO tiergate.audit (db_role, actor, request_id, action, object, tenant, name, new)
    SELECT tiergate.current_db_role(), tiergate.current_actor(),
           nullif(current_setting('tiergate.request_id', true), ''), 'insert', TG_TABLE_NAME, j.record->>TG_ARGV[0],
           concat_ws('/', j.record->>TG_ARGV[1], j.record->>TG_ARGV[2], j.record->>TG_ARGV[3]),
           tiergate.redact(TG_TABLE_NAME, j.record)
      -- OFFSET keeps the planner from converting the row once for each column
      FROM (SELECT jsonb_strip_nulls(to_jsonb(n)) AS record FROM new_rows n OFFSET 0) j;
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION tiergate.audit_inserted() IS
    'Trigger: writes the audit of rows that were inserted into a table of the platform';


CREATE FUNCTION tiergate.audit_changed()
RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    before jsonb := to_jsonb(OLD);
    after  jsonb;
    was    jsonb;
BEGIN
    IF TG_OP = 'UPDATE' THEN
        SELECT jsonb_object_agg(n.key, n.value), jsonb_object_agg(n.key, before->n.key)
          INTO after, was
          FROM jsonb_each(to_jsonb(NEW)) n
         WHERE n.value IS DISTINCT FROM before->n.key;
    ELSE
        was := jsonb_strip_nulls(before);
    END IF;

    INSERT INTO tiergate.audit (db_role, actor, request_id, action, object, tenant, name, old, new)
    VALUES (tiergate.current_db_role(), tiergate.current_actor(),
            nullif(current_setting('tiergate.request_id', true), ''),
            lower(TG_OP), TG_TABLE_NAME, before->>TG_ARGV[0],
            concat_ws('/', before->>TG_ARGV[1], before->>TG_ARGV[2], before->>TG_ARGV[3]),
            tiergate.redact(TG_TABLE_NAME, was), tiergate.redact(TG_TABLE_NAME, after));
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION tiergate.audit_changed() IS
    'Trigger: writes the audit of an updated or deleted row';


CREATE FUNCTION tiergate.keep_audit()
RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
    -- only who owns the table has the privilege to delete at all: this keeps
    -- its owner from doing so by mistake
    IF TG_OP = 'DELETE' AND current_setting('tiergate.pruning', true) = 'audit' THEN
        RETURN NULL;
    END IF;
    PERFORM tiergate.refuse(403, 'audit-immutable', '', 'audit rows are never changed or deleted',
                            'setting audit.retention drops old ones; so may the owner of the registry, with tiergate.prune_audit()');
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION tiergate.keep_audit() IS 'Trigger: refuses to change the audit';

CREATE TRIGGER audit_keep
    BEFORE UPDATE OR DELETE OR TRUNCATE ON tiergate.audit
    FOR EACH STATEMENT EXECUTE FUNCTION tiergate.keep_audit();


CREATE PROCEDURE tiergate.prune_audit(before timestamptz)
LANGUAGE plpgsql
SET tiergate.pruning = 'audit'
AS $$
BEGIN
    DELETE FROM tiergate.audit WHERE at < prune_audit.before;
END
$$;

COMMENT ON PROCEDURE tiergate.prune_audit(timestamptz) IS
    'Removes audit rows from before the given time; for the owner of the registry only, since it must own the table';


CREATE FUNCTION tiergate.keep_rows()
RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
    PERFORM tiergate.refuse(403, 'truncate-refused', '',
                            format('TRUNCATE of %I would be neither audited nor sent to gateways', TG_TABLE_NAME),
                            'use DELETE');
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION tiergate.keep_rows() IS 'Trigger: refuses TRUNCATE';


-- Inserts come in bulk, and most of them when a tenant is created, so each table
-- has one function that does with one statement all that follows from a
-- statement's new rows: the audit, the mark that the tenant has changed, and the
-- limit of how much a tenant may hold.  Two transactions that cannot see each
-- other could together pass a limit, so from half of it on they take turns.
DO $$
DECLARE
    t     record;
    owned text := $m$SELECT 'tenant', t.id, t.name FROM (SELECT DISTINCT o.tenant FROM owners o) o
                       JOIN tiergate.tenants t ON t.name = o.tenant$m$;
BEGIN
    FOR t IN
        SELECT * FROM (VALUES
            ('hosts',     'n.host',                                        'hosts_per_tenant',       '{tenant}', owned, ''),
            ('consumers', 'n.name',                                        'consumers_per_tenant',   '{tenant}', owned, ''),
            ('api_keys',  'n.id::text',                                    'api_keys_per_tenant',    '{tenant}', owned, ''),
            ('upstreams', 'n.name',                                        'upstreams_per_tenant',   '{tenant}', owned, ''),
            ('endpoints', 'n.upstream || ''/'' || host(n.address) || '':'' || n.port',
                                                                           'endpoints_per_upstream', '{tenant,upstream}', owned, ''),
            ('routes',    'n.name',                                        'routes_per_tenant',      '{tenant}', owned, ''),
            ('quotas',    'n.name',                                        'quotas_per_tenant',      '{tenant}', owned, 'holds_per_request'),
            ('issuers',   'n.name',                                        'issuers_per_tenant',     '{tenant}', owned || $m$
                 UNION ALL
                SELECT CASE WHEN n.tenant IS NULL THEN 'issuer' ELSE 'tenant_issuer' END, n.id, n.name
                  FROM new_rows n WHERE n.ref IS NULL$m$, '')
        ) AS v (tab, label, lim, owner, marks, meet)
    LOOP
        EXECUTE format($f$
            CREATE FUNCTION tiergate.%1$s_inserted()
            RETURNS trigger
            LANGUAGE plpgsql SECURITY DEFINER
            SET search_path = pg_catalog, pg_temp
            SET enable_seqscan = off
            SET jit = off
            AS $body$
            DECLARE
                full_ones text[];
                one       record;
            BEGIN
                WITH audited AS (
                    INSERT INTO tiergate.audit (db_role, actor, request_id, action, object, tenant, name, new)
                    SELECT (SELECT tiergate.current_db_role()), (SELECT tiergate.current_actor()),
                           coalesce((SELECT tiergate.current_request_ids()) ->> n.tenant,
                                    (SELECT nullif(current_setting('tiergate.request_id', true), ''))),
                           'insert', '%1$s', n.tenant, %2$s,
                           tiergate.redact('%1$s', jsonb_strip_nulls(to_jsonb(n)))
                      FROM new_rows n
                ), owners AS MATERIALIZED (
                    SELECT DISTINCT %4$s FROM new_rows n WHERE n.tenant IS NOT NULL
                ), marked AS (
                    INSERT INTO tiergate.changes (kind, object_id, name)
                    %6$s
                        ON CONFLICT DO NOTHING
                )
                SELECT array_agg(o.tenant) INTO full_ones
                  FROM owners o
                 WHERE (SELECT count(*) FROM tiergate.%1$s x WHERE %5$s)
                       > (SELECT min(CASE l.name WHEN %3$L THEN l.value / 2 ELSE l.value END)
                            FROM tiergate.limits l WHERE l.name IN (%3$L, %8$L));

                IF full_ones IS NOT NULL THEN
                    FOR one IN SELECT DISTINCT %4$s FROM new_rows n WHERE n.tenant = ANY (full_ones) LOOP
                        PERFORM tiergate.hold_limit(%3$L, one::text);
                        PERFORM tiergate.refuse_excess(%3$L,
                            (SELECT count(*) FROM tiergate.%1$s x WHERE %7$s));
                        IF %8$L <> '' THEN
                            PERFORM tiergate.refuse_crowd(one.tenant);
                        END IF;
                    END LOOP;
                END IF;
                RETURN NULL;
            END
            $body$
            $f$, t.tab, t.label, t.lim,
                 (SELECT string_agg('n.' || c, ', ') FROM unnest(t.owner::text[]) c),
                 (SELECT string_agg(format('x.%1$s = o.%1$s', c), ' AND ') FROM unnest(t.owner::text[]) c),
                 t.marks,
                 (SELECT string_agg(format('x.%1$s = one.%1$s', c), ' AND ') FROM unnest(t.owner::text[]) c),
                 t.meet);
        EXECUTE format('COMMENT ON FUNCTION tiergate.%s_inserted() IS %L', t.tab,
                       'Trigger: audits new rows, marks their tenants as changed, and holds them to limit ' || t.lim);
        EXECUTE format(
            'CREATE TRIGGER %1$s_inserted AFTER INSERT ON tiergate.%1$s REFERENCING NEW TABLE AS new_rows
             FOR EACH STATEMENT EXECUTE FUNCTION tiergate.%1$s_inserted()', t.tab);
    END LOOP;
END
$$;


CREATE FUNCTION tiergate.tenants_inserted()
RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
SET jit = off
AS $$
BEGIN
    WITH audited AS (
        INSERT INTO tiergate.audit (db_role, actor, request_id, action, object, tenant, name, new)
        SELECT (SELECT tiergate.current_db_role()), (SELECT tiergate.current_actor()),
               coalesce((SELECT tiergate.current_request_ids()) ->> n.name,
                        (SELECT nullif(current_setting('tiergate.request_id', true), ''))),
               'insert', 'tenants', n.name, n.name,
               jsonb_strip_nulls(to_jsonb(n))
          FROM new_rows n
    )
    INSERT INTO tiergate.changes (kind, object_id, name)
    SELECT 'tenant', n.id, n.name FROM new_rows n
        ON CONFLICT DO NOTHING;
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION tiergate.tenants_inserted() IS 'Trigger: audits new tenants and marks them as changed';

CREATE TRIGGER tenants_inserted AFTER INSERT ON tiergate.tenants REFERENCING NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION tiergate.tenants_inserted();


CREATE FUNCTION tiergate.hold_limit(name text, owner text)
RETURNS void
LANGUAGE sql
AS $$
    SELECT pg_advisory_xact_lock(hashtextextended(name || owner, 0))
$$;

COMMENT ON FUNCTION tiergate.hold_limit(text, text) IS
    'Waits for other transactions that come near the same limit of the same owner';


CREATE FUNCTION tiergate.refuse_excess(name text, held bigint)
RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
    most bigint := (SELECT l.value FROM tiergate.limits l WHERE l.name = refuse_excess.name);
BEGIN
    IF held > most THEN
        PERFORM tiergate.refuse(422, 'limit-exceeded', '',
            format('%s are more than the limit %s = %s allows', held, name, most),
            'remove some, or raise the limit in tiergate.limits');
    END IF;
END
$$;

COMMENT ON FUNCTION tiergate.refuse_excess(text, bigint) IS 'Refuses what is more than a limit';


-- A gateway has room for so many decisions in one request.  Quotas of the tenant
-- and of a route meet in a request of that route, those of each consumer
-- included; of quotas for one consumer by name, those of one consumer do.
CREATE FUNCTION tiergate.refuse_crowd(tenant text)
RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
    crowd record;
BEGIN
    WITH q AS MATERIALIZED (
        SELECT x.route, nullif(x.consumer, '*') AS consumer, x.metric = 'concurrency' AS holds
          FROM tiergate.quotas x WHERE x.tenant = refuse_crowd.tenant
    ), met AS (
        SELECT r.route, q.consumer, count(*) AS n, count(*) FILTER (WHERE q.holds) AS holds
          FROM (SELECT DISTINCT route FROM q) r
          JOIN q ON q.route IS NULL OR q.route = r.route
         GROUP BY r.route, q.consumer
    )
    SELECT m.route,
           coalesce(sum(m.n) FILTER (WHERE m.consumer IS NULL), 0)
               + coalesce(max(m.n) FILTER (WHERE m.consumer IS NOT NULL), 0) AS quotas,
           coalesce(sum(m.holds) FILTER (WHERE m.consumer IS NULL), 0)
               + coalesce(max(m.holds) FILTER (WHERE m.consumer IS NOT NULL), 0) AS holds
      INTO crowd
      FROM met m
     GROUP BY m.route
     ORDER BY 2 DESC, 3 DESC LIMIT 1;

    PERFORM tiergate.refuse_excess('quotas_per_request', crowd.quotas::bigint);
    PERFORM tiergate.refuse_excess('holds_per_request', crowd.holds::bigint);
END
$$;

COMMENT ON FUNCTION tiergate.refuse_crowd(text) IS
    'Refuses more quotas of a tenant than can be decided in one request';


CREATE FUNCTION tiergate.quota_moved()
RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
    PERFORM tiergate.refuse_crowd(NEW.tenant);
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION tiergate.quota_moved() IS 'Trigger: a quota counts something else than before';

CREATE TRIGGER quotas_moved AFTER UPDATE OF tenant, route, consumer, metric ON tiergate.quotas
    FOR EACH ROW WHEN ((OLD.tenant, OLD.route, OLD.consumer, OLD.metric)
                       IS DISTINCT FROM (NEW.tenant, NEW.route, NEW.consumer, NEW.metric))
    EXECUTE FUNCTION tiergate.quota_moved();


-- Updates and deletes are audited and marked row by row.
DO $$
DECLARE
    t record;
BEGIN
    FOR t IN
        SELECT * FROM (VALUES
            ('tenants',    'name',   '{name}',                  'mark_tenant_changed'),
            ('hosts',      'tenant', '{host}',                  'mark_changed'),
            ('issuers',    'tenant', '{name}',                  'mark_issuer_changed'),
            ('consumers',  'tenant', '{name}',                  'mark_changed'),
            ('api_keys',   'tenant', '{id}',                    'mark_changed'),
            ('upstreams',  'tenant', '{name}',                  'mark_changed'),
            ('endpoints',  'tenant', '{upstream,address,port}', 'mark_changed'),
            ('routes',     'tenant', '{name}',                  'mark_changed'),
            ('quotas',     'tenant', '{name}',                  'mark_changed'),
            ('api_tokens', 'tenant', '{name}',                  NULL),
            ('tiers',      '',       '{name}',                  NULL),
            ('settings',   '',       '{name}',                  NULL),
            ('limits',     '',       '{name}',                  NULL)
        ) AS v (tab, tenant, label, mark)
    LOOP
        EXECUTE format(
            'CREATE TRIGGER %I AFTER UPDATE ON tiergate.%I
             FOR EACH ROW WHEN (OLD.* IS DISTINCT FROM NEW.*) EXECUTE FUNCTION tiergate.audit_changed(%L, %s)',
            t.tab || '_audit_update', t.tab, t.tenant,
            (SELECT string_agg(quote_literal(l), ', ') FROM unnest(t.label::text[]) l));
        EXECUTE format(
            'CREATE TRIGGER %I AFTER DELETE ON tiergate.%I
             FOR EACH ROW EXECUTE FUNCTION tiergate.audit_changed(%L, %s)',
            t.tab || '_audit_delete', t.tab, t.tenant,
            (SELECT string_agg(quote_literal(l), ', ') FROM unnest(t.label::text[]) l));
        EXECUTE format(
            'CREATE TRIGGER %I BEFORE TRUNCATE ON tiergate.%I
             FOR EACH STATEMENT EXECUTE FUNCTION tiergate.keep_rows()',
            t.tab || '_keep', t.tab);
        IF t.mark IS NULL THEN
            EXECUTE format(
                'CREATE TRIGGER %I AFTER INSERT ON tiergate.%I REFERENCING NEW TABLE AS new_rows
                 FOR EACH STATEMENT EXECUTE FUNCTION tiergate.audit_inserted(%L, %s)',
                t.tab || '_audit_insert', t.tab, t.tenant,
                (SELECT string_agg(quote_literal(l), ', ') FROM unnest(t.label::text[]) l));
        ELSE
            EXECUTE format(
                'CREATE TRIGGER %I AFTER UPDATE ON tiergate.%I
                 FOR EACH ROW WHEN (OLD.* IS DISTINCT FROM NEW.*) EXECUTE FUNCTION tiergate.%I()',
                t.tab || '_mark_update', t.tab, t.mark);
            EXECUTE format(
                'CREATE TRIGGER %I AFTER DELETE ON tiergate.%I
                 FOR EACH ROW EXECUTE FUNCTION tiergate.%I()',
                t.tab || '_mark_delete', t.tab, t.mark);
        END IF;
    END LOOP;
END
$$;

-- What a gateway reports is not a change; what an operator says about it is.
CREATE TRIGGER gateways_audit_insert AFTER INSERT ON tiergate.gateways REFERENCING NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION tiergate.audit_inserted('tenant', 'name');
CREATE TRIGGER gateways_audit_update AFTER UPDATE OF name, kind, tenant ON tiergate.gateways
    FOR EACH ROW WHEN ((OLD.name, OLD.kind, OLD.tenant) IS DISTINCT FROM (NEW.name, NEW.kind, NEW.tenant))
    EXECUTE FUNCTION tiergate.audit_changed('tenant', 'name');
CREATE TRIGGER gateways_audit_delete AFTER DELETE ON tiergate.gateways
    FOR EACH ROW EXECUTE FUNCTION tiergate.audit_changed('tenant', 'name');
CREATE TRIGGER gateways_keep BEFORE TRUNCATE ON tiergate.gateways
    FOR EACH STATEMENT EXECUTE FUNCTION tiergate.keep_rows();

COMMIT;
