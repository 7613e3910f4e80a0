/* SPDX-License-Identifier: BSD-2-Clause */

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "tg_snapshot.h"


#define TG_DIGEST_SHOWN  16     /* hex digits of the digest in a record */

/* [" and the digest: what the digest itself does not cover. */
#define TG_RECORD_COVER  (2 + TG_DIGEST_SHOWN)


static const char  tg_record_quota[] = "quota";


/* A record that no BOOKMARK has made valid yet. */
typedef struct {
    tg_watch_type_e      type;
    tg_snapshot_entry_t  entry;
} tg_snapshot_pending_t;

struct tg_snapshot_scan_s {
    tg_chain_t              chain;
    uint64_t                offset;
    int                     header;     /* has been read */

    tg_snapshot_pending_t  *pending;
    size_t                  npending;
    size_t                  apending;

    tg_snapshot_entry_t    *entries;
    size_t                  nentries;
    size_t                  aentries;

    uint32_t               *table;      /* index in entries + 1; 0: free */
    size_t                  mask;
    uint64_t                seed;

    tg_scan_result_t        result;
};


const char *
tg_record_kind_name(int kind)
{
    return kind == TG_RECORD_QUOTA ? tg_record_quota : tg_watch_kind_name(kind);
}


static int
tg_record_kind(const char *name, size_t len)
{
    if (len == sizeof(tg_record_quota) - 1
        && memcmp(name, tg_record_quota, len) == 0)
    {
        return TG_RECORD_QUOTA;
    }

    return tg_watch_kind(name, len);
}


int
tg_chain_init(tg_chain_t *chain)
{
    memset(chain, 0, sizeof(tg_chain_t));

    chain->md = EVP_MD_fetch(NULL, "SHA2-256", NULL);
    chain->ctx = EVP_MD_CTX_new();

    if (chain->md == NULL || chain->ctx == NULL) {
        tg_chain_free(chain);
        return -1;
    }

    return 0;
}


void
tg_chain_free(tg_chain_t *chain)
{
    EVP_MD_CTX_free(chain->ctx);
    EVP_MD_free(chain->md);
    chain->ctx = NULL;
    chain->md = NULL;
}


/* Takes the chain on: with covers the digest so far too. */
static int
tg_chain_add(tg_chain_t *chain, const uint8_t *before, const char *data,
    size_t len)
{
    if (EVP_DigestInit_ex2(chain->ctx, chain->md, NULL) != 1
        || (before != NULL
            && EVP_DigestUpdate(chain->ctx, before, TG_SNAPSHOT_DIGEST) != 1)
        || EVP_DigestUpdate(chain->ctx, data, len) != 1
        || EVP_DigestFinal_ex(chain->ctx, chain->digest, NULL) != 1)
    {
        return -1;
    }

    return 0;
}


static void
tg_chain_show(const tg_chain_t *chain, char hex[TG_DIGEST_SHOWN])
{
    static const char  digits[] = "0123456789abcdef";

    for (size_t i = 0; i < TG_DIGEST_SHOWN; i++) {
        hex[i] = digits[chain->digest[i / 2] >> (i % 2 ? 0 : 4) & 0xf];
    }
}


int
tg_snapshot_header(tg_text_t *out, tg_chain_t *chain, const char *registry,
    const char *gateway)
{
    size_t  start;

    start = out->len;

    tg_text_str(out, "{\"tiergate_snapshot\":1,\"registry\":");
    tg_text_json(out, registry, strlen(registry));
    tg_text_str(out, ",\"gateway\":");
    tg_text_json(out, gateway, strlen(gateway));
    tg_text_str(out, "}\n");

    if (out->failed) {
        return -1;
    }

    return tg_chain_add(chain, NULL, out->data + start, out->len - start - 1);
}


int
tg_snapshot_record(tg_text_t *out, tg_chain_t *chain, const tg_record_t *record)
{
    size_t  start;

    start = out->len;

    tg_text_str(out, "[\"                \",\"");
    tg_text_str(out, tg_watch_type_name(record->type));
    tg_text_str(out, "\",\"");
    tg_text_str(out, tg_record_kind_name(record->kind));
    tg_text_str(out, "\",");
    tg_text_u64(out, record->number);
    tg_text_str(out, ",");
    tg_text_add(out, record->line, record->len);
    tg_text_str(out, "]\n");

    if (out->failed
        || tg_chain_add(chain, chain->digest,
                        out->data + start + TG_RECORD_COVER,
                        out->len - start - TG_RECORD_COVER - 1) != 0)
    {
        return -1;
    }

    tg_chain_show(chain, out->data + start + 2);
    return 0;
}


/* Takes s off the front of what is at *p. */
static int
tg_skip(const char **p, const char *end, const char *s)
{
    size_t  len;

    len = strlen(s);

    if ((size_t) (end - *p) < len || memcmp(*p, s, len) != 0) {
        return -1;
    }

    *p += len;
    return 0;
}


/* Takes a word in quotes; NULL: there is none. */
static const char *
tg_word(const char **p, const char *end, size_t *len)
{
    const char  *word, *quote;

    if (tg_skip(p, end, "\"") != 0) {
        return NULL;
    }

    word = *p;
    quote = memchr(word, '"', (size_t) (end - word));

    if (quote == NULL) {
        return NULL;
    }

    *len = (size_t) (quote - word);
    *p = quote + 1;

    return word;
}


static int
tg_number(const char **p, const char *end, uint64_t *n)
{
    const char  *start;

    start = *p;
    *n = 0;

    while (*p < end && isdigit((unsigned char) **p) && *n >> 53 == 0) {
        *n = *n * 10 + (uint64_t) (**p - '0');
        (*p)++;
    }

    return *p == start || *n >> 53 ? -1 : 0;
}


int
tg_snapshot_parse(const char *line, size_t len, tg_record_t *record)
{
    size_t       n;
    const char  *p, *end, *word;

    p = line;
    end = line + len;

    if (tg_skip(&p, end, "[") != 0 || tg_word(&p, end, &n) == NULL
        || n != TG_DIGEST_SHOWN || tg_skip(&p, end, ",") != 0)
    {
        return -1;
    }

    word = tg_word(&p, end, &n);
    record->type = word ? tg_watch_type(word, n) : 0;

    if (record->type == 0 || tg_skip(&p, end, ",") != 0) {
        return -1;
    }

    word = tg_word(&p, end, &n);
    record->kind = word ? tg_record_kind(word, n) : 0;

    if (word == NULL || (record->kind == 0) != (n == 0)
        || (record->kind == 0) != (record->type == TG_WATCH_BOOKMARK)
        || tg_skip(&p, end, ",") != 0
        || tg_number(&p, end, &record->number) != 0
        || tg_skip(&p, end, ",{") != 0 || end - p < 2 || end[-1] != ']'
        || end[-2] != '}')
    {
        return -1;
    }

    record->line = p - 1;
    record->len = (size_t) (end - 1 - record->line);

    return 0;
}


tg_snapshot_scan_t *
tg_snapshot_scan_create(void)
{
    tg_snapshot_scan_t  *scan;

    scan = calloc(1, sizeof(*scan));

    if (scan == NULL) {
        return NULL;
    }

    if (tg_chain_init(&scan->chain) != 0) {
        free(scan);
        return NULL;
    }

    /* A seed of zero only means that a file can be made slow to read. */
    if (getrandom(&scan->seed, sizeof(scan->seed), GRND_NONBLOCK) < 0) {
        scan->seed = 0;
    }

    return scan;
}


void
tg_snapshot_scan_destroy(tg_snapshot_scan_t *scan)
{
    if (scan == NULL) {
        return;
    }

    tg_chain_free(&scan->chain);
    free(scan->pending);
    free(scan->entries);
    free(scan->table);
    free(scan);
}


/* Room for one more element; doubles. */
static void *
tg_scan_grow(void *array, size_t n, size_t *allocated, size_t size)
{
    void    *p;
    size_t   more;

    if (n < *allocated) {
        return array;
    }

    more = *allocated ? *allocated * 2 : 64;
    p = more > SIZE_MAX / size ? NULL : realloc(array, more * size);

    if (p != NULL) {
        *allocated = more;
    }

    return p;
}


/* The place in the table of an object, taken or free. */
static uint32_t *
tg_scan_place(const tg_snapshot_scan_t *scan, uint32_t kind, uint64_t id)
{
    uint64_t                    h;
    const tg_snapshot_entry_t  *entry;

    h = (id * 2 + kind) ^ scan->seed;       /* splitmix64's finish */
    h = (h ^ h >> 30) * 0xbf58476d1ce4e5b9;
    h = (h ^ h >> 27) * 0x94d049bb133111eb;
    h ^= h >> 31;

    for ( ;; h++) {
        if (scan->table[h & scan->mask] == 0) {
            break;
        }

        entry = &scan->entries[scan->table[h & scan->mask] - 1];

        if (entry->kind == kind && entry->id == id) {
            break;
        }
    }

    return &scan->table[h & scan->mask];
}


/* Keeps the table at most half full: n entries will be in it. */
static int
tg_scan_table(tg_snapshot_scan_t *scan, size_t n)
{
    size_t     size;
    uint32_t  *table;

    if (scan->table != NULL && n <= (scan->mask + 1) / 2) {
        return 0;
    }

    if (n > UINT32_MAX / 4) {
        return -1;
    }

    for (size = 256; size < n * 2; size *= 2) { /* void */ }

    table = calloc(size, sizeof(uint32_t));

    if (table == NULL) {
        return -1;
    }

    free(scan->table);
    scan->table = table;
    scan->mask = size - 1;

    for (size_t i = 0; i < scan->nentries; i++) {
        *tg_scan_place(scan, scan->entries[i].kind, scan->entries[i].id) =
            (uint32_t) i + 1;
    }

    return 0;
}


/* A BOOKMARK made this record valid. */
static int
tg_scan_commit(tg_snapshot_scan_t *scan, const tg_snapshot_pending_t *pending)
{
    uint32_t             *place;
    tg_snapshot_entry_t  *entry;

    entry = tg_scan_grow(scan->entries, scan->nentries, &scan->aentries,
                         sizeof(tg_snapshot_entry_t));

    if (entry == NULL) {
        return -1;
    }

    scan->entries = entry;

    if (tg_scan_table(scan, scan->nentries + 1) != 0) {
        return -1;
    }

    place = tg_scan_place(scan, pending->entry.kind, pending->entry.id);

    if (*place != 0) {
        entry = &scan->entries[*place - 1];

        if (entry->len) {
            scan->result.objects--;
            scan->result.bytes -= entry->len;
        }

        entry->len = 0;
    }

    if (pending->type == TG_WATCH_PUT) {
        scan->entries[scan->nentries++] = pending->entry;
        *place = (uint32_t) scan->nentries;
        scan->result.objects++;
        scan->result.bytes += pending->entry.len;
    }

    return 0;
}


static tg_scan_status_e
tg_scan_bookmark(tg_snapshot_scan_t *scan, uint64_t revision, tg_error_t *err)
{
    if (revision < scan->result.revision) {
        tg_error_set(err, "", "the revision goes back");
        return TG_SCAN_DAMAGED;
    }

    for (size_t i = 0; i < scan->npending; i++) {
        if (tg_scan_commit(scan, &scan->pending[i]) != 0) {
            return TG_SCAN_NOMEM;
        }
    }

    scan->npending = 0;
    scan->result.valid = 1;
    scan->result.revision = revision;
    scan->result.size = scan->offset;
    memcpy(scan->result.digest, scan->chain.digest, TG_SNAPSHOT_DIGEST);

    return TG_SCAN_OK;
}


/* {"tiergate_snapshot":1,"registry":...,"gateway":...} */
static int
tg_scan_members(tg_scan_result_t *result, const json_t *header)
{
    size_t         len;
    const json_t  *version, *registry, *gateway;

    version = json_object_get(header, "tiergate_snapshot");
    registry = json_object_get(header, "registry");
    gateway = json_object_get(header, "gateway");

    if (!json_is_integer(version) || json_integer_value(version) != 1
        || !json_is_string(registry) || !json_is_string(gateway)
        || tg_uuid_copy(result->registry, json_string_value(registry),
                        json_string_length(registry)) != 0)
    {
        return -1;
    }

    len = json_string_length(gateway);

    if (len == 0 || len > TG_SNAPSHOT_GATEWAY) {
        return -1;
    }

    memcpy(result->gateway, json_string_value(gateway), len + 1);
    return 0;
}


static tg_scan_status_e
tg_scan_header(tg_snapshot_scan_t *scan, const char *line, size_t len,
    tg_error_t *err)
{
    int      rc;
    json_t  *json;

    json = json_loadb(line, len, JSON_REJECT_DUPLICATES, NULL);
    rc = tg_scan_members(&scan->result, json);
    json_decref(json);

    if (rc != 0 || tg_chain_add(&scan->chain, NULL, line, len) != 0) {
        tg_error_set(err, "", "no snapshot header of version 1");
        return TG_SCAN_DAMAGED;
    }

    scan->header = 1;
    scan->offset += len + 1;

    return TG_SCAN_OK;
}


tg_scan_status_e
tg_snapshot_scan_line(tg_snapshot_scan_t *scan, const char *line, size_t len,
    tg_error_t *err)
{
    char                    digest[TG_DIGEST_SHOWN];
    tg_record_t             record;
    tg_snapshot_pending_t  *pending;

    if (!scan->header) {
        return tg_scan_header(scan, line, len, err);
    }

    if (tg_snapshot_parse(line, len, &record) != 0) {
        tg_error_set(err, "", "not a record");
        return TG_SCAN_DAMAGED;
    }

    if (tg_chain_add(&scan->chain, scan->chain.digest, line + TG_RECORD_COVER,
                     len - TG_RECORD_COVER) != 0)
    {
        return TG_SCAN_NOMEM;
    }

    tg_chain_show(&scan->chain, digest);

    if (memcmp(digest, line + 2, TG_DIGEST_SHOWN) != 0) {
        tg_error_set(err, "", "wrong digest");
        return TG_SCAN_DAMAGED;
    }

    scan->offset += len + 1;

    if (record.type == TG_WATCH_BOOKMARK) {
        return tg_scan_bookmark(scan, record.number, err);
    }

    pending = tg_scan_grow(scan->pending, scan->npending, &scan->apending,
                           sizeof(tg_snapshot_pending_t));

    if (pending == NULL) {
        return TG_SCAN_NOMEM;
    }

    scan->pending = pending;
    pending += scan->npending++;

    pending->type = record.type;
    pending->entry.offset = scan->offset - len - 1
                            + (uint64_t) (record.line - line);
    pending->entry.len = (uint32_t) record.len;
    pending->entry.kind = (uint32_t) record.kind;
    pending->entry.id = record.number;

    return TG_SCAN_OK;
}


void
tg_snapshot_scan_result(const tg_snapshot_scan_t *scan,
    tg_scan_result_t *result)
{
    *result = scan->result;
    result->entries = scan->entries;
    result->nentries = scan->nentries;
}


const tg_snapshot_entry_t *
tg_snapshot_scan_find(const tg_snapshot_scan_t *scan, int kind, uint64_t id)
{
    uint32_t  place;

    if (scan->table == NULL) {
        return NULL;
    }

    place = *tg_scan_place(scan, (uint32_t) kind, id);

    if (place == 0 || scan->entries[place - 1].len == 0) {
        return NULL;
    }

    return &scan->entries[place - 1];
}


uint64_t
tg_snapshot_scan_offset(const tg_snapshot_scan_t *scan)
{
    return scan->offset;
}
