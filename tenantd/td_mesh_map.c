/* SPDX-License-Identifier: BSD-2-Clause */

#include "td_mesh_map.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <bpf/bpf.h>

#include "tg_hash.h"


struct td_mesh_map_s {
    char             name[16];
    int              fd;
    uint32_t         round;
    size_t           key_size;
    size_t           value_at;      /* in a row's data */
    size_t           value_size;
    size_t           size;
    size_t           used;
    size_t           n_buckets;     /* a power of two */
    td_mesh_row_t  **buckets;
    uint64_t         refused;
};


static td_mesh_row_t **
find(td_mesh_map_t *map, const void *key, uint64_t hash)
{
    td_mesh_row_t  **row;

    row = &map->buckets[hash & (map->n_buckets - 1)];

    while (*row != NULL
           && ((*row)->hash != hash || memcmp((*row)->data, key, map->key_size) != 0))
    {
        row = &(*row)->next;
    }

    return row;
}


static uint64_t
hash_key(const td_mesh_map_t *map, const void *key)
{
    return XXH3_64bits(key, map->key_size);
}


static td_mesh_row_t *
insert(td_mesh_map_t *map, const void *key, const void *value)
{
    uint64_t        hash;
    td_mesh_row_t  *row, **place;

    row = calloc(1, sizeof(*row) + map->value_at + map->value_size);
    if (row == NULL) {
        return NULL;
    }

    hash = hash_key(map, key);
    place = &map->buckets[hash & (map->n_buckets - 1)];

    row->hash = hash;
    row->round = map->round;
    memcpy(row->data, key, map->key_size);
    memcpy(row->data + map->value_at, value, map->value_size);
    row->next = *place;
    *place = row;
    map->used++;

    return row;
}


static void
unlink_row(td_mesh_map_t *map, td_mesh_row_t **place)
{
    td_mesh_row_t  *row;

    row = *place;
    *place = row->next;
    free(row->owned);
    free(row);
    map->used--;
}


/* What an agent before us left. */
static int
load(td_mesh_map_t *map)
{
    int            err;
    unsigned char  key[64], next[64], value[128];

    if (map->key_size > sizeof(key) || map->value_size > sizeof(value)) {
        return -EINVAL;
    }

    for (err = bpf_map_get_next_key(map->fd, NULL, next);
         err == 0;
         err = bpf_map_get_next_key(map->fd, key, next))
    {
        memcpy(key, next, map->key_size);

        if (bpf_map_lookup_elem(map->fd, key, value) != 0) {
            continue;
        }

        if (insert(map, key, value) == NULL) {
            return -ENOMEM;
        }
    }

    return err == -ENOENT ? 0 : err;
}


td_mesh_map_t *
td_mesh_map_create(const char *name, int fd)
{
    int                  err;
    uint32_t             length;
    td_mesh_map_t       *map;
    struct bpf_map_info  info;

    memset(&info, 0, sizeof(info));
    length = sizeof(info);

    if (bpf_obj_get_info_by_fd(fd, &info, &length) != 0) {
        return NULL;
    }

    map = calloc(1, sizeof(*map));
    if (map == NULL) {
        return NULL;
    }

    strncpy(map->name, name, sizeof(map->name) - 1);
    map->fd = fd;
    map->round = 1;
    map->key_size = info.key_size;
    map->value_at = (info.key_size + 7) & ~(size_t) 7;
    map->value_size = info.value_size;
    map->size = info.max_entries;
    map->n_buckets = 64;

    while (map->n_buckets < map->size) {
        map->n_buckets *= 2;
    }

    map->buckets = calloc(map->n_buckets, sizeof(*map->buckets));
    if (map->buckets == NULL) {
        free(map);
        return NULL;
    }

    err = load(map);
    if (err != 0) {
        td_mesh_map_destroy(map);
        errno = -err;
        return NULL;
    }

    return map;
}


void
td_mesh_map_destroy(td_mesh_map_t *map)
{
    size_t  i;

    if (map == NULL) {
        return;
    }

    for (i = 0; i < map->n_buckets; i++) {
        while (map->buckets[i] != NULL) {
            unlink_row(map, &map->buckets[i]);
        }
    }

    free(map->buckets);
    free(map);
}


int
td_mesh_map_put(td_mesh_map_t *map, const void *key, const void *value)
{
    int             err;
    td_mesh_row_t  *row, **place;

    place = find(map, key, hash_key(map, key));
    row = *place;

    if (row != NULL) {
        row->round = map->round;

        if (memcmp(row->data + map->value_at, value, map->value_size) == 0) {
            return 0;
        }
    }

    err = bpf_map_update_elem(map->fd, key, value, BPF_ANY);
    if (err != 0) {
        /* A trie says ENOSPC, a hash E2BIG. */
        if (err == -ENOSPC || err == -E2BIG) {
            map->refused++;
            return -E2BIG;
        }
        return err;
    }

    if (row != NULL) {
        memcpy(row->data + map->value_at, value, map->value_size);
        return 0;
    }

    if (insert(map, key, value) == NULL) {
        bpf_map_delete_elem(map->fd, key);
        return -ENOMEM;
    }

    return 0;
}


void
td_mesh_map_keep(td_mesh_map_t *map, const void *key)
{
    td_mesh_row_t  *row;

    row = td_mesh_map_row(map, key);
    if (row != NULL) {
        row->round = map->round;
    }
}


int
td_mesh_map_delete(td_mesh_map_t *map, const void *key)
{
    int              err;
    td_mesh_row_t  **place;

    place = find(map, key, hash_key(map, key));
    if (*place == NULL) {
        return 0;
    }

    err = bpf_map_delete_elem(map->fd, key);
    if (err != 0 && err != -ENOENT) {
        return err;
    }

    unlink_row(map, place);

    return 0;
}


td_mesh_row_t *
td_mesh_map_row(td_mesh_map_t *map, const void *key)
{
    return *find(map, key, hash_key(map, key));
}


void *
td_mesh_map_get(td_mesh_map_t *map, const void *key)
{
    td_mesh_row_t  *row;

    row = td_mesh_map_row(map, key);

    return row ? td_mesh_row_value(map, row) : NULL;
}


const void *
td_mesh_row_key(const td_mesh_row_t *row)
{
    return row->data;
}


void *
td_mesh_row_value(const td_mesh_map_t *map, td_mesh_row_t *row)
{
    return row->data + map->value_at;
}


void
td_mesh_map_filter(td_mesh_map_t *map, td_mesh_visit_pt drop, void *data)
{
    size_t           i;
    td_mesh_row_t  **place;

    for (i = 0; i < map->n_buckets; i++) {
        place = &map->buckets[i];

        while (*place != NULL) {
            if (!drop(*place, data)) {
                place = &(*place)->next;
                continue;
            }

            bpf_map_delete_elem(map->fd, (*place)->data);
            unlink_row(map, place);
        }
    }
}


void
td_mesh_map_round(td_mesh_map_t *map, uint32_t round)
{
    map->round = round;
}


static int
unmarked(td_mesh_row_t *row, void *data)
{
    return row->round != *(uint32_t *) data;
}


size_t
td_mesh_map_sweep(td_mesh_map_t *map)
{
    size_t  before;

    before = map->used;
    td_mesh_map_filter(map, unmarked, &map->round);

    return before - map->used;
}


const char *
td_mesh_map_name(const td_mesh_map_t *map)
{
    return map->name;
}


size_t
td_mesh_map_used(const td_mesh_map_t *map)
{
    return map->used;
}


size_t
td_mesh_map_size(const td_mesh_map_t *map)
{
    return map->size;
}


uint64_t
td_mesh_map_refused(const td_mesh_map_t *map)
{
    return map->refused;
}
