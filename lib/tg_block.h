/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * The block: one tenant (or one platform issuer) as the gateway's workers read
 * it.  A block is one contiguous piece of memory without pointers, so it can be
 * built anywhere, copied into shared memory, and read at any address.
 *
 *  1. Everything inside a block is addressed by a byte offset from its start
 *     (tg_ref_t, tg_vec_t).  Offset 0 is the header itself and so means "none".
 *  2. A published block never changes.  What changes per request (counters,
 *     quota words, endpoint health) lives outside, in state objects of the zone
 *     that outlive the version; the block holds their zone offsets ("state").
 *     tg_compile() leaves them 0, tg_zone_put() fills them in before publishing,
 *     taking over the old version's object for the same id.
 *  3. Arrays are sorted where a comment says so; routes are in match order.
 *
 * The source of a block is the tenant document,
 * docs/reference/tenant-document.md.
 */

#ifndef TG_BLOCK_H
#define TG_BLOCK_H

#include <stddef.h>
#include <stdint.h>

#define TG_BLOCK_MAGIC  0x31424754u     /* "TGB1" */

/* Limits of one document; docs/reference/limits.md names each. */
#define TG_MAX_NAME        63
#define TG_MAX_HOSTS       256
#define TG_MAX_ISSUERS     16
#define TG_MAX_JWKS_KEYS   32
#define TG_MAX_CONSUMERS   10000
#define TG_MAX_API_KEYS    10000
#define TG_MAX_UPSTREAMS   257      /* one to another gateway, see forward */
#define TG_MAX_ENDPOINTS   256
#define TG_MAX_ROUTES      1001
#define TG_MAX_QUOTAS      1000
#define TG_MAX_TEXT        512     /* bytes of any string without its own limit */
#define TG_MAX_CONSUMER    128
#define TG_MAX_REASON      200
#define TG_MAX_PATH        512
#define TG_MAX_REGEX       512
#define TG_MAX_AUDIENCES   16
#define TG_MAX_PATTERNS    1000    /* of all routes and headers: each is tried */
#define TG_MAX_HEADERS     16      /* per route, as the following */
#define TG_MAX_ROUTE_HOSTS 16
#define TG_MAX_SCOPES      64      /* of an API key, too */
#define TG_MAX_CLAIMS      16
#define TG_MAX_VALUES      64      /* of one claim */
#define TG_MAX_BACKENDS    16
#define TG_MAX_WEIGHT      1000000
#define TG_MAX_MS          3600000
#define TG_MAX_FAILS       1000
#define TG_MAX_OUTSTANDING 1000000
#define TG_MAX_RETRIES     5
#define TG_MAX_LEEWAY      300
#define TG_MAX_BOOST       1000
#define TG_MAX_LIMIT       UINT64_C(1000000000000)     /* requests in a window */
#define TG_MAX_BURST       UINT64_C(1000000000)
#define TG_MAX_CONCURRENCY UINT64_C(1000000)
#define TG_MAX_BODY        (UINT64_C(1) << 40)
#define TG_MAX_SECONDS     86399
#define TG_MAX_CARRY       65536
#define TG_MAX_DOCUMENT    (4 * 1024 * 1024)

/* One request is held to at most this many quotas. */
#define TG_MAX_REQUEST_QUOTAS  16

/* Of them, of concurrency: what a pin can hold. */
#define TG_MAX_REQUEST_HOLDS   6

/* Buckets of a quota that counts per consumer; more share one bucket. */
#define TG_QUOTA_KEYS  256

typedef struct {
    uint32_t  off;      /* bytes from the start of the block; 0: absent */
    uint32_t  len;      /* bytes, without the NUL that always follows */
} tg_ref_t;

typedef struct {
    uint32_t  off;      /* of the first element, aligned for it */
    uint32_t  n;        /* elements */
} tg_vec_t;

typedef enum {
    TG_KIND_TENANT = 1,
    TG_KIND_ISSUER = 2      /* exactly one element in issuers, nothing else */
} tg_kind_e;

typedef enum {
    TG_TENANT_ACTIVE = 0,
    TG_TENANT_SUSPENDED = 1
} tg_tenant_state_e;

/* Signature algorithms, RFC 7518 section 3.1 and RFC 8037, as a bit mask. */
typedef enum {
    TG_ALG_RS256 = 1 << 0, TG_ALG_RS384 = 1 << 1, TG_ALG_RS512 = 1 << 2,
    TG_ALG_PS256 = 1 << 3, TG_ALG_PS384 = 1 << 4, TG_ALG_PS512 = 1 << 5,
    TG_ALG_ES256 = 1 << 6, TG_ALG_ES384 = 1 << 7, TG_ALG_ES512 = 1 << 8,
    TG_ALG_HS256 = 1 << 9, TG_ALG_HS384 = 1 << 10, TG_ALG_HS512 = 1 << 11,
    TG_ALG_EDDSA = 1 << 12
} tg_alg_e;

/* One verification key.  material: DER SubjectPublicKeyInfo, or the raw secret
 * of an HMAC key.  algorithms: those this key may serve, already cut down to
 * what its type, curve, "alg" and the issuer's list allow. */
typedef struct {
    tg_ref_t  kid;              /* absent: matches tokens without kid only */
    tg_ref_t  material;
    uint32_t  algorithms;       /* TG_ALG_* */
    uint32_t  hmac;             /* 1: material is a secret */
} tg_key_t;

typedef struct {
    uint64_t  id;               /* own id; with ref: the platform issuer's */
    uint64_t  revision;         /* of the key set and rules; 0 with ref */
    tg_ref_t  name;
    tg_ref_t  issuer;           /* "iss", compared byte for byte */
    tg_ref_t  consumer_claim;
    tg_vec_t  audiences;        /* tg_ref_t; with ref: narrows, may be empty */
    tg_vec_t  keys;             /* tg_key_t */
    uint32_t  algorithms;       /* TG_ALG_* */
    uint16_t  leeway;           /* seconds */
    uint16_t  ref;              /* 1: look the rest up as a platform issuer */
} tg_issuer_t;

typedef struct {
    tg_ref_t  name;
    uint64_t  id;
} tg_consumer_t;

typedef struct {
    uint8_t   sha256[32];       /* of the whole key string */
    uint64_t  id;
    uint64_t  expires;          /* Unix seconds; 0: never */
    tg_ref_t  consumer;
    tg_vec_t  scopes;           /* tg_ref_t */
} tg_api_key_t;

typedef struct {
    uint64_t  id;
    uint64_t  state;            /* zone offset of tg_endpoint_state_t */
    uint8_t   address[16];      /* network order; IPv4 in the first four */
    uint16_t  family;           /* AF_INET or AF_INET6 */
    uint16_t  port;             /* host order */
    uint32_t  weight;
    tg_ref_t  text;             /* "10.0.0.1:8080", "[::1]:8080" */
} tg_endpoint_t;

typedef struct {
    uint64_t  id;
    uint64_t  state;            /* zone offset of tg_upstream_state_t */
    tg_ref_t  name;
    tg_ref_t  host;             /* absent: the client's Host is preserved */
    tg_vec_t  endpoints;        /* tg_endpoint_t */
    uint32_t  max_outstanding;  /* requests in flight; 0: no bound */
    uint32_t  max_fails;        /* 0: passive health off */
    uint32_t  fail_timeout_ms;
    uint32_t  slow_start_ms;
} tg_upstream_t;

typedef enum {
    TG_PATH_EXACT = 0,
    TG_PATH_REGEX = 1,
    TG_PATH_PREFIX = 2          /* in the order in which they are tried */
} tg_path_type_e;

typedef enum {
    TG_AUTH_REQUIRED = 0,
    TG_AUTH_OPTIONAL = 1,
    TG_AUTH_NONE = 2
} tg_auth_mode_e;

#define TG_AUTH_JWT      1
#define TG_AUTH_API_KEY  2

typedef enum {
    TG_REWRITE_NONE = 0,
    TG_REWRITE_STRIP_PREFIX,
    TG_REWRITE_REPLACE_PREFIX,
    TG_REWRITE_REPLACE_PATH
} tg_rewrite_e;

/* Methods as a bit mask; the order is tg_method_names[] in tg_compile.c. */
#define TG_METHOD_GET      (1u << 0)
#define TG_METHOD_HEAD     (1u << 1)
#define TG_METHOD_POST     (1u << 2)
#define TG_METHOD_PUT      (1u << 3)
#define TG_METHOD_DELETE   (1u << 4)
#define TG_METHOD_PATCH    (1u << 5)
#define TG_METHOD_OPTIONS  (1u << 6)
#define TG_METHOD_OTHER    (1u << 7)    /* never set in a route */

typedef struct {
    tg_ref_t  name;             /* lower case */
    tg_ref_t  value;
    uint32_t  regex;            /* 1: value is a pattern */
    uint32_t  reserved;
} tg_header_match_t;

typedef struct {
    tg_ref_t  name;
    tg_vec_t  values;           /* tg_ref_t */
} tg_claim_match_t;

typedef struct {
    uint32_t  upstream;         /* index in upstreams */
    uint32_t  weight;
} tg_backend_t;

typedef struct {
    uint64_t  id;
    uint64_t  counters;         /* zone offset of tg_counters_t */
    tg_ref_t  name;
    tg_ref_t  path;
    tg_ref_t  rewrite;
    tg_vec_t  headers;          /* tg_header_match_t */
    tg_vec_t  hosts;            /* tg_ref_t; wildcard as ".suffix" */
    tg_vec_t  scopes;           /* tg_ref_t */
    tg_vec_t  claims;           /* tg_claim_match_t */
    tg_vec_t  backends;         /* tg_backend_t */
    tg_vec_t  quotas;           /* uint32_t: indices of quotas that may apply */
    uint32_t  weight;           /* sum of the backends' */
    uint32_t  methods;          /* TG_METHOD_*; 0: any */
    uint32_t  connect_ms;       /* 0: as nginx.conf says */
    uint32_t  send_ms;
    uint32_t  read_ms;
    uint8_t   path_type;        /* tg_path_type_e */
    uint8_t   auth_mode;        /* tg_auth_mode_e */
    uint8_t   auth_methods;     /* TG_AUTH_JWT | TG_AUTH_API_KEY */
    uint8_t   rewrite_type;     /* tg_rewrite_e */
    uint8_t   retries;
    uint8_t   sticky;           /* 1: by consumer */
    uint8_t   hide_credentials;
    uint8_t   websocket;
} tg_route_t;

typedef enum {
    TG_SCOPE_TENANT = 0,
    TG_SCOPE_ROUTE,
    TG_SCOPE_CONSUMER
} tg_scope_e;

typedef enum {
    TG_METRIC_REQUESTS = 0,
    TG_METRIC_CONCURRENCY,
    TG_METRIC_BODY_SIZE
} tg_metric_e;

typedef enum {
    TG_WINDOW_SECONDS = 0,
    TG_WINDOW_DAY,
    TG_WINDOW_MONTH
} tg_window_e;

typedef struct {
    uint64_t  id;
    uint64_t  state;            /* zone offset of tg_quota_state_t */
    uint64_t  limit;
    uint64_t  burst;            /* GCRA only */
    uint32_t  seconds;          /* of TG_WINDOW_SECONDS */
    uint32_t  route;            /* index in routes, or UINT32_MAX */
    tg_ref_t  name;
    tg_ref_t  consumer;         /* absent: each consumer its own bucket */
    uint8_t   scope;            /* tg_scope_e */
    uint8_t   metric;           /* tg_metric_e */
    uint8_t   window;           /* tg_window_e */
    uint8_t   dry_run;
    uint32_t  keyed;            /* 1: state has TG_QUOTA_KEYS buckets */

    /* GCRA: how much the rate had given by when this version began.  Filled in
     * by tg_quota_carry() before publishing; tg_quota.h tells what for. */
    uint64_t  since;            /* us, CLOCK_MONOTONIC */
    uint64_t  given;            /* TG_QUOTA_UNIT a request, modulo 2^64 */
} tg_quota_t;

/* One word of another gateway's quota state: tg_handover.h. */
typedef struct {
    uint64_t  quota;            /* id */
    uint64_t  key;              /* tg_quota_key() of the consumer; 0: of all */
    uint64_t  value;            /* level in units, or a calendar word */
    uint64_t  at;               /* ms, Unix: when the level was that; 0 with a
                                 * calendar word */
    tg_ref_t  name;             /* of the consumer, for reports; may be cut */
    uint32_t  calendar;         /* 1: value is a calendar word */
    uint32_t  reserved;
} tg_carry_t;

/* What only a document for one gateway has. */
typedef struct {
    uint32_t  id;               /* of the hand-over to report; 0: none */
    uint32_t  carry_id;         /* of that which carry came with; 0: none */
    tg_vec_t  carry;            /* tg_carry_t */
    uint32_t  forward;          /* index in routes, with TG_BLOCK_FORWARD */
    uint32_t  reserved;
} tg_handover_t;

/* What a gateway does with the tenant's requests instead of deciding them; the
 * first that is set counts. */
#define TG_BLOCK_HOLD         1     /* they wait for the next version */
#define TG_BLOCK_MISDIRECTED  2     /* they are refused: 421 */
#define TG_BLOCK_FORWARD      4     /* they go on by one route as they are */
#define TG_BLOCK_FLAGS        7

typedef struct {
    uint32_t  magic;
    uint32_t  size;             /* bytes, the header included */
    uint64_t  id;
    uint64_t  revision;
    uint64_t  counters;         /* zone offset: requests that matched no route */
    uint64_t  boost_until;      /* Unix seconds */
    uint64_t  boost_end;        /* the same in us, CLOCK_MONOTONIC, by
                                 * tg_quota_carry() */
    uint32_t  boost_milli;      /* factor times 1000; 1000: none */
    uint32_t  slot;             /* dense number of the tenant, by tg_zone_put */
    uint16_t  kind;             /* tg_kind_e */
    uint8_t   state;            /* tg_tenant_state_e */
    uint8_t   carried_whole;    /* 1: each word of the last carry has a bucket
                                 * of its own, uncut; as "carried" */
    uint32_t  flags;            /* TG_BLOCK_*; most often 0 */
    tg_ref_t  name;
    tg_ref_t  reason;
    tg_vec_t  hosts;            /* tg_ref_t, sorted; wildcard as ".suffix" */
    tg_vec_t  issuers;          /* tg_issuer_t */
    tg_vec_t  consumers;        /* tg_consumer_t, sorted by name */
    tg_vec_t  api_keys;         /* tg_api_key_t, sorted by sha256 */
    tg_vec_t  upstreams;        /* tg_upstream_t */
    tg_vec_t  routes;           /* tg_route_t, in match order */
    tg_vec_t  quotas;           /* tg_quota_t */
    uint32_t  handover;         /* offset of tg_handover_t; 0: none */
    uint32_t  carried;          /* id of the last carry that was added to the
                                 * tenant's quotas, by tg_zone_put() */
} tg_block_t;

/* Address of something inside a block. */
#define tg_at(block, offset)  ((void *) ((uintptr_t) (block) + (offset)))

/* First element of a tg_vec_t of the given type. */
#define tg_vec(block, vec, type)  ((type *) tg_at(block, (vec).off))

/* NULL: the document has nothing for this gateway only. */
static inline const tg_handover_t *
tg_block_handover(const tg_block_t *block)
{
    return block->handover ? tg_at(block, block->handover) : NULL;
}

static inline const char *
tg_str(const tg_block_t *block, tg_ref_t ref)
{
    return (const char *) tg_at(block, ref.off);
}

/* --- state objects: outside the block, changed by every worker, atomically --- */

/* Latency bounds in ms: 1 2.5 5 10 25 50 100 250 500 1000 2500 and above. */
#define TG_LATENCY_BUCKETS  12

typedef struct {
    uint64_t  status[5];        /* responses 1xx (and 101) to 5xx */
    uint64_t  denied;           /* of them, refused by authentication */
    uint64_t  throttled;        /* of them, refused by a quota */
    uint64_t  bytes_in;         /* request line, headers, body */
    uint64_t  bytes_out;
    uint64_t  latency_us;       /* sum */
    uint64_t  latency[TG_LATENCY_BUCKETS];

    /* Not a counter: unique in the life of the zone, so that who adds reports up
     * can tell these from others that the same route has had, or will have. */
    uint64_t  life;
} tg_counters_t;

typedef struct {
    _Alignas(16) uint64_t  key; /* hash of the consumer; 0: never used */
    uint64_t  word;             /* as tg_quota_state_t.word */
    char      name[48];         /* consumer, cut; for reports only */
} tg_quota_bucket_t;

/* word: tg_quota.h says what is in it for each metric and window. */
typedef struct {
    uint64_t           word;        /* the one bucket; overflow when keyed */
    uint64_t           throttled;
    tg_quota_bucket_t  bucket[];    /* TG_QUOTA_KEYS when keyed */
} tg_quota_state_t;

typedef struct {
    uint64_t  down_until;       /* ms, CLOCK_MONOTONIC; 0: up */
    uint64_t  up_since;         /* ms; start of the slow start; 0: long ago */
    uint32_t  fails;
    uint32_t  outstanding;
    uint64_t  fail_window;      /* ms: when the present count of fails began */
} tg_endpoint_state_t;

typedef struct {
    uint32_t  outstanding;
    uint32_t  cursor;           /* round robin */
} tg_upstream_state_t;

#endif /* TG_BLOCK_H */
