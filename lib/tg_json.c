/* SPDX-License-Identifier: BSD-2-Clause */

#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "tg_json.h"


#define TG_JSON_ALIGN   16
#define TG_JSON_OPENED  (256 * 1024)    /* made usable at once */

typedef struct tg_json_chunk_s  tg_json_chunk_t;

/* At the start of each chunk; a chunk is aligned to its size. */
struct tg_json_chunk_s {
    uint32_t          used;     /* bytes, these included */
    uint32_t          live;     /* pieces that are not freed */
    tg_json_chunk_t  *next;     /* of the free ones */
};

_Static_assert(sizeof(tg_json_chunk_t) % TG_JSON_ALIGN == 0, "pieces are aligned");

static struct {
    char             *start;    /* NULL: there is no area */
    size_t            opened;   /* bytes of it that may be used */
    size_t            taken;    /* bytes that ever were */
    size_t            chunks;   /* in which something lives */
    tg_json_chunk_t  *free;
    tg_json_chunk_t  *current;
    char             *last;     /* the last piece of current, or NULL */
    json_malloc_t     malloc;
    json_free_t       free_piece;
} tg_json;

static __thread int  tg_json_loading;


static tg_json_chunk_t *
tg_json_take(void)
{
    tg_json_chunk_t  *chunk;

    chunk = tg_json.free;

    if (chunk != NULL) {
        tg_json.free = chunk->next;

    } else {

        if (tg_json.taken == tg_json.opened) {
            if (tg_json.opened == TG_JSON_AREA
                || mprotect(tg_json.start + tg_json.opened, TG_JSON_OPENED,
                            PROT_READ | PROT_WRITE) != 0)
            {
                return NULL;
            }

            tg_json.opened += TG_JSON_OPENED;
        }

        chunk = (tg_json_chunk_t *) (tg_json.start + tg_json.taken);
        tg_json.taken += TG_JSON_CHUNK;
    }

    chunk->used = sizeof(tg_json_chunk_t);
    chunk->live = 0;

    return chunk;
}


static void *
tg_json_malloc(size_t size)
{
    char             *piece;
    tg_json_chunk_t  *chunk;

    if (!tg_json_loading || size > TG_JSON_CHUNK / 2) {
        return tg_json.malloc(size);
    }

    size += -size % TG_JSON_ALIGN;
    chunk = tg_json.current;

    if (chunk == NULL || chunk->used + size > TG_JSON_CHUNK) {

        chunk = tg_json_take();
        if (chunk == NULL) {
            return tg_json.malloc(size);
        }

        /* the one before comes back when it is empty */
        tg_json.current = chunk;
    }

    piece = (char *) chunk + chunk->used;
    chunk->used += (uint32_t) size;
    tg_json.chunks += (chunk->live++ == 0);
    tg_json.last = piece;

    return piece;
}


static void
tg_json_free(void *data)
{
    char             *piece = data;
    tg_json_chunk_t  *chunk;

    if ((uintptr_t) piece - (uintptr_t) tg_json.start >= TG_JSON_AREA) {
        tg_json.free_piece(data);
        return;
    }

    chunk = (tg_json_chunk_t *) ((uintptr_t) piece & ~(uintptr_t) (TG_JSON_CHUNK - 1));

    if (piece == tg_json.last) {
        chunk->used = (uint32_t) (piece - (char *) chunk);
        tg_json.last = NULL;
    }

    if (--chunk->live > 0) {
        return;
    }

    tg_json.chunks--;

    if (chunk == tg_json.current) {
        chunk->used = sizeof(tg_json_chunk_t);
        tg_json.last = NULL;
        return;
    }

    chunk->next = tg_json.free;
    tg_json.free = chunk;
}


void
tg_json_init(void)
{
    char  *area;

#ifdef __SANITIZE_ADDRESS__
    return;                     /* it is to see each piece */
#endif

    if (tg_json.start != NULL) {
        return;
    }

    /* one chunk more, to align it */
    area = mmap(NULL, TG_JSON_AREA + TG_JSON_CHUNK, PROT_NONE,
                MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (area == MAP_FAILED) {
        return;
    }

    tg_json.start = area + (-(uintptr_t) area % TG_JSON_CHUNK);
    json_get_alloc_funcs(&tg_json.malloc, &tg_json.free_piece);
    json_set_alloc_funcs(tg_json_malloc, tg_json_free);
}


json_t *
tg_json_load(const char *text, size_t len, size_t flags, json_error_t *error)
{
    json_t  *value;

    tg_json_loading = (tg_json.start != NULL);
    value = json_loadb(text, len, flags, error);
    tg_json_loading = 0;

    return value;
}


size_t
tg_json_chunks(void)
{
    return tg_json.chunks;
}
