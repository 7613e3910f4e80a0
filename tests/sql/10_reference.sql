-- SPDX-License-Identifier: BSD-2-Clause
--
-- docs/reference/sql.md names what there is.  Run in the root of the tree.

\set QUIET 1
SELECT * FROM no_plan();

\set doc `cat docs/reference/sql.md`

CREATE TEMP TABLE doc AS SELECT :'doc'::text AS text;
CREATE FUNCTION pg_temp.missing(names text[]) RETURNS text[] LANGUAGE sql AS $$
    SELECT array_agg(n) FROM unnest(names) n, doc WHERE doc.text !~ ('[`(, .]' || n || '[`(, ]')
$$;

SELECT is(pg_temp.missing(array_agg(name)), NULL, 'settings') FROM tiergate.settings;
SELECT is(pg_temp.missing(array_agg(name)), NULL, 'limits') FROM tiergate.limits;
SELECT is(pg_temp.missing(array_agg(DISTINCT slug)), NULL, 'problem types of rules') FROM tiergate.refusals;
SELECT is(pg_temp.missing(array_agg(DISTINCT 'invalid-' || replace(format, '_', '-'))), NULL, 'problem types of formats')
  FROM tiergate.body_fields WHERE format IS NOT NULL;
SELECT is(pg_temp.missing(array_agg(DISTINCT m[1])), NULL, 'problem types that functions raise')
  FROM pg_proc p, regexp_matches(p.prosrc, 'refuse\(\d+, ''([a-z-]+)''', 'g') m
 WHERE p.pronamespace IN ('tiergate'::regnamespace, 'tiergate_api'::regnamespace);
SELECT is(pg_temp.missing(array_agg(relname::text)), NULL, 'tables and views')
  FROM pg_class c WHERE relnamespace = 'tiergate'::regnamespace AND relkind IN ('r', 'p', 'v') AND NOT relispartition;
SELECT is(pg_temp.missing(array_agg(rolname::text)), NULL, 'roles') FROM pg_roles WHERE rolname LIKE 'tiergate\_%';
SELECT is(pg_temp.missing('{begin_request,remember,watch_list,watch_since,gateway_ack,record_usage,due_jwks,store_jwks,jwks_failed,housekeeping}'),
          NULL, 'what tenantd calls');

-- the first cells of the table
CREATE TEMP TABLE operators AS
SELECT DISTINCT m[1] AS name
  FROM doc, regexp_matches(split_part(split_part(doc.text, E'\n## Functions for operators\n', 2), E'\n#', 1), '^\| [^|]*', 'gn') cell,
       regexp_matches(cell[1], '`([a-z_]+)\(', 'g') m;
SELECT cmp_ok(count(*), '>', 40::bigint, 'the table of functions was read') FROM operators;
SELECT set_eq('SELECT function FROM tiergate.manual', 'SELECT name FROM operators', 'tiergate.manual has the functions for operators');
SELECT is(array_agg(function), NULL, 'and no trigger') FROM tiergate.manual WHERE returns = 'trigger' OR does IS NULL;

SELECT * FROM finish();
