-- SPDX-License-Identifier: BSD-2-Clause
--
-- A tenant that owned *.com would have kept every other from every name below it.
-- What is below a wildcard's * counts as its name: one label is too few, unless
-- hosts.allow_single_label says otherwise.

BEGIN;

INSERT INTO tiergate.schema_migrations (version, name) VALUES (38, 'wildcards');


CREATE OR REPLACE FUNCTION tiergate.check_host()
RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    broken text := CASE
        WHEN NOT tiergate.is_hostname(NEW.host) THEN 'hosts_host'
        WHEN strpos(ltrim(NEW.host, '*.'), '.') = 0
             AND tiergate.setting('hosts.allow_single_label') IS DISTINCT FROM 'true' THEN 'hosts_one_label'
        END;
BEGIN
    IF broken IS NOT NULL THEN
        PERFORM tiergate.refuse_row(broken, NEW.host);
    END IF;
    RETURN NEW;
END
$$;

COMMENT ON FUNCTION tiergate.check_host() IS 'Trigger: a host is a hostname, and not all of a top-level domain';

UPDATE tiergate.refusals
   SET detail = 'hostname "%s" has one label only, which is nobody''s own',
       hint = 'give the full name, or set hosts.allow_single_label'
 WHERE name = 'hosts_one_label';

UPDATE tiergate.settings
   SET description = 'Whether a tenant may own a hostname without a dot, or a wildcard for all names below one'
 WHERE name = 'hosts.allow_single_label';

COMMIT;
