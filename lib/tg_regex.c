/* SPDX-License-Identifier: BSD-2-Clause */

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define PCRE2_CODE_UNIT_WIDTH  8
#include <pcre2.h>

#include <sys/random.h>

#include "tg_block.h"
#include "tg_hash.h"
#include "tg_regex.h"

/* Entries of one set: a pattern is looked for only in these. */
#define TG_REGEX_WAYS  4
#define TG_REGEX_SETS  (TG_REGEX_CACHE / TG_REGEX_WAYS)

/* The interpreter matches: code of PCRE2's JIT does not count the steps back into
 * a group, so (a|a)(a|a)(a|a)... ran for ever, whatever the limit.
 *
 * No UTF: a path is bytes and need not be UTF-8, and \C and UCP would make the
 * cost depend on them.  $ is the end and not a newline before it. */
#define TG_REGEX_OPTIONS                                                      \
    (PCRE2_ANCHORED | PCRE2_ENDANCHORED | PCRE2_DOLLAR_ENDONLY                \
     | PCRE2_NEVER_UTF | PCRE2_NEVER_UCP | PCRE2_NEVER_BACKSLASH_C)

typedef struct {
    char         *pattern;      /* NULL: a free entry */
    size_t        len;
    uint64_t      hash;
    uint64_t      used;         /* clock of the last use */
    pcre2_code   *code;
} tg_regex_entry_t;

static struct {
    tg_regex_entry_t     *entry;        /* TG_REGEX_CACHE */
    pcre2_match_context  *light;        /* tried first */
    pcre2_match_context  *context;
    pcre2_match_data     *match;        /* one pair: only yes or no is asked */
    unsigned              heavy;        /* matches of this request beyond it */
    uint64_t              clock;
    uint64_t              seed;     /* secret: nobody can aim at a set */
    size_t                cached;
    size_t                compiled;
} cache;


static pcre2_code *
tg_regex_compile(const char *pattern, size_t len, tg_error_t *err)
{
    int           code;
    size_t        offset;
    pcre2_code   *re;
    PCRE2_UCHAR   text[128];

    if (len == 0 || len > TG_MAX_REGEX) {
        tg_error_set(err, "", "a pattern has 1 to %d bytes", TG_MAX_REGEX);
        return NULL;
    }

    re = pcre2_compile((PCRE2_SPTR) pattern, len, TG_REGEX_OPTIONS, &code,
                       &offset, NULL);

    if (re == NULL) {
        (void) pcre2_get_error_message(code, text, sizeof(text));
        tg_error_set(err, "", "the pattern is wrong at byte %zu: %s", offset,
                     (char *) text);
    }

    return re;
}


static pcre2_match_context *
tg_regex_context(uint32_t steps)
{
    pcre2_match_context  *context;

    context = pcre2_match_context_create(NULL);

    if (context != NULL) {
        pcre2_set_match_limit(context, steps);
        pcre2_set_depth_limit(context, TG_REGEX_DEPTH_LIMIT);
        pcre2_set_heap_limit(context, TG_REGEX_HEAP_LIMIT);
    }

    return context;
}


static int
tg_regex_init(void)
{
    if (cache.entry == NULL) {
        if (getrandom(&cache.seed, sizeof(cache.seed), GRND_NONBLOCK) < 0) {
            cache.seed = (uintptr_t) &cache.seed;
        }

        cache.entry = calloc(TG_REGEX_CACHE, sizeof(tg_regex_entry_t));
    }

    if (cache.match == NULL) {
        cache.match = pcre2_match_data_create(1, NULL);
    }

    if (cache.light == NULL) {
        cache.light = tg_regex_context(TG_REGEX_LIGHT_LIMIT);
    }

    if (cache.context == NULL) {
        cache.context = tg_regex_context(TG_REGEX_MATCH_LIMIT);
    }

    return cache.entry != NULL && cache.match != NULL && cache.light != NULL
           && cache.context != NULL;
}


/* Some patterns fail whatever they are matched with, as one that calls itself
 * without end does: these are found by trying. */
int
tg_regex_check(const char *pattern, size_t len, tg_error_t *err)
{
    int          rc;
    pcre2_code  *re;

    re = tg_regex_compile(pattern, len, err);

    if (re == NULL) {
        return -1;
    }

    if (!tg_regex_init()) {
        pcre2_code_free(re);
        tg_error_set(err, "", "no memory");
        return -1;
    }

    rc = pcre2_match(re, (PCRE2_SPTR) "/", 1, 0, 0, cache.match, cache.context);
    pcre2_code_free(re);

    if (rc < 0 && rc != PCRE2_ERROR_NOMATCH) {
        tg_error_set(err, "", "the pattern cannot be matched: it loops, or sets "
                     "itself too low a limit");
        return -1;
    }

    return 0;
}


static void
tg_regex_forget(tg_regex_entry_t *entry)
{
    if (entry->pattern != NULL) {
        pcre2_code_free(entry->code);
        free(entry->pattern);
        memset(entry, 0, sizeof(*entry));
        cache.cached--;
    }
}


static int
tg_regex_remember(tg_regex_entry_t *entry, uint64_t hash, const char *pattern,
    size_t len)
{
    char        *copy;
    pcre2_code  *re;

    copy = malloc(len + 1);
    re = tg_regex_compile(pattern, len, NULL);

    if (copy == NULL || re == NULL) {
        pcre2_code_free(re);
        free(copy);
        return -1;
    }

    memcpy(copy, pattern, len);
    copy[len] = '\0';

    tg_regex_forget(entry);

    entry->pattern = copy;
    entry->len = len;
    entry->hash = hash;
    entry->code = re;
    cache.cached++;
    cache.compiled++;

    return 0;
}


static tg_regex_entry_t *
tg_regex_find(const char *pattern, size_t len)
{
    uint64_t           hash;
    tg_regex_entry_t  *entry, *oldest;

    hash = tg_hash(pattern, len, cache.seed);
    entry = &cache.entry[(hash % TG_REGEX_SETS) * TG_REGEX_WAYS];
    oldest = entry;

    for (int i = 0; i < TG_REGEX_WAYS; i++, entry++) {
        if (entry->pattern != NULL && entry->hash == hash && entry->len == len
            && memcmp(entry->pattern, pattern, len) == 0)
        {
            entry->used = ++cache.clock;
            return entry;
        }

        if (entry->used < oldest->used) {
            oldest = entry;
        }
    }

    if (tg_regex_remember(oldest, hash, pattern, len) != 0) {
        return NULL;
    }

    oldest->used = ++cache.clock;
    return oldest;
}


void
tg_regex_begin(void)
{
    cache.heavy = 0;
}


tg_regex_e
tg_regex_match(const char *pattern, size_t len, const char *subject,
    size_t subject_len)
{
    int                rc;
    tg_regex_entry_t  *entry;

    if (subject_len > TG_REGEX_SUBJECT || !tg_regex_init()) {
        return TG_REGEX_ERROR;
    }

    entry = tg_regex_find(pattern, len);

    if (entry == NULL) {
        return TG_REGEX_ERROR;
    }

    rc = pcre2_match(entry->code, (PCRE2_SPTR) subject, subject_len, 0, 0,
                     cache.match, cache.light);

    if (rc == PCRE2_ERROR_MATCHLIMIT && cache.heavy < TG_REGEX_HEAVY) {
        cache.heavy++;
        rc = pcre2_match(entry->code, (PCRE2_SPTR) subject, subject_len, 0, 0,
                         cache.match, cache.context);
    }

    /* 0: it matched, with more groups than we asked to be told of. */
    if (rc >= 0) {
        return TG_REGEX_MATCH;
    }

    return rc == PCRE2_ERROR_NOMATCH ? TG_REGEX_NO : TG_REGEX_ERROR;
}


void
tg_regex_stats(size_t *cached, size_t *compiled)
{
    *cached = cache.cached;
    *compiled = cache.compiled;
}


void
tg_regex_clear(void)
{
    if (cache.entry != NULL) {
        for (size_t i = 0; i < TG_REGEX_CACHE; i++) {
            tg_regex_forget(&cache.entry[i]);
        }
    }

    free(cache.entry);
    pcre2_match_data_free(cache.match);
    pcre2_match_context_free(cache.light);
    pcre2_match_context_free(cache.context);
    memset(&cache, 0, sizeof(cache));
}
