/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * The registry in large pages: a request looks at some twenty places of the zone,
 * and with many tenants most of them are in pages whose addresses the processor has
 * to look up, at every system call anew where it keeps user and kernel apart.
 *
 *  1. nginx gets shared memory at any address, where no large page fits.  The
 *     registry is mapped a second time, at one that does.  Everything goes by that
 *     mapping; all processes of a master inherit it, and it ends with the last
 *     cycle that has the zone.
 *  2. Memory is not taken before tenants need it: a piece becomes one page when
 *     most of it is in use (MADV_COLLAPSE, since Linux 6.1, whatever the system's
 *     settings).  Where the system gives shared memory large pages when asked
 *     (shmem_enabled "advise") they come at once.
 *  3. Making a page copies it.  A process of its own does that, so that no request
 *     waits: what it makes is the shared memory's, and appears in every process.  A
 *     thread would do, too, but from then on libc would lock and count in the worker
 *     as in any program with threads, for each allocation and each system call.
 *  4. Where any of this fails the pages stay small, and nothing else changes.
 */

#include "ngx_http_tenant.h"

#include <sys/mman.h>
#include <sys/wait.h>


#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE  25
#endif

#define NGX_HTTP_TENANT_PIECE        (2 * 1024 * 1024)
#define NGX_HTTP_TENANT_PIECE_PAGES  (NGX_HTTP_TENANT_PIECE / 4096)

/* Small pages in use of a piece that is worth a large one. */
#define NGX_HTTP_TENANT_PIECE_USED   (NGX_HTTP_TENANT_PIECE_PAGES * 3 / 4)

/* Growth of what tenants use that is a reason to look again, and s between looks. */
#define NGX_HTTP_TENANT_PAGES_STEP   (NGX_HTTP_TENANT_PIECE / 8)
#define NGX_HTTP_TENANT_PAGES_EVERY  1

/* s until the next look when a piece could not be made just then: there was no memory
 * in one piece, or somebody had a page of it.  That is EINVAL, too, as on a system
 * that has no such thing, which is told by so many failures and no success. */
#define NGX_HTTP_TENANT_PAGES_AGAIN  5
#define NGX_HTTP_TENANT_PAGES_TRIES  20

/* s after which a process that makes pages is taken for dead. */
#define NGX_HTTP_TENANT_PAGES_TIME   60


struct ngx_http_tenant_map_s {
    ngx_uint_t   refs;          /* cycles that have it */
    u_char      *start;         /* of the registry */
    u_char      *address;       /* of what is mapped, and its size */
    size_t       size;

    u_char      *first;         /* whole pieces */
    ngx_uint_t   n;
    uint64_t     looked;        /* bytes used when it was looked at last */
    time_t       next;          /* not again before */
    size_t       shared;        /* bytes of this, which is shared memory */
    time_t       until;         /* pages are being made, at most till then; or 0 */
    ngx_uint_t   made;
    ngx_uint_t   failed;        /* and nothing made so far */
    int          off;           /* the system has no such thing */
    u_char       done[];        /* by piece */
};


static void ngx_http_tenant_pages_drop(void *data);
static void ngx_http_tenant_pages_collapse(ngx_http_tenant_map_t *map);


ngx_int_t
ngx_http_tenant_pages_prepare(ngx_conf_t *cf, ngx_http_tenant_main_conf_t *tmcf)
{
    ngx_pool_cleanup_t  *cln;

    cln = ngx_pool_cleanup_add(cf->pool, 0);
    if (cln == NULL) {
        return NGX_ERROR;
    }

    cln->handler = ngx_http_tenant_pages_drop;
    cln->data = tmcf;

    return NGX_OK;
}


/* The second mapping of size bytes at base, which lies at "offset" in its shared
 * memory: an address that is the same modulo a piece.  NULL: there is none. */
static u_char *
ngx_http_tenant_pages_place(ngx_http_tenant_map_t *map, u_char *base,
    size_t size, size_t offset)
{
#if (NGX_LINUX)

    u_char  *place;

    map->size = size + 2 * NGX_HTTP_TENANT_PIECE;
    map->address = mmap(NULL, map->size, PROT_NONE,
                        MAP_PRIVATE|MAP_ANONYMOUS|MAP_NORESERVE, -1, 0);

    if (map->address == MAP_FAILED) {
        return NULL;
    }

    place = ngx_align_ptr(map->address, NGX_HTTP_TENANT_PIECE)
            + offset % NGX_HTTP_TENANT_PIECE;

    if (mremap(base, 0, size, MREMAP_MAYMOVE|MREMAP_FIXED, place) != place) {
        (void) munmap(map->address, map->size);
        return NULL;
    }

#ifdef MADV_HUGEPAGE
    (void) madvise(place, size, MADV_HUGEPAGE);
#endif

    return place;

#else

    return NULL;

#endif
}


u_char *
ngx_http_tenant_pages_map(ngx_http_tenant_main_conf_t *tmcf, u_char *base,
    size_t size)
{
    size_t                  len;
    ngx_http_tenant_map_t  *map;

    len = sizeof(ngx_http_tenant_map_t) + size / NGX_HTTP_TENANT_PIECE;
    map = mmap(NULL, len, PROT_READ|PROT_WRITE, MAP_SHARED|MAP_ANONYMOUS, -1, 0);

    if (map == MAP_FAILED) {
        return base;
    }

    map->shared = len;
    map->start = ngx_http_tenant_pages_place(map, base, size,
                                             base - tmcf->shm_zone->shm.addr);
    if (map->start == NULL) {
        (void) munmap(map, len);
        return base;
    }

    map->first = ngx_align_ptr(map->start, NGX_HTTP_TENANT_PIECE);

    if (map->first < map->start + size) {
        map->n = (map->start + size - map->first) / NGX_HTTP_TENANT_PIECE;
    }

    map->refs = 1;
    tmcf->map = map;

    return map->start;
}


void
ngx_http_tenant_pages_share(ngx_http_tenant_main_conf_t *tmcf,
    ngx_http_tenant_main_conf_t *old)
{
    tmcf->map = old->map;

    if (tmcf->map) {
        tmcf->map->refs++;
    }
}


/* A cycle ends.  A worker ends with it, and needs the zone to the last. */
static void
ngx_http_tenant_pages_drop(void *data)
{
    ngx_http_tenant_main_conf_t  *tmcf = data;

    ngx_http_tenant_map_t  *map;

    map = tmcf->map;

    if (map == NULL || ngx_process == NGX_PROCESS_WORKER
        || ngx_process == NGX_PROCESS_HELPER || --map->refs)
    {
        return;
    }

    (void) munmap(map->address, map->size);
    (void) munmap(map, map->shared);
}


/* A grandchild, so that nobody has to wait for its end. */
static void
ngx_http_tenant_pages_fork(ngx_http_tenant_map_t *map)
{
    pid_t     pid;
    sigset_t  all, before;

    /* until its end it takes no signal that is meant for nginx */

    (void) sigfillset(&all);
    (void) sigprocmask(SIG_SETMASK, &all, &before);

    pid = fork();

    if (pid == 0) {

        if (fork() == 0) {
            (void) close_range(3, ~0U, 0);
            ngx_http_tenant_pages_collapse(map);
            __atomic_store_n(&map->until, 0, __ATOMIC_RELEASE);
        }

        _exit(0);
    }

    if (pid > 0) {
        (void) waitpid(pid, NULL, 0);
    }

    (void) sigprocmask(SIG_SETMASK, &before, NULL);
}


void
ngx_http_tenant_pages_tick(ngx_http_tenant_main_conf_t *tmcf)
{
    tg_zone_stats_t         stats;
    ngx_http_tenant_map_t  *map;

    map = tmcf->map;

    if (map == NULL || map->off || map->n == 0 || map->next > ngx_time()
        || __atomic_load_n(&map->until, __ATOMIC_ACQUIRE) > ngx_time())
    {
        return;
    }

    tg_zone_stats(tmcf->zone, &stats);

    if (stats.used >= map->looked + NGX_HTTP_TENANT_PAGES_STEP) {
        map->looked = stats.used;
        map->next = ngx_time() + NGX_HTTP_TENANT_PAGES_EVERY;
        map->until = ngx_time() + NGX_HTTP_TENANT_PAGES_TIME;
        ngx_http_tenant_pages_fork(map);
    }
}


static ngx_uint_t
ngx_http_tenant_pages_is_used(u_char *piece)
{
    ngx_uint_t      i, used;
    unsigned char   resident[NGX_HTTP_TENANT_PIECE_PAGES];

    if (mincore(piece, NGX_HTTP_TENANT_PIECE, resident) != 0) {
        return 0;
    }

    used = 0;

    for (i = 0; i < NGX_HTTP_TENANT_PIECE_PAGES; i++) {
        used += resident[i] & 1;
    }

    return used >= NGX_HTTP_TENANT_PIECE_USED;
}


/* Where memory is short just now, the next look tries again. */
static void
ngx_http_tenant_pages_collapse(ngx_http_tenant_map_t *map)
{
    u_char      *piece;
    ngx_uint_t   i;

    for (i = 0; i < map->n; i++) {
        piece = map->first + i * NGX_HTTP_TENANT_PIECE;

        if (map->done[i] || !ngx_http_tenant_pages_is_used(piece)) {
            continue;
        }

        if (madvise(piece, NGX_HTTP_TENANT_PIECE, MADV_COLLAPSE) == 0) {
            map->done[i] = 1;
            map->made++;
            continue;
        }

        if (map->made == 0 && ++map->failed == NGX_HTTP_TENANT_PAGES_TRIES) {
            map->off = 1;
            break;
        }

        map->looked = 0;
        map->next = time(NULL) + NGX_HTTP_TENANT_PAGES_AGAIN;
    }
}
