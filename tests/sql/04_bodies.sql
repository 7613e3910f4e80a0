-- SPDX-License-Identifier: BSD-2-Clause
--
-- Bad bodies of every kind: what REST callers are told, down to the member.

\set QUIET 1
SELECT * FROM no_plan();

CREATE FUNCTION pg_temp.problem(body jsonb) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    v tiergate.violation;
BEGIN
    PERFORM tiergate.onboard(body);
    RETURN 'accepted';
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS v.state = RETURNED_SQLSTATE, v.detail = PG_EXCEPTION_DETAIL, v.pointer = COLUMN_NAME,
                            v.message = MESSAGE_TEXT;
    RETURN CASE WHEN v.state LIKE 'TG%' THEN rtrim(concat_ws(' ', substr(v.state, 3), v.detail, v.pointer))
                ELSE v.state || ' ' || v.message END;
END
$$;

SELECT tiergate.put_object('issuer', NULL, 'platform', $$
    {"issuer": "https://id.example", "jwks": {"keys": [
        {"kty": "EC", "crv": "P-256", "kid": "k1", "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4",
         "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"}]}} $$);
SELECT tiergate.onboard('{"name": "taken", "hosts": ["taken.example.com", "*.wild.example.com"]}');

-- A tenant is put together from a sound one and the members of the case.
CREATE TEMP TABLE bad (nth serial, patch jsonb, expected text);
INSERT INTO bad (patch, expected) VALUES
    -- shape
    ('{"nmae": "x"}',                              '422 unknown-field /nmae'),
    ('{"name": 5}',                                '422 wrong-type /name'),
    ('{"name": null}',                             '422 missing-field /name'),
    ('{"hosts": "a.example.com"}',                 '422 wrong-type /hosts'),
    ('{"hosts": [null]}',                          '422 wrong-type /hosts/0'),
    ('{"hosts": [["a.example.com"]]}',             '422 wrong-type /hosts/0'),
    ('{"hosts": ["a.example.com"], "display_name": "[[x]]"}', 'accepted'),
    ('{"routes": [[{"name": "a"}]]}',              '422 wrong-type /routes/0'),
    ('{"routes": {"name": "a"}}',                  '422 wrong-type /routes'),
    ('{"routes": ["a"]}',                          '422 wrong-type /routes/0'),
    ('{"labels": {"a": 1}}',                       '422 wrong-type /labels/a'),
    ('{"labels": ["a"]}',                          '422 wrong-type /labels'),
    ('{"upstreams": [{"name": "u", "health": {"max_fails": "3"}}]}', '422 wrong-type /upstreams/0/health/max_fails'),
    ('{"upstreams": [{"name": "u", "health": {"fails": 3}}]}',       '422 unknown-field /upstreams/0/health/fails'),
    ('{"a/b~c": 1}',                               '422 unknown-field /a~1b~0c'),
    -- names
    ('{"name": ""}',                               '422 invalid-label /name'),
    ('{"name": "Acme"}',                           '422 invalid-label /name'),
    ('{"name": "-acme"}',                          '422 invalid-label /name'),
    ('{"name": "ac_me"}',                          '422 invalid-label /name'),
    ('{"name": "taken"}',                          '409 tenant-exists /name'),
    ('{"tier": "gold"}',                           '422 unknown-tier /tier'),
    ('{"state": "gone"}',                          '422 unknown-value /state'),
    -- hosts
    ('{"hosts": ["A.example.com"]}',               '422 invalid-hostname /hosts/0'),
    ('{"hosts": ["ok.example.com", "a..example.com"]}', '422 invalid-hostname /hosts/1'),
    ('{"hosts": ["a.example.com."]}',              '422 invalid-hostname /hosts/0'),
    ('{"hosts": ["a.example.com:80"]}',            '422 invalid-hostname /hosts/0'),
    ('{"hosts": ["bücher.example.com"]}',          '422 invalid-hostname /hosts/0'),
    ('{"hosts": ["ab--cd.example.com"]}',          '422 invalid-hostname /hosts/0'),
    ('{"hosts": ["10.0.0.1"]}',                    '422 invalid-hostname /hosts/0'),
    ('{"hosts": ["[::1]"]}',                       '422 invalid-hostname /hosts/0'),
    ('{"hosts": ["a.*.example.com"]}',             '422 invalid-hostname /hosts/0'),
    ('{"hosts": ["*"]}',                           '422 invalid-hostname /hosts/0'),
    ('{"hosts": ["a*.example.com"]}',              '422 invalid-hostname /hosts/0'),
    ('{"hosts": ["localhost"]}',                   '422 invalid-hostname /hosts/0'),
    ('{"hosts": ["a_b.example.com"]}',             '422 invalid-hostname /hosts/0'),
    ('{"hosts": ["taken.example.com"]}',           '409 host-taken /hosts/0'),
    ('{"hosts": ["x.wild.example.com"]}',          '409 host-taken /hosts/0'),
    ('{"hosts": ["*.taken.example.com"]}',         'accepted'),
    ('{"hosts": ["*.example.com"]}',               '409 host-taken /hosts/0'),
    ('{"hosts": ["a.example.org", "a.example.org"]}', '422 duplicate-item /hosts/1'),
    -- issuers
    ('{"issuers": [{"ref": "nobody"}]}',           '422 unknown-issuer /issuers/0/ref'),
    ('{"issuers": [{"name": "a"}]}',               '422 missing-field /issuers/0/issuer'),
    ('{"issuers": [{"name": "a", "issuer": "https://x"}]}', '422 missing-field /issuers/0/jwks'),
    ('{"issuers": [{"ref": "platform", "leeway": 5}]}', '422 invalid-reference /issuers/0/ref'),
    ('{"issuers": [{"ref": "platform"}, {"ref": "platform"}]}', '409 duplicate-name /issuers/1/name'),
    ('{"issuers": [{"name": "a", "issuer": "x y", "jwks_uri": "https://x/"}]}', '422 invalid-token /issuers/0/issuer'),
    ('{"issuers": [{"name": "a", "issuer": "x", "jwks_uri": "http://x/"}]}',    '422 insecure-uri /issuers/0/jwks_uri'),
    ('{"issuers": [{"name": "a", "issuer": "x", "jwks_uri": "ftp://x/"}]}',     '422 invalid-jwks-uri /issuers/0/jwks_uri'),
    ('{"issuers": [{"name": "a", "issuer": "x", "jwks_uri": "https://x/", "algorithms": ["none"]}]}',
                                                   '422 unknown-value /issuers/0/algorithms/0'),
    ('{"issuers": [{"name": "a", "issuer": "x", "jwks_uri": "https://x/", "leeway": 301}]}',
                                                   '422 out-of-range /issuers/0/leeway'),
    ('{"issuers": [{"name": "a", "issuer": "x", "jwks_uri": "https://x/", "audiences": []}]}',
                                                   '422 wrong-length /issuers/0/audiences'),
    ('{"issuers": [{"name": "a", "issuer": "x", "jwks": {"keys": [{"kty": "oct", "k": "c2VjcmV0"}]}}]}',
                                                   '422 invalid-jwk /issuers/0/jwks/keys/0'),
    ('{"issuers": [{"name": "a", "issuer": "x", "jwks": {"keys": [{"kty": "RSA", "n": "AQAB", "e": "AQAB"}]}}]}',
                                                   '422 invalid-jwk /issuers/0/jwks/keys/0'),
    ('{"issuers": [{"name": "a", "issuer": "x", "jwks": {"keys": [{"kty": "EC", "crv": "P-256", "d": "x"}]}}]}',
                                                   '422 invalid-jwk /issuers/0/jwks/keys/0'),
    ('{"issuers": [{"name": "a", "issuer": "x", "jwks": "-----BEGIN PUBLIC KEY-----"}]}',
                                                   '422 wrong-type /issuers/0/jwks'),
    ('{"issuers": [{"name": "a", "issuer": "x", "jwks": {"keys": ["-----BEGIN PUBLIC KEY-----"]}}]}',
                                                   '422 wrong-type /issuers/0/jwks/keys/0'),
    -- consumers and keys
    ('{"consumers": [{"name": "a b"}]}',           '422 invalid-consumer /consumers/0/name'),
    ('{"consumers": [{"name": "a"}, {"name": "a"}]}', '422 duplicate-item /consumers/1'),
    ('{"keys": [{}]}',                             '422 missing-field /keys/0/consumer'),
    ('{"keys": [{"consumer": "ä"}]}',              '422 invalid-consumer /keys/0/consumer'),
    ('{"keys": [{"consumer": "a", "scopes": ["a b"]}]}', '422 invalid-token /keys/0/scopes/0'),
    ('{"keys": [{"consumer": "a", "expires_at": "tomorrow"}]}', '422 invalid-time /keys/0/expires_at'),
    ('{"keys": [{"consumer": "a", "expires_at": "2030-02-30T00:00:00Z"}]}', '422 invalid-time /keys/0/expires_at'),
    ('{"keys": [{"consumer": "a", "sha256": "abc"}]}', '422 invalid-sha256 /keys/0/sha256'),
    -- upstreams
    ('{"upstreams": [{"name": "u", "endpoints": [{"address": "10.0.0.0/8", "port": 1}]}]}',
                                                   '422 invalid-address /upstreams/0/endpoints/0/address'),
    ('{"upstreams": [{"name": "u", "endpoints": [{"address": "10.0.0.256", "port": 1}]}]}',
                                                   '422 invalid-address /upstreams/0/endpoints/0/address'),
    ('{"upstreams": [{"name": "u", "endpoints": [{"address": "host.example", "port": 1}]}]}',
                                                   '422 invalid-address /upstreams/0/endpoints/0/address'),
    ('{"upstreams": [{"name": "u", "endpoints": [{"address": "169.254.169.254", "port": 80}]}]}',
                                                   '422 address-refused /upstreams/0/endpoints/0/address'),
    ('{"upstreams": [{"name": "u", "endpoints": [{"address": "::ffff:169.254.169.254", "port": 80}]}]}',
                                                   '422 address-refused /upstreams/0/endpoints/0/address'),
    ('{"upstreams": [{"name": "u", "endpoints": [{"address": "10.0.0.1", "port": 0}]}]}',
                                                   '422 out-of-range /upstreams/0/endpoints/0/port'),
    ('{"upstreams": [{"name": "u", "endpoints": [{"address": "10.0.0.1", "port": 65536}]}]}',
                                                   '422 out-of-range /upstreams/0/endpoints/0/port'),
    ('{"upstreams": [{"name": "u", "endpoints": [{"address": "10.0.0.1", "port": 1e30}]}]}',
                                                   '422 out-of-range /upstreams/0/endpoints/0/port'),
    ('{"upstreams": [{"name": "u", "endpoints": [{"address": "10.0.0.1", "port": 80, "weight": -1}]}]}',
                                                   '422 out-of-range /upstreams/0/endpoints/0/weight'),
    ('{"upstreams": [{"name": "u", "host": "a b"}]}', '422 invalid-authority /upstreams/0/host'),
    ('{"upstreams": [{"name": "u"}, {"name": "u"}]}', '422 duplicate-item /upstreams/1'),
    ('{"upstreams": [{"name": "U"}]}',             '422 invalid-name /upstreams/0/name'),
    -- routes
    ('{"routes": [{"name": "r", "backends": []}]}', '422 wrong-length /routes/0/backends'),
    ('{"routes": [{"name": "r"}]}',                '422 missing-field /routes/0/backends'),
    ('{"routes": [{"name": "r", "backends": [{"upstream": "v9"}]}]}', '422 unknown-upstream /routes/0/backends/0/upstream'),
    ('{"routes": [{"name": "r", "backends": [{"upstream": "v1", "weight": 0}]}]}', '422 no-weight /routes/0/backends'),
    ('{"routes": [{"name": "r", "backends": [{"upstream": "v1", "weight": 1000001}]}]}',
                                                   '422 out-of-range /routes/0/backends/0/weight'),
    ('{"routes": [{"name": "r", "backends": [{"upstream": "v1"}], "match": {"path": {"value": "a"}}}]}',
                                                   '422 invalid-path /routes/0/match/path/value'),
    ('{"routes": [{"name": "r", "backends": [{"upstream": "v1"}], "match": {"path": {"value": "/a//b"}}}]}',
                                                   '422 invalid-path /routes/0/match/path/value'),
    ('{"routes": [{"name": "r", "backends": [{"upstream": "v1"}], "match": {"path": {"value": "/a/../b"}}}]}',
                                                   '422 invalid-path /routes/0/match/path/value'),
    ('{"routes": [{"name": "r", "backends": [{"upstream": "v1"}], "match": {"path": {"value": "/a?b"}}}]}',
                                                   '422 invalid-path /routes/0/match/path/value'),
    ('{"routes": [{"name": "r", "backends": [{"upstream": "v1"}], "match": {"methods": ["get"]}}]}',
                                                   '422 unknown-value /routes/0/match/methods/0'),
    ('{"routes": [{"name": "r", "backends": [{"upstream": "v1"}], "match": {"headers": [{"name": "x:y", "value": "1"}]}}]}',
                                                   '422 invalid-header /routes/0/match/headers/0/name'),
    ('{"routes": [{"name": "r", "backends": [{"upstream": "v1"}], "retries": 6}]}', '422 out-of-range /routes/0/retries'),
    ('{"routes": [{"name": "r", "backends": [{"upstream": "v1"}], "retries": 1.5}]}', '422 wrong-type /routes/0/retries'),
    ('{"routes": [{"name": "r", "backends": [{"upstream": "v1"}], "rewrite": {"type": "replace_prefix"}}]}',
                                                   '422 invalid-rewrite /routes/0/rewrite/value'),
    ('{"routes": [{"name": "r", "backends": [{"upstream": "v1"}], "rewrite": {"type": "strip_prefix"},
                   "match": {"path": {"type": "exact", "value": "/a"}}}]}', '422 invalid-rewrite /routes/0/rewrite/type'),
    ('{"routes": [{"name": "a", "backends": [{"upstream": "v1"}]}, {"name": "b", "backends": [{"upstream": "v1"}]}]}',
                                                   '409 overlapping-route /routes/1/match'),
    ('{"routes": [{"name": "a", "backends": [{"upstream": "v1"}], "match": {"methods": ["GET", "POST"]}},
                  {"name": "b", "backends": [{"upstream": "v1"}], "match": {"methods": ["POST", "PUT"]}}]}',
                                                   '409 overlapping-route /routes/1/match'),
    ('{"routes": [{"name": "a", "backends": [{"upstream": "v1"}], "match": {"methods": ["GET"]}},
                  {"name": "b", "backends": [{"upstream": "v1"}]}]}', 'accepted'),
    ('{"routes": [{"name": "a", "backends": [{"upstream": "v1"}]}, {"name": "a", "backends": [{"upstream": "v1"}]}]}',
                                                   '422 duplicate-item /routes/1'),
    -- quotas
    ('{"quotas": [{"name": "q", "limit": 5}]}',    '422 invalid-quota /quotas/0'),
    ('{"quotas": [{"name": "q", "limit": 0, "window": "1s"}]}', '422 out-of-range /quotas/0/limit'),
    ('{"quotas": [{"name": "q", "limit": 5, "window": "86400s"}]}', '422 invalid-window /quotas/0/window'),
    ('{"quotas": [{"name": "q", "limit": 5, "window": "1 hour"}]}', '422 invalid-window /quotas/0/window'),
    ('{"quotas": [{"name": "q", "limit": 5, "window": "day", "burst": 5}]}', '422 out-of-range /quotas/0/burst'),
    ('{"quotas": [{"name": "q", "limit": 5, "metric": "concurrency", "window": "1s"}]}', '422 invalid-quota /quotas/0'),
    ('{"quotas": [{"name": "q", "limit": 99999999999999999999, "window": "1s"}]}', '422 out-of-range /quotas/0/limit'),
    ('{"quotas": [{"name": "q", "limit": 5, "window": "1s", "route": "nope"}]}', '422 unknown-route /quotas/0/route'),
    ('{"routes": [{"name": "r", "backends": [{"upstream": "v1"}], "rewrite": {"type": "replace_path", "value": "/a/../b"}}]}',
                                                   '422 invalid-path /routes/0/rewrite/value'),
    ('{"routes": [{"name": "r", "backends": [{"upstream": "v1"}, {"upstream": "v1"}]}]}',
                                                   '422 duplicate-item /routes/0/backends/1'),
    ('{"issuers": [{"ref": "platform"}, {"name": "again", "ref": "platform"}]}', '409 duplicate-reference /issuers/1/ref'),
    ('{"quotas": [{"name": "q", "limit": 5, "window": "1s", "scope": "route"}]}', '422 invalid-scope /quotas/0/scope'),
    ('{"quotas": [{"name": "q", "limit": 5, "window": "1s"}, {"name": "p", "limit": 6, "window": "1s"}]}',
                                                   '409 duplicate-quota /quotas/1');

SELECT is(pg_temp.problem('{"name": "case", "upstreams": [{"name": "v1"}]}' || b.patch),
          b.expected, left(b.patch::text, 100))
  FROM bad b WHERE b.expected <> 'accepted' ORDER BY b.nth;

SELECT is(pg_temp.problem(jsonb_build_object('name', 'case-' || b.nth, 'upstreams', '[{"name": "v1"}]'::jsonb) || b.patch),
          b.expected, left(b.patch::text, 100))
  FROM bad b WHERE b.expected = 'accepted' ORDER BY b.nth;

SELECT is((SELECT count(*) FROM tiergate.tenants WHERE name = 'case'), 0::bigint,
          'a refused tenant leaves nothing');

-- what is no object at all
SELECT is(pg_temp.problem(x.body), x.expected, coalesce(x.body::text, 'null'))
  FROM (VALUES ('[]'::jsonb, '422 wrong-type'), ('"x"', '422 wrong-type'), ('null', '422 wrong-type'),
               (NULL, '422 wrong-type')) x (body, expected);

-- limits are cited by name
SELECT is(pg_temp.problem(jsonb_build_object('name', 'many',
              'hosts', (SELECT jsonb_agg('h' || n || '.example.net') FROM generate_series(1, 257) n))),
          '422 wrong-length /hosts', 'more hosts than a gateway takes');
UPDATE tiergate.limits SET value = 3 WHERE name = 'hosts_per_tenant';
SELECT throws_ok($$ SELECT tiergate.onboard('{"name": "many", "hosts": ["a.example.net", "b.example.net", "c.example.net", "d.example.net"]}') $$,
          'TG422', '4 are more than the limit hosts_per_tenant = 3 allows', 'a lowered limit holds');
SELECT lives_ok($$ SELECT tiergate.onboard('{"name": "few", "hosts": ["a.example.net", "b.example.net", "c.example.net"]}') $$,
          'up to the limit');
SELECT throws_ok($$ INSERT INTO tiergate.hosts VALUES ('d.example.net', 'few') $$, 'TG422', NULL,
          'plain INSERT is held to it');

-- the types made of body_fields cover it
SELECT is((SELECT count(*) FROM tiergate.body_fields f
            WHERE f.field NOT IN ('[]', '*')
              AND NOT EXISTS (SELECT FROM pg_attribute a
                               WHERE a.attrelid = to_regclass('tiergate.' || f.object || '_body')
                                 AND a.attname = f.field)), 0::bigint, 'each body field is an attribute');
SELECT is((SELECT count(*) FROM tiergate.body_fields f
            WHERE f.child IS NOT NULL
              AND NOT EXISTS (SELECT FROM tiergate.body_fields c WHERE c.object = f.child)), 0::bigint,
          'each child is described');

SELECT * FROM finish();
