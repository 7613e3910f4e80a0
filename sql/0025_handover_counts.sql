-- SPDX-License-Identifier: BSD-2-Clause
--
-- What tenantd's metrics say of moves between gateways.

BEGIN;

INSERT INTO tiergate.schema_migrations (version, name) VALUES (25, 'handover_counts');

CREATE FUNCTION tiergate.handover_counts(OUT outcome text, OUT count bigint)
RETURNS SETOF record
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT h.outcome, count(*) FROM tiergate.handovers h WHERE h.finished_at IS NOT NULL GROUP BY h.outcome ORDER BY 1
$$;

COMMENT ON FUNCTION tiergate.handover_counts() IS 'How many moves of tenants between gateways have ended in which way';

REVOKE ALL ON FUNCTION tiergate.handover_counts() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION tiergate.handover_counts() TO tiergate_daemon;

COMMIT;
