-- SPDX-License-Identifier: BSD-2-Clause
--
-- \df+ tiergate.* and \d+ are the manual, and nothing is open to everybody.

\set QUIET 1
SELECT * FROM no_plan();

SELECT is(array_agg(p.oid::regprocedure::text), NULL, 'each function has a comment')
  FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
 WHERE n.nspname IN ('tiergate', 'tiergate_api') AND obj_description(p.oid, 'pg_proc') IS NULL;

SELECT is(array_agg(c.oid::regclass::text), NULL, 'each table, view and type has a comment')
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE n.nspname IN ('tiergate', 'tiergate_api') AND c.relkind IN ('r', 'p', 'v', 'c')
   AND obj_description(c.oid, 'pg_class') IS NULL
   AND (c.relkind <> 'c' OR obj_description(c.reltype, 'pg_type') IS NULL);

SELECT is(array_agg(format('%s.%s', c.relname, a.attname)), NULL, 'each column of a table or view has a comment')
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
  JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
 WHERE n.nspname = 'tiergate' AND c.relkind IN ('r', 'p', 'v') AND NOT c.relispartition
   AND col_description(c.oid, a.attnum) IS NULL;

SELECT is(array_agg(conname), NULL, 'each check constraint has a comment, which REST callers read')
  FROM pg_constraint k JOIN pg_namespace n ON n.oid = k.connamespace
 WHERE n.nspname = 'tiergate' AND k.contype = 'c' AND obj_description(k.oid, 'pg_constraint') IS NULL
   AND k.conrelid <> 0 AND k.conrelid <> 'tiergate.body_fields'::regclass;

SELECT is(array_agg(p.oid::regprocedure::text), NULL, 'each SECURITY DEFINER function sets its search_path')
  FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
 WHERE n.nspname IN ('tiergate', 'tiergate_api') AND p.prosecdef
   AND NOT coalesce(array_to_string(p.proconfig, ',') LIKE '%search_path=pg_catalog, pg_temp%', false);

SELECT is(array_agg(p.oid::regprocedure::text), NULL, 'no function is open to PUBLIC')
  FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
 WHERE n.nspname IN ('tiergate', 'tiergate_api')
   AND (p.proacl IS NULL OR EXISTS (SELECT FROM aclexplode(p.proacl) a WHERE a.grantee = 0));

SELECT is(array_agg(c.oid::regclass::text), NULL, 'no table is open to PUBLIC')
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE n.nspname IN ('tiergate', 'tiergate_api') AND EXISTS (SELECT FROM aclexplode(c.relacl) a WHERE a.grantee = 0);

SELECT is(array_agg(c.relname), NULL, 'each table with a tenant column has row security')
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
  JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'tenant'
 WHERE n.nspname = 'tiergate' AND c.relkind IN ('r', 'p') AND NOT c.relispartition AND NOT c.relrowsecurity
   -- these are granted to no tenant's role
   AND c.relname NOT IN ('gateways', 'api_tokens', 'usage_counters');

SELECT is((SELECT array_agg(version ORDER BY version) FROM tiergate.schema_migrations WHERE version <= 13),
          '{1,2,3,4,5,6,7,8,9,10,11,12,13}', 'each migration has recorded itself');

SELECT is(array_agg(r.name), NULL, 'each refusal stands for a constraint, a unique index, or a rule of a trigger')
  FROM tiergate.refusals r
 WHERE NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conname = r.name)
   AND NOT EXISTS (SELECT FROM pg_class c WHERE c.relname = r.name AND c.relkind = 'i')
   AND NOT EXISTS (SELECT FROM pg_proc p WHERE p.pronamespace = 'tiergate'::regnamespace
                      AND p.prorettype = 'trigger'::regtype AND p.prosrc LIKE '%''' || r.name || '''%');

SELECT is(array_agg(rule.name), NULL, 'each rule of a trigger has a refusal')
  FROM pg_proc p, regexp_matches(p.prosrc, 'THEN ''([a-z0-9_]+)''|refuse_row\(''([a-z0-9_]+)''', 'g') m,
       LATERAL (SELECT coalesce(m[1], m[2]) AS name) rule
 WHERE p.pronamespace = 'tiergate'::regnamespace AND p.prorettype = 'trigger'::regtype
   AND rule.name ~ '_' AND rule.name <> 'body_size'
   AND NOT EXISTS (SELECT FROM tiergate.refusals r WHERE r.name = rule.name);

SELECT * FROM finish();
