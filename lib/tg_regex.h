/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Tenants' regular expressions: PCRE2, bytes, anchored at both ends, and bounded
 * in what one match may cost, since both the pattern and the subject are other
 * people's.
 *
 * Each process has one cache of compiled patterns, keyed by the pattern's text,
 * so that neither a new version of a tenant nor another tenant with the same
 * pattern compiles it again.  Not for several threads.
 */

#ifndef TG_REGEX_H
#define TG_REGEX_H

#include <stddef.h>

#include "tg_error.h"

/* Compiled patterns that a process keeps; the oldest of a set goes first. */
#define TG_REGEX_CACHE  4096

/* Backtracking steps, nesting and KiB of heap of one match. */
#define TG_REGEX_MATCH_LIMIT  20000
#define TG_REGEX_DEPTH_LIMIT  1000
#define TG_REGEX_HEAP_LIMIT   256

/* Of the matches of one request, so many may take more steps than the light
 * limit: else a thousand patterns would cost a thousand times what one may. */
#define TG_REGEX_LIGHT_LIMIT  500
#define TG_REGEX_HEAVY        16

/* A subject longer than this never matches: TG_REGEX_ERROR. */
#define TG_REGEX_SUBJECT      8192

typedef enum {
    TG_REGEX_NO = 0,
    TG_REGEX_MATCH = 1,
    TG_REGEX_ERROR = -1     /* a limit, or no memory: nobody knows */
} tg_regex_e;

/* Whether the pattern compiles: 0, or -1 with the reason and its place in err
 * (its pointer is left empty). */
int tg_regex_check(const char *pattern, size_t len, tg_error_t *err);

/* What is matched from now on is of another request. */
void tg_regex_begin(void);

/* Matches the whole subject. */
tg_regex_e tg_regex_match(const char *pattern, size_t len, const char *subject,
    size_t subject_len);

/* Patterns in the cache, and how often one was compiled: for tests. */
void tg_regex_stats(size_t *cached, size_t *compiled);

/* Frees the cache of this process. */
void tg_regex_clear(void);

#endif /* TG_REGEX_H */
