/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Who of the workers leads the synchronisation with the registry, and what says
 * whether the gateway is ready.
 */

#include "ngx_http_tenant_sync.h"


#define NGX_HTTP_TENANT_SYNC_TICK    1000
#define NGX_HTTP_TENANT_SYNC_WAIT    50     /* to ask for the lead again */
#define NGX_HTTP_TENANT_SYNC_STALE   10000  /* without a beat the leader hangs */
#define NGX_HTTP_TENANT_SYNC_RELIST  60     /* s between two for want of room */


static ngx_int_t ngx_http_tenant_ready_handler(ngx_http_request_t *r);

static char *ngx_http_tenant_ready(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
static ngx_int_t ngx_http_tenant_sync_init(ngx_conf_t *cf);
static ngx_int_t ngx_http_tenant_sync_init_zone(ngx_shm_zone_t *shm_zone,
    void *data);
static ngx_int_t ngx_http_tenant_sync_init_process(ngx_cycle_t *cycle);
static void ngx_http_tenant_sync_exit_process(ngx_cycle_t *cycle);
static void ngx_http_tenant_sync_tick(ngx_event_t *ev);


ngx_http_tenant_sync_t  ngx_http_tenant_sync;

static ngx_event_t       ngx_http_tenant_sync_event;
static ngx_connection_t  ngx_http_tenant_sync_dumb;


static ngx_command_t  ngx_http_tenant_sync_commands[] = {

    { ngx_string("tenant_source"),
      NGX_HTTP_MAIN_CONF|NGX_CONF_TAKE23,
      ngx_http_tenant_source,
      NGX_HTTP_MAIN_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("tenant_snapshot"),
      NGX_HTTP_MAIN_CONF|NGX_CONF_TAKE12,
      ngx_http_tenant_snapshot_path,
      NGX_HTTP_MAIN_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("tenant_secret_key"),
      NGX_HTTP_MAIN_CONF|NGX_CONF_TAKE1,
      ngx_http_tenant_secret_key,
      NGX_HTTP_MAIN_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("tenant_ready"),
      NGX_HTTP_LOC_CONF|NGX_CONF_NOARGS,
      ngx_http_tenant_ready,
      0,
      0,
      NULL },

      ngx_null_command
};


static ngx_http_module_t  ngx_http_tenant_sync_module_ctx = {
    NULL,                                  /* preconfiguration */
    ngx_http_tenant_sync_init,             /* postconfiguration */

    ngx_http_tenant_sync_create_conf,      /* create main configuration */
    NULL,                                  /* init main configuration */

    NULL,                                  /* create server configuration */
    NULL,                                  /* merge server configuration */

    NULL,                                  /* create location configuration */
    NULL                                   /* merge location configuration */
};


ngx_module_t  ngx_http_tenant_sync_module = {
    NGX_MODULE_V1,
    &ngx_http_tenant_sync_module_ctx,      /* module context */
    ngx_http_tenant_sync_commands,         /* module directives */
    NGX_HTTP_MODULE,                       /* module type */
    NULL,                                  /* init master */
    NULL,                                  /* init module */
    ngx_http_tenant_sync_init_process,     /* init process */
    NULL,                                  /* init thread */
    NULL,                                  /* exit thread */
    ngx_http_tenant_sync_exit_process,     /* exit process */
    NULL,                                  /* exit master */
    NGX_MODULE_V1_PADDING
};


/* --- small services --- */

ngx_http_tenant_sync_conf_t *
ngx_http_tenant_sync_conf(void)
{
    ngx_http_tenant_sync_conf_t  *tscf;

    tscf = ngx_http_cycle_get_module_main_conf(ngx_cycle,
                                               ngx_http_tenant_sync_module);

    return tscf && tscf->shared ? tscf : NULL;
}


void
ngx_http_tenant_sync_lock(void)
{
    ngx_shmtx_lock(&ngx_http_tenant_sync.tmcf->shpool->mutex);
}


void
ngx_http_tenant_sync_unlock(void)
{
    ngx_shmtx_unlock(&ngx_http_tenant_sync.tmcf->shpool->mutex);
}


void
ngx_http_tenant_shared_lock(ngx_http_tenant_sync_conf_t *conf)
{
    ngx_shmtx_lock(&conf->shpool->mutex);
}


void
ngx_http_tenant_shared_unlock(ngx_http_tenant_sync_conf_t *conf)
{
    ngx_shmtx_unlock(&conf->shpool->mutex);
}


void
ngx_http_tenant_event_init(ngx_event_t *ev, ngx_connection_t *dumb,
    void (*handler)(ngx_event_t *ev), void *data)
{
    dumb->fd = (ngx_socket_t) -1;
    dumb->data = data;

    ev->handler = handler;
    ev->data = dumb;
    ev->log = ngx_http_tenant_sync.log;
    ev->cancelable = 1;
}


void
ngx_http_tenant_printable(char *s)
{
    for ( /* void */ ; *s; s++) {
        if (*s < 0x20 || *s > 0x7e) {
            *s = '?';
        }
    }
}


uint64_t
ngx_http_tenant_now_us(void)
{
    struct timespec  ts;

    (void) clock_gettime(CLOCK_MONOTONIC, &ts);

    return (uint64_t) ts.tv_sec * 1000000 + (uint64_t) ts.tv_nsec / 1000;
}


void
ngx_http_tenant_sync_client(ngx_http_tenant_client_t *client, const char *what,
    const ngx_http_tenant_client_handler_t *handler)
{
    client->what = what;
    client->url = ngx_http_tenant_sync.tmcf->source;
    client->token = ngx_http_tenant_sync.tmcf->token;
    client->handler = handler;

    ngx_http_tenant_client_init(client, ngx_http_tenant_sync.log);
}


void
ngx_http_tenant_sync_set_state(ngx_http_tenant_sync_state_e state)
{
    __atomic_store_n(&ngx_http_tenant_sync.shared->state, state,
                     __ATOMIC_RELAXED);

    if (state == NGX_HTTP_TENANT_SYNC_BACKOFF
        || state == NGX_HTTP_TENANT_SYNC_OFF)
    {
        ngx_http_tenant_sync.shared->settled = 1;
    }
}


/* What shared says may be of a zone that was there before. */
static ngx_uint_t
ngx_http_tenant_sync_complete(const ngx_http_tenant_shared_t *shared,
    const tg_zone_t *zone)
{
    return tg_zone_revision(zone) != 0
           || (__atomic_load_n(&shared->loaded, __ATOMIC_RELAXED)
               && ngx_memcmp(shared->boot, tg_zone_boot(zone),
                             sizeof(shared->boot)) == 0);
}


ngx_uint_t
ngx_http_tenant_sync_loaded(void)
{
    return ngx_http_tenant_sync.shared != NULL
           && ngx_http_tenant_sync_complete(ngx_http_tenant_sync.shared,
                                            ngx_http_tenant_sync.zone);
}


ngx_uint_t
ngx_http_tenant_sync_settled(void)
{
    return ngx_http_tenant_sync.shared == NULL
           || __atomic_load_n(&ngx_http_tenant_sync.shared->settled,
                              __ATOMIC_RELAXED);
}


const char *
ngx_http_tenant_sync_state_name(const ngx_http_tenant_shared_t *shared,
    const tg_zone_t *zone)
{
    if (!ngx_http_tenant_sync_complete(shared, zone)) {
        return "loading";
    }

    return __atomic_load_n(&shared->state, __ATOMIC_RELAXED)
           == NGX_HTTP_TENANT_SYNC_FOLLOW ? "live" : "snapshot";
}


/* --- who leads --- */

static ngx_uint_t
ngx_http_tenant_sync_take_lead(void)
{
    uint64_t                   leader, now;
    ngx_http_tenant_shared_t  *shared = ngx_http_tenant_sync.shared;

    now = ngx_http_tenant_now_ms();
    leader = __atomic_load_n(&shared->leader, __ATOMIC_ACQUIRE);

    if (leader != 0 && leader != (uint64_t) ngx_pid
        && !(kill((pid_t) leader, 0) == -1 && ngx_errno == NGX_ESRCH)
        && now - __atomic_load_n(&shared->beat, __ATOMIC_RELAXED)
           < NGX_HTTP_TENANT_SYNC_STALE)
    {
        return 0;
    }

    if (!__atomic_compare_exchange_n(&shared->leader, &leader,
                                     (uint64_t) ngx_pid, 0, __ATOMIC_ACQ_REL,
                                     __ATOMIC_RELAXED))
    {
        return 0;
    }

    __atomic_store_n(&shared->beat, now, __ATOMIC_RELAXED);

    return 1;
}


static void
ngx_http_tenant_sync_follow(void)
{
    if (ngx_http_tenant_sync.tmcf->source == NULL) {
        ngx_http_tenant_sync_set_state(NGX_HTTP_TENANT_SYNC_OFF);
        return;
    }

    ngx_http_tenant_ack_start();
    ngx_http_tenant_handover_start();
    ngx_http_tenant_watch_start();
}


/* What is in shared memory was said of a zone that is not there any more. */
static void
ngx_http_tenant_sync_forget(void)
{
    size_t                     begin, end;
    ngx_http_tenant_shared_t  *shared = ngx_http_tenant_sync.shared;

    if (ngx_memcmp(shared->boot, tg_zone_boot(ngx_http_tenant_sync.zone),
                   sizeof(shared->boot)) == 0)
    {
        return;
    }

    begin = offsetof(ngx_http_tenant_shared_t, state);
    end = offsetof(ngx_http_tenant_shared_t, worker);

    ngx_http_tenant_shared_lock(ngx_http_tenant_sync.conf);

    ngx_memzero((u_char *) shared + begin, end - begin);
    ngx_memcpy(shared->boot, tg_zone_boot(ngx_http_tenant_sync.zone),
               sizeof(shared->boot));
    shared->nseries = 0;
    shared->omitted = 0;

    ngx_http_tenant_shared_unlock(ngx_http_tenant_sync.conf);
}


static void
ngx_http_tenant_sync_lead(void)
{
    ngx_http_tenant_sync.leading = 1;

    ngx_http_tenant_sync_forget();
    ngx_http_tenant_sync_set_state(NGX_HTTP_TENANT_SYNC_SNAPSHOT);

    ngx_http_tenant_usage_start();
    ngx_http_tenant_usage_again();
    ngx_http_tenant_snapshot_start(ngx_http_tenant_sync_follow);
}


void
ngx_http_tenant_sync_stop(void)
{
    if (!ngx_http_tenant_sync.leading) {
        return;
    }

    ngx_http_tenant_sync.leading = 0;

    if (ngx_http_tenant_sync.tmcf->source) {
        ngx_http_tenant_watch_stop();
        ngx_http_tenant_ack_stop();
        ngx_http_tenant_handover_stop();
    }

    ngx_http_tenant_usage_stop();
    ngx_http_tenant_snapshot_stop();

    if (ngx_http_tenant_sync.shared->leader == (uint64_t) ngx_pid) {
        __atomic_store_n(&ngx_http_tenant_sync.shared->leader, 0,
                         __ATOMIC_RELEASE);
    }
}


/* Objects found no room, and there is more of it now: have them sent again. */
static void
ngx_http_tenant_sync_room(void)
{
    tg_zone_stats_t    stats;
    static uint64_t    used;        /* when it was full, at most */
    static time_t      again;

    tg_zone_stats(ngx_http_tenant_sync.zone, &stats);

    if (!ngx_http_tenant_reject_full()) {
        used = 0;
        return;
    }

    used = ngx_max(used, stats.used);

    if (stats.used + stats.size / 64 < used && ngx_time() >= again) {
        used = 0;
        again = ngx_time() + NGX_HTTP_TENANT_SYNC_RELIST;

        ngx_log_error(NGX_LOG_NOTICE, ngx_http_tenant_sync.log, 0,
                      "tenant: the zone has room again, asking for a list");
        ngx_http_tenant_watch_relist();
    }
}


static void
ngx_http_tenant_sync_tick(ngx_event_t *ev)
{
    ngx_http_tenant_sync_t  *sync = &ngx_http_tenant_sync;

    if (ngx_exiting) {
        ngx_http_tenant_sync_stop();
        return;
    }

    if (!sync->leading) {
        if (!ngx_http_tenant_sync_take_lead()) {
            ngx_add_timer(ev, NGX_HTTP_TENANT_SYNC_WAIT);
            return;
        }

        ngx_http_tenant_sync_lead();
        ngx_add_timer(ev, NGX_HTTP_TENANT_SYNC_TICK);
        return;
    }

    if (sync->shared->leader != (uint64_t) ngx_pid) {
        ngx_log_error(NGX_LOG_WARN, sync->log, 0,
                      "tenant: this worker was away, another one leads");
        ngx_http_tenant_sync_stop();
        ngx_add_timer(ev, NGX_HTTP_TENANT_SYNC_TICK);
        return;
    }

    __atomic_store_n(&sync->shared->beat, ngx_http_tenant_now_ms(),
                     __ATOMIC_RELAXED);

    ngx_http_tenant_sync_lock();
    tg_zone_reap(sync->zone);
    tg_zone_reclaim(sync->zone);
    ngx_http_tenant_sync_unlock();

    ngx_http_tenant_snapshot_tick();
    ngx_http_tenant_sync_room();
    ngx_http_tenant_pages_tick(sync->tmcf);
    ngx_http_tenant_usage_tick();

    ngx_add_timer(ev, NGX_HTTP_TENANT_SYNC_TICK);
}


static ngx_int_t
ngx_http_tenant_sync_init_process(ngx_cycle_t *cycle)
{
    ngx_http_tenant_sync_t       *sync = &ngx_http_tenant_sync;
    ngx_http_tenant_main_conf_t  *tmcf;

    if (ngx_process != NGX_PROCESS_WORKER && ngx_process != NGX_PROCESS_SINGLE)
    {
        return NGX_OK;
    }

    sync->conf = ngx_http_cycle_get_module_main_conf(cycle,
                                                ngx_http_tenant_sync_module);
    tmcf = ngx_http_cycle_get_module_main_conf(cycle, ngx_http_tenant_module);

    if (tmcf == NULL || tmcf->zone == NULL || sync->conf->shared == NULL) {
        return NGX_OK;
    }

    sync->tmcf = tmcf;
    sync->zone = tmcf->zone;
    sync->shared = sync->conf->shared;
    sync->log = cycle->log;

    if (ngx_worker != 0) {
        return NGX_OK;
    }

    ngx_http_tenant_event_init(&ngx_http_tenant_sync_event,
                               &ngx_http_tenant_sync_dumb,
                               ngx_http_tenant_sync_tick, NULL);

    ngx_add_timer(&ngx_http_tenant_sync_event, 1);

    return NGX_OK;
}


static void
ngx_http_tenant_sync_exit_process(ngx_cycle_t *cycle)
{
    ngx_http_tenant_sync_stop();
}


/* --- readiness --- */

static ngx_int_t
ngx_http_tenant_ready_handler(ngx_http_request_t *r)
{
    uint64_t                      silence;
    tg_text_t                     text;
    const char                   *state;
    ngx_uint_t                    loading;
    ngx_http_tenant_shared_t     *shared;
    ngx_http_tenant_sync_conf_t  *tscf;
    ngx_http_tenant_main_conf_t  *tmcf;

    tmcf = ngx_http_get_module_main_conf(r, ngx_http_tenant_module);
    tscf = ngx_http_get_module_main_conf(r, ngx_http_tenant_sync_module);
    shared = tscf->shared;

    state = ngx_http_tenant_sync_state_name(shared, tmcf->zone);
    loading = (ngx_strcmp(state, "loading") == 0);
    silence = __atomic_load_n(&shared->last_line, __ATOMIC_RELAXED);

    tg_text_init(&text);
    tg_text_printf(&text, "{\"state\":\"%s\",\"revision\":%llu", state,
                   (unsigned long long) tg_zone_revision(tmcf->zone));

    if (!loading) {
        tg_text_printf(&text, ",\"registry\":\"%s\"", shared->registry);
    }

    if (silence) {
        tg_text_printf(&text, ",\"silence_ms\":%llu", (unsigned long long)
                       (ngx_http_tenant_now_ms() - silence));
    }

    tg_text_printf(&text, ",\"rejected\":%llu}\n",
                   (unsigned long long) shared->nrejected);

    return ngx_http_tenant_send_text(r, loading ? NGX_HTTP_SERVICE_UNAVAILABLE
                                                : NGX_HTTP_OK,
                                     "application/json", &text);
}


ngx_int_t
ngx_http_tenant_send_text(ngx_http_request_t *r, ngx_uint_t status,
    const char *type, tg_text_t *text)
{
    ngx_int_t     rc;
    ngx_buf_t    *b;
    ngx_chain_t   out;

    if (text->failed || ngx_http_discard_request_body(r) != NGX_OK) {
        tg_text_free(text);
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    if (!(r->method & (NGX_HTTP_GET|NGX_HTTP_HEAD))) {
        tg_text_free(text);
        return NGX_HTTP_NOT_ALLOWED;
    }

    b = ngx_create_temp_buf(r->pool, text->len);

    if (b) {
        b->last = ngx_cpymem(b->last, text->data, text->len);
        b->last_buf = (r == r->main);
        b->last_in_chain = 1;
    }

    tg_text_free(text);

    if (b == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    r->headers_out.status = status;
    r->headers_out.content_length_n = b->last - b->pos;
    r->headers_out.content_type.data = (u_char *) type;
    r->headers_out.content_type.len = ngx_strlen(type);
    r->headers_out.content_type_len = r->headers_out.content_type.len;

    rc = ngx_http_send_header(r);

    if (rc == NGX_ERROR || rc > NGX_OK || r->header_only) {
        return rc;
    }

    out.buf = b;
    out.next = NULL;

    return ngx_http_output_filter(r, &out);
}


static char *
ngx_http_tenant_ready(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    return ngx_http_tenant_sync_content(cf, ngx_http_tenant_ready_handler);
}


char *
ngx_http_tenant_sync_content(ngx_conf_t *cf, ngx_http_handler_pt handler)
{
    ngx_http_core_loc_conf_t     *clcf;
    ngx_http_tenant_loc_conf_t   *tlcf;
    ngx_http_tenant_sync_conf_t  *tscf;

    tscf = ngx_http_conf_get_module_main_conf(cf, ngx_http_tenant_sync_module);
    tscf->content = 1;

    clcf = ngx_http_conf_get_module_loc_conf(cf, ngx_http_core_module);
    clcf->handler = handler;

    tlcf = ngx_http_conf_get_module_loc_conf(cf, ngx_http_tenant_module);

    if (tlcf->by == NGX_CONF_UNSET_UINT) {
        tlcf->by = NGX_HTTP_TENANT_BY_NONE;
    }

    return NGX_CONF_OK;
}


static ngx_int_t
ngx_http_tenant_sync_init(ngx_conf_t *cf)
{
    size_t                        size;
    ngx_str_t                     name = ngx_string("tiergate:sync");
    ngx_http_tenant_main_conf_t  *tmcf;
    ngx_http_tenant_sync_conf_t  *tscf;

    tmcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_tenant_module);
    tscf = ngx_http_conf_get_module_main_conf(cf, ngx_http_tenant_sync_module);

    if (tmcf->shm_zone == NULL) {

        if (tmcf->source || tmcf->snapshot.len || tscf->content) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "%s a registry: add \"tenant_zone NAME SIZE\"",
                               tmcf->source ? "\"tenant_source\" needs"
                               : tmcf->snapshot.len
                               ? "\"tenant_snapshot\" needs"
                               : "\"tenant_ready\" and \"tenant_metrics\" need");
            return NGX_ERROR;
        }

        return NGX_OK;
    }

    size = sizeof(ngx_http_tenant_shared_t)
           + tscf->metrics_tenants * sizeof(ngx_http_tenant_series_t);

    /* the pool itself needs some pages more */

    tscf->shm_zone = ngx_shared_memory_add(cf, &name,
                                           size + size / 64 + 8 * ngx_pagesize,
                                           &ngx_http_tenant_sync_module);
    if (tscf->shm_zone == NULL) {
        return NGX_ERROR;
    }

    tscf->shm_zone->init = ngx_http_tenant_sync_init_zone;
    tscf->shm_zone->data = tscf;

    return NGX_OK;
}


static ngx_int_t
ngx_http_tenant_sync_init_zone(ngx_shm_zone_t *shm_zone, void *data)
{
    size_t                        size;
    ngx_slab_pool_t              *shpool;
    ngx_http_tenant_sync_conf_t  *tscf;

    tscf = shm_zone->data;
    shpool = (ngx_slab_pool_t *) shm_zone->shm.addr;
    tscf->shpool = shpool;

    if (data || shm_zone->shm.exists) {
        tscf->shared = shpool->data;
        return NGX_OK;
    }

    size = sizeof(ngx_http_tenant_shared_t)
           + tscf->metrics_tenants * sizeof(ngx_http_tenant_series_t);

    tscf->shared = ngx_slab_calloc(shpool, size);
    if (tscf->shared == NULL) {
        return NGX_ERROR;
    }

    shpool->data = tscf->shared;

    return NGX_OK;
}
