/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * A zone with one tenant whose quotas a test says, and a clock that the test
 * sets.
 */

#ifndef QUOTA_FIXTURE_H
#define QUOTA_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "tg_compile.h"
#include "tg_quota.h"
#include "tg_quota_internal.h"

#define ZONE_SIZE  (4 * 1024 * 1024)
#define SECOND     UINT64_C(1000000)

/* 2026-02-27 23:59:50 UTC */
#define UNIX       UINT64_C(1772236790)

typedef struct {
    tg_zone_t         *zone;
    void              *base;
    int                slot;
    uint64_t           revision;
    const tg_block_t  *block;
    tg_pin_t          *pin;
    tg_quota_now_t     now;
} fixture_t;


static inline void
quote(char *text)
{
    for ( /* void */ ; *text; text++) {
        if (*text == '\'') {
            *text = '"';
        }
    }
}


/* Publishes a version with these hosts, quotas and further members, as of f->now;
 * pins it. */
static inline void
publish_all(fixture_t *f, const char *hosts, const char *quotas,
    const char *boost, const char *members)
{
    char             text[16384];
    tg_error_t       err;
    tg_block_t      *image, *block;
    tg_zone_clock_t  clock;

    snprintf(text, sizeof(text),
             "{'name':'t','id':7,'revision':%llu,'state':'active','boost':%s,"
             "'hosts':[%s],'issuers':[],'api_keys':[],'upstreams':["
             "{'id':1,'name':'u','endpoints':[]}],'routes':["
             "{'id':1,'name':'a','match':{'path':{'type':'prefix','value':'/a'}},"
             "'backends':[{'upstream':'u','weight':1}]},"
             "{'id':2,'name':'b','match':{'path':{'type':'prefix','value':'/b'}},"
             "'backends':[{'upstream':'u','weight':1}]}],'quotas':[%s]%s}",
             (unsigned long long) ++f->revision, boost ? boost : "null",
             hosts, quotas, members);
    quote(text);

    image = tg_compile(text, strlen(text), TG_KIND_TENANT, NULL, &err);

    if (image == NULL) {
        fail_msg("%s: %s", err.pointer, err.message);
    }

    clock.mono_us = f->now.mono_us;
    clock.unix_us = f->now.unix_s * SECOND;
    assert_int_equal(tg_zone_put_at(f->zone, image, &clock), TG_ZONE_OK);
    tg_compile_free(image);

    tg_zone_enter(f->zone, f->slot);
    block = (tg_block_t *) (uintptr_t) tg_zone_find_tenant(f->zone, "t", 1);
    assert_non_null(block);
    f->pin = tg_zone_pin(f->zone, f->slot, block);
    assert_non_null(f->pin);
    tg_zone_exit(f->zone, f->slot);

    f->block = block;
}


static inline void
publish_more(fixture_t *f, const char *quotas, const char *boost,
    const char *members)
{
    publish_all(f, "", quotas, boost, members);
}


static inline void
publish_host(fixture_t *f, const char *quotas, const char *host)
{
    char  hosts[128];

    snprintf(hosts, sizeof(hosts), "'%s'", host);
    publish_all(f, hosts, quotas, NULL, "");
}


static inline void
publish(fixture_t *f, const char *quotas, const char *boost)
{
    publish_more(f, quotas, boost, "");
}


static inline int
setup(void **state)
{
    uint8_t     boot[16] = { 1 };
    fixture_t  *f;

    f = calloc(1, sizeof(*f));
    assert_non_null(f);

    f->base = mmap(NULL, ZONE_SIZE, PROT_READ | PROT_WRITE,
                   MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(f->base != MAP_FAILED);
    f->zone = tg_zone_create(f->base, ZONE_SIZE, 42, boot);
    assert_non_null(f->zone);
    f->slot = tg_zone_slot_take(f->zone, getpid(), 64);
    assert_true(f->slot >= 0);
    f->now.mono_us = 1000 * SECOND;
    f->now.unix_s = UNIX;
    *state = f;

    return 0;
}


static inline int
teardown(void **state)
{
    fixture_t  *f = *state;

    munmap(f->base, ZONE_SIZE);
    free(f);

    return 0;
}


static inline void
select_set(fixture_t *f, tg_quota_set_t *set, int route, const char *consumer)
{
    tg_quota_select(set, f->zone, f->block,
                    tg_vec(f->block, f->block->routes, tg_route_t) + route,
                    consumer, strlen(consumer));
}


static inline tg_quota_verdict_e
check_as(fixture_t *f, int route, const char *consumer,
    tg_quota_result_t *result)
{
    tg_quota_set_t  set;

    select_set(f, &set, route, consumer);

    return tg_quota_check(&set, f->pin, &f->now, result);
}


/* How many of n requests are admitted at this moment. */
static inline unsigned
admitted_as(fixture_t *f, const char *consumer, unsigned n)
{
    unsigned           admitted;
    tg_quota_result_t  result;

    for (admitted = 0; n > 0; n--) {
        admitted += check_as(f, 0, consumer, &result) == TG_QUOTA_OK;
    }

    return admitted;
}


static inline unsigned
admitted(fixture_t *f, unsigned n)
{
    return admitted_as(f, "", n);
}


static inline tg_quota_state_t *
state_of(fixture_t *f, unsigned i)
{
    return tg_zone_ptr(f->zone,
                       tg_vec(f->block, f->block->quotas, tg_quota_t)[i].state);
}

#define TEST(name)  cmocka_unit_test_setup_teardown(name, setup, teardown)

#endif /* QUOTA_FIXTURE_H */
