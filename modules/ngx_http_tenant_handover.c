/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Tells tenantd what a tenant that moves to another gateway has used of its quotas
 * here (docs/reference/watch.md).
 *
 *  1. A version with a new hand-over is noted when it is published, or found when
 *     this worker begins to lead.  It is reported when no request can be charged by
 *     an older version any more: tg_zone_settled().  What then is charged here, if
 *     this version still decides requests, is not told.
 *  2. The report is made once, and its text is sent until tenantd takes it, or says
 *     that it does not wait for it.  A leader that comes in between makes its own:
 *     tenantd takes the first of each gateway.
 *  3. When tenantd has taken it, what was told is taken off here, provided that
 *     this gateway decides nothing of the tenant: should it come back, it brings
 *     that along.
 *  4. What was finished is remembered in shared memory, for a while: to forget it
 *     means to report once more, which tenantd then refuses.
 */

#include "ngx_http_tenant_usage.h"

#include "../lib/tg_handover.h"


#define NGX_HTTP_TENANT_HANDOVER_LOOK     5     /* ms between two looks, */
#define NGX_HTTP_TENANT_HANDOVER_SLOW     100   /* after a while */
#define NGX_HTTP_TENANT_HANDOVER_WHILE    3000
#define NGX_HTTP_TENANT_HANDOVER_TIMEOUT  2000
#define NGX_HTTP_TENANT_HANDOVER_FIRST    50    /* ms to the next try, */
#define NGX_HTTP_TENANT_HANDOVER_SLOWEST  1000  /* doubled up to this */


static void ngx_http_tenant_handover_done(void *data, ngx_int_t rc);


typedef struct {
    ngx_queue_t               queue;
    ngx_msec_t                noted;
    uint64_t                  tenant;       /* id */
    uint32_t                  id;           /* of the hand-over */
    char                      name[TG_MAX_NAME + 1];
} ngx_http_tenant_move_t;


typedef struct {
    ngx_http_tenant_client_t  client;
    ngx_connection_t          dumb;
    ngx_event_t               timer;        /* the next look, or the next try */
    char                      uri[128];
    ngx_queue_t               moves;        /* in the order of their coming */
    ngx_http_tenant_move_t   *move;         /* whose report is under way */
    ngx_msec_t                retry;        /* 0: the report waits for no try */

    tg_text_t                 body;
    tg_handover_word_t       *words;        /* that are in body */
    size_t                    nwords;
    size_t                    room;
    unsigned                  failed:1;     /* no memory for them */

    tg_carried_t              carried;      /* by the zone, until the last look */
} ngx_http_tenant_handover_t;


static const ngx_http_tenant_client_handler_t  ngx_http_tenant_handover_says = {
    ngx_http_tenant_client_said_head,
    ngx_http_tenant_client_said_body,
    NULL,
    ngx_http_tenant_handover_done
};


static ngx_http_tenant_handover_t  ngx_http_tenant_handover;


static uint64_t
ngx_http_tenant_handover_clock(void)
{
    struct timespec  ts;

    (void) clock_gettime(CLOCK_REALTIME, &ts);

    return (uint64_t) ts.tv_sec * 1000000 + (uint64_t) ts.tv_nsec / 1000;
}


/* --- which are to be reported --- */

static ngx_uint_t
ngx_http_tenant_handover_is_done(uint64_t tenant, uint32_t id)
{
    ngx_uint_t                 i;
    ngx_http_tenant_shared_t  *shared = ngx_http_tenant_sync.shared;

    for (i = 0; i < NGX_HTTP_TENANT_MOVED; i++) {
        if (shared->moved[i].tenant == tenant && shared->moved[i].id == id) {
            return 1;
        }
    }

    return 0;
}


static void
ngx_http_tenant_handover_note(const tg_block_t *block)
{
    ngx_queue_t                 *q;
    const tg_handover_t         *told;
    ngx_http_tenant_move_t      *move;
    ngx_http_tenant_handover_t  *h = &ngx_http_tenant_handover;

    told = tg_block_handover(block);

    if (told == NULL || told->id == 0
        || ngx_http_tenant_handover_is_done(block->id, told->id))
    {
        return;
    }

    for (q = ngx_queue_head(&h->moves);
         q != ngx_queue_sentinel(&h->moves);
         q = ngx_queue_next(q))
    {
        move = ngx_queue_data(q, ngx_http_tenant_move_t, queue);

        if (move->tenant == block->id && move->id == told->id) {
            return;
        }
    }

    move = ngx_calloc(sizeof(ngx_http_tenant_move_t), ngx_http_tenant_sync.log);
    if (move == NULL) {
        return;
    }

    move->noted = ngx_current_msec;
    move->tenant = block->id;
    move->id = told->id;
    ngx_memcpy(move->name, tg_str(block, block->name), block->name.len);

    ngx_queue_insert_tail(&h->moves, &move->queue);

    if (h->move == NULL && !h->timer.timer_set) {
        ngx_add_timer(&h->timer, 1);
    }
}


static int
ngx_http_tenant_handover_visit(void *data, const tg_block_t *block)
{
    if (block->handover) {
        ngx_http_tenant_handover_note(block);
    }

    return 0;
}


/* The version that a move is about; NULL: it is another one by now, which says
 * itself what is to be done.  The caller holds the zone's lock. */
static const tg_block_t *
ngx_http_tenant_handover_block(const ngx_http_tenant_move_t *move)
{
    const tg_block_t     *block;
    const tg_handover_t  *told;

    block = tg_zone_find_tenant(ngx_http_tenant_sync.zone, move->name,
                                ngx_strlen(move->name));

    if (block == NULL || block->id != move->tenant) {
        return NULL;
    }

    told = tg_block_handover(block);

    return told && told->id == move->id ? block : NULL;
}


static void
ngx_http_tenant_handover_forget(ngx_http_tenant_move_t *move)
{
    ngx_http_tenant_handover_t  *h = &ngx_http_tenant_handover;

    if (h->move == move) {
        h->move = NULL;
        h->retry = 0;
    }

    ngx_queue_remove(&move->queue);
    ngx_free(move);
}


/* --- the report --- */

static int
ngx_http_tenant_handover_word(void *data, const tg_handover_word_t *word)
{
    size_t                       room;
    tg_handover_word_t          *words;
    ngx_http_tenant_handover_t  *h = &ngx_http_tenant_handover;

    if (h->nwords == h->room) {
        room = h->room ? 2 * h->room : 64;

        words = realloc(h->words, room * sizeof(tg_handover_word_t));
        if (words == NULL) {
            h->failed = 1;
            return 1;
        }

        h->words = words;
        h->room = room;
    }

    tg_text_printf(&h->body, "%s{\"quota\":%llu", h->nwords ? "," : "",
                   (unsigned long long) word->quota);

    if (word->key) {
        tg_text_printf(&h->body, ",\"key\":\"%llx\",\"name\":",
                       (unsigned long long) word->key);
        tg_text_json(&h->body, word->name, ngx_strlen(word->name));
    }

    if (word->calendar) {
        tg_text_printf(&h->body, ",\"word\":\"%llx\"}",
                       (unsigned long long) word->value);

    } else {
        tg_text_printf(&h->body, ",\"level\":\"%llx\",\"at\":%llu}",
                       (unsigned long long) word->value,
                       (unsigned long long) word->at);
    }

    h->words[h->nwords++] = *word;

    return 0;
}


/* The caller holds the zone's lock. */
static ngx_int_t
ngx_http_tenant_handover_write(const ngx_http_tenant_move_t *move,
    const tg_block_t *block)
{
    char                         boot[33];
    tg_quota_now_t               now;
    ngx_http_tenant_handover_t  *h = &ngx_http_tenant_handover;

    tg_hex128(tg_zone_boot(ngx_http_tenant_sync.zone), boot);
    now = ngx_http_tenant_quota_now();
    h->nwords = 0;
    h->failed = 0;

    tg_text_reset(&h->body);
    tg_text_printf(&h->body, "{\"boot\":\"%s\",\"handover\":%u,"
                   "\"tenant\":\"%s\",\"id\":%llu,", boot,
                   (unsigned) move->id, move->name,
                   (unsigned long long) move->tenant);

    if (block->carried && block->carried_whole) {
        tg_text_printf(&h->body, "\"carried\":%u,", (unsigned) block->carried);
    }

    tg_text_str(&h->body, "\"words\":[");

    (void) tg_handover_export(ngx_http_tenant_sync.zone, block, &now,
                              ngx_http_tenant_handover_clock(),
                              ngx_http_tenant_handover_word, NULL);

    tg_text_str(&h->body, "]}");

    return h->failed || h->body.failed ? NGX_ERROR : NGX_OK;
}


static void
ngx_http_tenant_handover_send(void)
{
    const tg_block_t            *block;
    ngx_http_tenant_handover_t  *h = &ngx_http_tenant_handover;

    ngx_http_tenant_sync_lock();
    block = ngx_http_tenant_handover_block(h->move);
    ngx_http_tenant_sync_unlock();

    if (block == NULL) {
        ngx_http_tenant_handover_forget(h->move);
        ngx_add_timer(&h->timer, 1);
        return;
    }

    if (ngx_http_tenant_client_request(&h->client, "POST", h->uri, &h->body)
        != NGX_OK)
    {
        ngx_http_tenant_handover_done(NULL, NGX_ERROR);
    }
}


/* NGX_OK: its report can be sent; NGX_AGAIN: not yet; NGX_DECLINED: never. */
static ngx_int_t
ngx_http_tenant_handover_try(const ngx_http_tenant_move_t *move)
{
    ngx_int_t          rc;
    const tg_block_t  *block;

    ngx_http_tenant_sync_lock();

    block = ngx_http_tenant_handover_block(move);

    if (block == NULL) {
        rc = NGX_DECLINED;

    } else if (!tg_zone_settled(ngx_http_tenant_sync.zone, block)) {
        rc = NGX_AGAIN;

    } else {
        rc = ngx_http_tenant_handover_write(move, block);
    }

    ngx_http_tenant_sync_unlock();

    return rc;
}


/* Looks for one that can be reported now. */
static void
ngx_http_tenant_handover_look(void)
{
    ngx_int_t                    rc;
    ngx_msec_t                   delay;
    ngx_queue_t                 *q, *next;
    ngx_http_tenant_move_t      *move;
    ngx_http_tenant_handover_t  *h = &ngx_http_tenant_handover;

    delay = NGX_HTTP_TENANT_HANDOVER_SLOW;

    for (q = ngx_queue_head(&h->moves);
         q != ngx_queue_sentinel(&h->moves);
         q = next)
    {
        next = ngx_queue_next(q);
        move = ngx_queue_data(q, ngx_http_tenant_move_t, queue);

        rc = ngx_http_tenant_handover_try(move);

        if (rc == NGX_OK) {
            h->move = move;
            ngx_http_tenant_handover_send();
            return;
        }

        if (rc == NGX_DECLINED) {
            ngx_http_tenant_handover_forget(move);

        } else if (ngx_current_msec - move->noted
                   < NGX_HTTP_TENANT_HANDOVER_WHILE)
        {
            delay = NGX_HTTP_TENANT_HANDOVER_LOOK;
        }
    }

    if (!ngx_queue_empty(&h->moves)) {
        ngx_add_timer(&h->timer, delay);
    }
}


/* --- the answer --- */

/* tenantd has it: this gateway has it no more. */
static void
ngx_http_tenant_handover_take(const ngx_http_tenant_move_t *move)
{
    size_t                       i;
    uint64_t                     unix_us;
    tg_quota_now_t               now;
    const tg_block_t            *block;
    ngx_http_tenant_handover_t  *h = &ngx_http_tenant_handover;

    ngx_http_tenant_sync_lock();

    block = tg_zone_find_tenant(ngx_http_tenant_sync.zone, move->name,
                                ngx_strlen(move->name));

    if (block && block->id == move->tenant && block->flags) {
        now = ngx_http_tenant_quota_now();
        unix_us = ngx_http_tenant_handover_clock();

        for (i = 0; i < h->nwords; i++) {
            tg_handover_take(ngx_http_tenant_sync.zone, block, &h->words[i],
                             &now, unix_us);
        }

        ngx_http_tenant_counts_replace(block, &now);
        tg_zone_touch(ngx_http_tenant_sync.zone, block->slot);
    }

    ngx_http_tenant_sync_unlock();

    ngx_log_error(NGX_LOG_NOTICE, ngx_http_tenant_sync.log, 0,
                  "tenant \"%s\": handed %uz counts over (%uD)", move->name,
                  h->nwords, move->id);
}


static void
ngx_http_tenant_handover_finish(ngx_uint_t taken)
{
    ngx_uint_t                   i;
    ngx_http_tenant_move_t      *move;
    ngx_http_tenant_handover_t  *h = &ngx_http_tenant_handover;
    ngx_http_tenant_shared_t    *shared = ngx_http_tenant_sync.shared;

    move = h->move;

    if (taken) {
        ngx_http_tenant_handover_take(move);
    }

    i = shared->nmoved++ % NGX_HTTP_TENANT_MOVED;
    shared->moved[i].tenant = move->tenant;
    shared->moved[i].id = move->id;

    ngx_http_tenant_handover_forget(move);

    if (!ngx_queue_empty(&h->moves)) {
        ngx_add_timer(&h->timer, 1);
    }
}


/* Whether the answer says that there is no use in asking again. */
static ngx_uint_t
ngx_http_tenant_handover_is_final(int status)
{
    switch (status) {
    case 400: case 404: case 409: case 410: case 413: case 422:
        return 1;
    default:
        return 0;
    }
}


static void
ngx_http_tenant_handover_done(void *data, ngx_int_t rc)
{
    int                          status;
    ngx_http_tenant_handover_t  *h = &ngx_http_tenant_handover;
    ngx_http_tenant_shared_t    *shared = ngx_http_tenant_sync.shared;

    if (ngx_exiting) {
        ngx_http_tenant_sync_stop();
        return;
    }

    status = (rc == NGX_OK) ? h->client.response.status : 0;

    if (status / 100 == 2) {
        shared->handovers[0]++;
        ngx_http_tenant_handover_finish(1);
        return;
    }

    shared->handovers[1]++;

    if (status) {
        ngx_http_tenant_client_said(&h->client);

        if (ngx_http_tenant_handover_is_final(status)) {
            ngx_http_tenant_handover_finish(0);
            return;
        }
    }

    h->retry = h->retry ? ngx_min(h->retry * 2,
                                  NGX_HTTP_TENANT_HANDOVER_SLOWEST)
                        : NGX_HTTP_TENANT_HANDOVER_FIRST;

    ngx_add_timer(&h->timer, h->retry);
}


static void
ngx_http_tenant_handover_timer(ngx_event_t *ev)
{
    ngx_http_tenant_handover_t  *h = &ngx_http_tenant_handover;

    if (ngx_exiting) {
        ngx_http_tenant_sync_stop();
        return;
    }

    if (h->move == NULL) {
        ngx_http_tenant_handover_look();

    } else if (!ngx_http_tenant_client_busy(&h->client)) {
        ngx_http_tenant_handover_send();
    }
}


/* --- what the stream brings --- */

/* Counts of other gateways that were added for the version that was just put. */
static void
ngx_http_tenant_handover_tell_carry(const tg_block_t *block)
{
    tg_carried_t                *seen = &ngx_http_tenant_handover.carried;
    tg_zone_stats_t              stats;
    const tg_carried_t          *now = &stats.carried;

    tg_zone_stats(ngx_http_tenant_sync.zone, &stats);

    if (ngx_memcmp(seen, now, sizeof(tg_carried_t)) == 0) {
        return;
    }

    ngx_log_error(NGX_LOG_NOTICE, ngx_http_tenant_sync.log, 0,
                  "tenant \"%s\": took %uL counts of other gateways over, %uL of "
                  "them cut at the limit, %uL in a bucket that consumers share; "
                  "passed over %uL", tg_str(block, block->name),
                  now->added - seen->added, now->capped - seen->capped,
                  now->shared - seen->shared, now->passed - seen->passed);

    *seen = *now;
}


void
ngx_http_tenant_handover_put(const tg_block_t *block)
{
    if (block->handover) {
        ngx_http_tenant_handover_tell_carry(block);
        ngx_http_tenant_handover_note(block);
    }
}


/* --- life --- */

void
ngx_http_tenant_handover_start(void)
{
    tg_zone_stats_t              stats;
    ngx_http_tenant_handover_t  *h = &ngx_http_tenant_handover;

    ngx_memzero(h, sizeof(ngx_http_tenant_handover_t));
    ngx_queue_init(&h->moves);

    tg_zone_stats(ngx_http_tenant_sync.zone, &stats);
    h->carried = stats.carried;

    (void) snprintf(h->uri, sizeof(h->uri), "/v1/gateways/%.*s/handover",
                    (int) ngx_http_tenant_sync.tmcf->gateway.len,
                    ngx_http_tenant_sync.tmcf->gateway.data);

    h->client.data = &h->client;
    h->client.timeout = NGX_HTTP_TENANT_HANDOVER_TIMEOUT;
    ngx_http_tenant_sync_client(&h->client, "hand-over",
                                &ngx_http_tenant_handover_says);
    ngx_http_tenant_event_init(&h->timer, &h->dumb,
                               ngx_http_tenant_handover_timer, NULL);

    ngx_http_tenant_sync_lock();
    (void) tg_zone_visit_all(ngx_http_tenant_sync.zone,
                             ngx_http_tenant_handover_visit, NULL);
    ngx_http_tenant_sync_unlock();
}


void
ngx_http_tenant_handover_stop(void)
{
    ngx_queue_t                 *q;
    ngx_http_tenant_handover_t  *h = &ngx_http_tenant_handover;

    if (h->moves.next == NULL) {
        return;     /* this worker ends before it came to follow the stream */
    }

    if (h->timer.timer_set) {
        ngx_del_timer(&h->timer);
    }

    ngx_http_tenant_client_close(&h->client);

    while (!ngx_queue_empty(&h->moves)) {
        q = ngx_queue_head(&h->moves);
        ngx_http_tenant_handover_forget(
                            ngx_queue_data(q, ngx_http_tenant_move_t, queue));
    }

    tg_text_free(&h->body);
    free(h->words);
    h->words = NULL;
    h->room = 0;
}
