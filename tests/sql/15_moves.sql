-- SPDX-License-Identifier: BSD-2-Clause
--
-- Counts of tenants that several shared gateways serve, and nodes that are given up.

\set QUIET 1
SELECT * FROM no_plan();

CREATE FUNCTION pg_temp.outcome(statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    v tiergate.violation;
BEGIN
    EXECUTE statement;
    RETURN 'ok';
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS v.state = RETURNED_SQLSTATE, v.detail = PG_EXCEPTION_DETAIL, v.pointer = COLUMN_NAME;
    RETURN rtrim(concat_ws(' ', v.state, CASE WHEN v.state LIKE 'TG%' THEN v.detail || ' ' || v.pointer END));
END
$$;
CREATE FUNCTION pg_temp.own(of text) RETURNS text LANGUAGE sql AS $$ SELECT 'dedicated-' || t.id FROM tiergate.tenants t WHERE t.name = of $$;
CREATE FUNCTION pg_temp.ack(gateway text) RETURNS void LANGUAGE sql AS $$
    SELECT tiergate.gateway_ack(gateway, 'b', (SELECT revision FROM tiergate.registry_state()), '{"state": "live"}')
$$;
CREATE FUNCTION pg_temp.handover(of text) RETURNS bigint LANGUAGE sql AS $$
    SELECT max(h.id) FROM tiergate.handovers h JOIN tiergate.tenants t ON t.id = h.tenant_id WHERE t.name = of
$$;
CREATE FUNCTION pg_temp.report(of text, gateway text, words jsonb, carried bigint DEFAULT NULL) RETURNS text LANGUAGE sql AS $$
    SELECT pg_temp.outcome(format('SELECT tiergate.handover_report(%L, %L)', gateway, jsonb_strip_nulls(
        jsonb_build_object('boot', 'b', 'handover', pg_temp.handover(of), 'tenant', of, 'words', words, 'carried', carried))))
$$;
CREATE FUNCTION pg_temp.quota(of text, named text) RETURNS bigint LANGUAGE sql AS $$ SELECT id FROM tiergate.quotas WHERE tenant = of AND name = named $$;
CREATE FUNCTION pg_temp.level(of text, requests numeric, at bigint) RETURNS jsonb LANGUAGE sql AS $$
    SELECT jsonb_build_object('quota', pg_temp.quota(of, 'q'), 'level', to_hex((requests * 1048576)::bigint), 'at', at)
$$;
CREATE FUNCTION pg_temp.day(of text, count bigint, day bigint DEFAULT 20000, key text DEFAULT NULL) RETURNS jsonb LANGUAGE sql AS $$
    SELECT jsonb_strip_nulls(jsonb_build_object('quota', pg_temp.quota(of, 'd'), 'key', key, 'word', to_hex(day << 40 | count)))
$$;
CREATE FUNCTION pg_temp.onboard(of text) RETURNS void LANGUAGE sql AS $$
    SELECT tiergate.onboard(jsonb_build_object('name', of, 'quotas',
        '[{"name": "q", "limit": 1000, "window": "1000s"}, {"name": "d", "limit": 1000, "window": "day", "consumer": "*"}]'::jsonb))
$$;
CREATE FUNCTION pg_temp.age(by interval) RETURNS void LANGUAGE sql AS $$
    UPDATE tiergate.handovers SET step_at = step_at - by, acked_at = acked_at - by WHERE finished_at IS NULL
$$;
-- each step is a transaction of its own: what is committed when is what they are about
CREATE PROCEDURE pg_temp.export(of text) LANGUAGE plpgsql AS $$
BEGIN
    COMMIT;
    PERFORM pg_temp.ack('shared-1'), pg_temp.ack('shared-2'), pg_temp.ack(pg_temp.own(of));
    PERFORM tiergate.handovers_advance();
    COMMIT;
    PERFORM pg_temp.age('101 milliseconds');
    PERFORM tiergate.handovers_advance();
    COMMIT;
END
$$;
CREATE PROCEDURE pg_temp.promote(of text) LANGUAGE plpgsql AS $$
BEGIN
    PERFORM tiergate.set_tier(of, 'dedicated');
    PERFORM tiergate.instances_claim('n1', 'process', 100, 20000, 20999, '127.0.0.1');
    PERFORM tiergate.instance_ready(pg_temp.own(of));
    CALL pg_temp.export(of);
END
$$;
CREATE PROCEDURE pg_temp.give_back(of text, words jsonb) LANGUAGE plpgsql AS $$
BEGIN
    PERFORM tiergate.set_tier(of, 'vcluster');
    CALL pg_temp.export(of);
    PERFORM pg_temp.report(of, pg_temp.own(of), words);
    COMMIT;
END
$$;
CREATE FUNCTION pg_temp.words(of text, without integer DEFAULT 0) RETURNS jsonb LANGUAGE sql AS $$
    SELECT jsonb_path_query_array(words, format('$[%s to last]', without)::jsonpath) FROM tiergate.handovers WHERE id = pg_temp.handover(of)
$$;

SELECT pg_temp.ack('shared-1'), pg_temp.ack('shared-2');

-- the form of a count
SELECT is(tiergate.is_handover_word(w::jsonb), false, w) FROM (VALUES ('5'), ('[]'), ('"x"'), ('null'), ('{}'), ('{"quota": 1}'), ('{"quota": "1", "word": "1"}'),
    ('{"quota": -1, "word": "1"}'), ('{"quota": 1.5, "word": "1"}'), ('{"quota": 1, "word": "x"}'), ('{"quota": 1, "word": 1}'), ('{"quota": 1, "word": ""}'),
    ('{"quota": 1, "word": "12345678901234567"}'), ('{"quota": 1, "word": "0x1"}'), ('{"quota": 1, "word": "1", "level": "1"}'), ('{"quota": 1, "word": "1", "at": 1}'),
    ('{"quota": 1, "level": "1"}'), ('{"quota": 1, "at": 1}'), ('{"quota": 1, "level": "1", "at": -1}'), ('{"quota": 1, "level": "1", "at": "1"}'),
    ('{"quota": 1, "level": null, "at": 1}'), ('{"quota": 1, "word": "1", "name": "n"}'), ('{"quota": 1, "word": "1", "key": 5}'),
    ('{"quota": 1, "word": "1", "key": "g"}'), ('{"quota": 1, "word": "1", "key": "1", "name": 5}'), ('{"quota": 1, "word": "1", "key": "1", "name": "a\u0007"}'),
    ('{"quota": 1, "word": "1", "more": 1}'), ('{"quota": 99999999999999999999, "word": "1"}')) v (w);
SELECT is(tiergate.is_handover_word(format('{"quota": 1, "word": "1", "key": "1", "name": "%s"}', repeat('x', n))::jsonb), n < 48, n || ' bytes of name') FROM unnest('{0,47,48}'::integer[]) n;
SELECT is(tiergate.is_handover_word(w::jsonb), true, w) FROM (VALUES ('{"quota": 1, "word": "50D700000003e8"}'), ('{"quota": 1, "level": "0", "at": 0}'),
    ('{"quota": 1, "key": "a", "word": "1"}'), ('{"quota": 1, "key": "a", "name": "é", "level": "1", "at": 1790000000123}')) v (w);

-- there: counts of several gateways are added
SELECT pg_temp.onboard('acme');
CALL pg_temp.promote('acme');
SELECT is(o.r, o.o, o.o) FROM (VALUES
    (pg_temp.report('acme', 'shared-1', '[5]'), 'TG422 invalid-report /words/0'),
    (pg_temp.report('acme', 'shared-1', jsonb_build_array(pg_temp.day('acme', 1), '{"quota": 1}'::jsonb)), 'TG422 invalid-report /words/1'),
    (pg_temp.outcome(format('SELECT tiergate.handover_report(''shared-1'', ''{"handover": %s, "id": 999999}'')', pg_temp.handover('acme'))), 'TG422 invalid-report /id'),
    (pg_temp.outcome(format('SELECT tiergate.handover_report(''shared-1'', ''{"handover": %s, "carried": "x"}'')', pg_temp.handover('acme'))), 'TG422 invalid-report /carried')) o (r, o);
SELECT is(pg_temp.report('acme', 'shared-1', jsonb_build_array(pg_temp.day('acme', 3), pg_temp.level('acme', 3, 1000))), 'ok', 'one');
SELECT is(pg_temp.report('acme', 'shared-2', jsonb_build_array(pg_temp.day('acme', 4))), 'ok', 'the other');
SELECT is(pg_temp.words('acme'), jsonb_build_array(pg_temp.day('acme', 3), pg_temp.level('acme', 3, 1000), pg_temp.day('acme', 4)), 'as they came');

-- and back: both are given the same
SELECT jsonb_build_array(pg_temp.day('acme', 100), pg_temp.day('acme', 60, 20000, 'aa'), pg_temp.level('acme', 500, 1000000)) AS back \gset
CALL pg_temp.give_back('acme', :'back');
SELECT is(h.direction || ' ' || h.outcome, 'return complete', 'the return') FROM tiergate.handovers h WHERE h.id = pg_temp.handover('acme');
SELECT pg_temp.handover('acme') AS given \gset
UPDATE tiergate.handovers SET finished_at = finished_at - interval '10 minutes' WHERE id = :given;
SELECT tiergate.housekeeping();
SELECT is(pg_temp.words('acme'), :'back'::jsonb, 'its counts are kept until it moves on');

-- there again: what they were given counts once, whoever reports it
CALL pg_temp.promote('acme');
SELECT is(pg_temp.words('acme'), :'back'::jsonb, 'a promotion begins with them');
-- 200 s later: 200 of the 500 have drained
SELECT is(pg_temp.report('acme', 'shared-1', jsonb_build_array(pg_temp.day('acme', 110), pg_temp.day('acme', 60, 20000, 'aa'),
    pg_temp.level('acme', 320, 1200000)), :given), 'ok', 'one gateway');
SELECT is(pg_temp.words('acme', 3), jsonb_build_array(pg_temp.day('acme', 10), pg_temp.level('acme', 20.25, 1200000)), 'has counted 10 and 20 more');
SELECT is(pg_temp.report('acme', 'shared-2', jsonb_build_array(pg_temp.day('acme', 105), pg_temp.day('acme', 70, 20000, '00AA'), pg_temp.day('acme', 5, 20001, 'aa'),
    pg_temp.level('acme', 290, 1200000)), :given), 'ok', 'the other');
SELECT is(pg_temp.words('acme', 5), jsonb_build_array(pg_temp.day('acme', 5), pg_temp.day('acme', 10, 20000, '00AA'), pg_temp.day('acme', 5, 20001, 'aa')),
    'has counted 5 more, 10 of a consumer, 5 of the next day, and no level beyond what it was given');
SELECT is(h.outcome, 'complete', 'that was it') FROM tiergate.handovers h WHERE h.id = pg_temp.handover('acme');

-- when in doubt, all of it
CREATE TEMPORARY TABLE counted (words jsonb);
CREATE PROCEDURE pg_temp.again(meanwhile text, carried bigint) LANGUAGE plpgsql AS $$
DECLARE
    given bigint;
BEGIN
    CALL pg_temp.give_back('acme', jsonb_build_array(pg_temp.day('acme', 100), pg_temp.level('acme', 500, 1000000)));
    given := pg_temp.handover('acme');
    EXECUTE meanwhile;
    COMMIT;
    CALL pg_temp.promote('acme');
    PERFORM pg_temp.report('acme', 'shared-1', jsonb_build_array(pg_temp.day('acme', 110), pg_temp.level('acme', 520, 1000000)), given + carried);
    DELETE FROM counted;
    INSERT INTO counted VALUES (pg_temp.words('acme', 2));
    PERFORM pg_temp.report('acme', 'shared-2', '[]');
    COMMIT;
END
$$;
SELECT pg_temp.day('acme', 110) AS all_d, pg_temp.level('acme', 520, 1000000) AS all_q, pg_temp.day('acme', 10) AS more_d, pg_temp.level('acme', 20.25, 1000000) AS more_q \gset
CALL pg_temp.again('SELECT', 0);
SELECT is(words, jsonb_build_array(:'more_d'::jsonb, :'more_q'::jsonb), 'nothing was changed') FROM counted;
CALL pg_temp.again('SELECT', NULL);
SELECT is(words, jsonb_build_array(:'all_d'::jsonb, :'all_q'::jsonb), 'a gateway that was given nothing') FROM counted;
CALL pg_temp.again('SELECT', -1);
SELECT is(words, jsonb_build_array(:'all_d'::jsonb, :'all_q'::jsonb), 'or that of another move') FROM counted;
CALL pg_temp.again($$ UPDATE tiergate.quotas SET requests = requests + 1 WHERE tenant = 'acme' AND name = 'q' $$, 0);
SELECT is(words, jsonb_build_array(:'all_d'::jsonb, :'all_q'::jsonb), 'a quota was written') FROM counted;
UPDATE tiergate.quotas SET requests = 1000 WHERE tenant = 'acme';
CALL pg_temp.again($$ UPDATE tiergate.tenants SET display_name = 'other' WHERE name = 'acme' $$, 0);
SELECT is(words, jsonb_build_array(:'more_d'::jsonb, :'more_q'::jsonb), 'something else was') FROM counted;
CALL pg_temp.again($$ SELECT tiergate.grant_boost('acme', factor => 3, until => now() + interval '1 hour') $$, 0);
SELECT is(words, jsonb_build_array(:'more_d'::jsonb, :'all_q'::jsonb), 'a boost') FROM counted;

-- a node that has died
SELECT pg_temp.onboard('other');
CALL pg_temp.promote('other');
SELECT tiergate.create_tenant('gone', tier => 'dedicated');
SELECT pg_temp.own('gone') AS gone \gset
SELECT count(*) FROM tiergate.instances_claim('n1', 'process', 100, 20000, 20999, '127.0.0.1');
SELECT tiergate.delete_tenant('gone');
SELECT is(pg_temp.outcome($$ SELECT tiergate.evacuate_node('n2') $$), 'TG404 unknown-node', 'a node that nothing is on');
SELECT is(pg_temp.outcome($$ SELECT tiergate.evacuate_node('n1') $$), 'TG409 node-alive', 'one that lives');
UPDATE tiergate.gateways SET last_seen = now() - interval '1 minute' WHERE kind = 'dedicated';
SELECT tiergate.instance_token(pg_temp.own('other'));
SELECT generation AS generation, endpoint_id AS endpoint FROM tiergate.instances WHERE tenant = 'other' \gset
SELECT set_eq($$ SELECT tiergate.evacuate_node('n1') $$, ARRAY[pg_temp.own('acme'), pg_temp.own('other'), :'gone'], 'its gateways');
SELECT is((SELECT count(*) FROM tiergate.instances WHERE name = :'gone'), 0::bigint, 'what was to go is gone');
SELECT is((i.node IS NULL, i.port IS NULL, i.phase, i.reason, i.generation > :generation, i.observed_generation)::text, '(t,t,pending,Evacuated,t,0)', 'the others are to be taken')
  FROM tiergate.instances i WHERE tenant = 'other';
SELECT is((SELECT count(*) FROM tiergate.api_tokens WHERE gateway = pg_temp.own('other')), 0::bigint, 'the token of what may still run there is void');
SELECT is((SELECT new->'node' FROM tiergate.audit WHERE object = 'instances' ORDER BY id DESC LIMIT 1), 'null', 'audited');
SELECT is(count(*), 2::bigint, 'by another node') FROM tiergate.instances_claim('n2', 'process', 100, 20000, 20999, '10.0.0.2');
SELECT isnt(endpoint_id, :endpoint::bigint, 'at another address') FROM tiergate.instances WHERE tenant = 'other';
SELECT is((SELECT count(*) FROM tiergate.instances_of('n1')), 0::bigint, 'the dead one has none, should it come back');
SELECT is(pg_temp.outcome($$ SELECT tiergate.evacuate_node('n2', alive => true) $$), 'ok', 'alive or not, if it must be');
SELECT is(pg_temp.outcome($$ SELECT tiergate_api.evacuate_node('{n2}', '{"alive": "perhaps"}', NULL) $$), 'TG400 invalid-parameter', 'REST checks its query');
SELECT is(pg_temp.outcome($$ SELECT tiergate_api.evacuate_node('{n2}', '{"alive": "true"}', NULL) $$), 'TG404 unknown-node', 'and its path');

SELECT * FROM finish();
