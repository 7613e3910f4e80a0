-- SPDX-License-Identifier: BSD-2-Clause
--
-- The verdict on calls to an endpoint whose port a workload of another tenant has.

BEGIN;

INSERT INTO tiergate.schema_migrations (version, name) VALUES (41, 'taken');

INSERT INTO tiergate.flow_reasons (number, name, description) VALUES (81, 'DENY_TAKEN', 'endpoint of another tenant');

COMMIT;
