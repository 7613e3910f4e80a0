/* SPDX-License-Identifier: BSD-2-Clause */

#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "td_flow_queue.h"
#include "td_table.h"
#include "tg_hash.h"


typedef struct td_flow_item_s {
    STAILQ_ENTRY(td_flow_item_s)  link;
    uint64_t                      lost;
    size_t                        len;
    char                          text[];
} td_flow_item_t;

/* In turns when it has records, and kept for good: there are few of a tenant. */
typedef struct td_flow_lane_s {
    td_link_t                                  link;
    TAILQ_ENTRY(td_flow_lane_s)                turn;
    td_flow_lane_key_t                         key;
    STAILQ_HEAD(td_flow_items_s, td_flow_item_s)  items;
    size_t                                     n;
    uint64_t                                   lost;
} td_flow_lane_t;

struct td_flow_queue_s {
    td_table_t                               lanes;
    TAILQ_HEAD(td_flow_turns_s, td_flow_lane_s)  turns;
    td_flow_lane_t                          *fullest;   /* NULL: not known */
    size_t                                   n;
    size_t                                   most;
    uint64_t                                 lost;
};


td_flow_queue_t *
td_flow_queue_create(size_t most)
{
    td_flow_queue_t  *queue;

    queue = calloc(1, sizeof(td_flow_queue_t));

    if (queue != NULL) {
        TAILQ_INIT(&queue->turns);
        queue->most = most;
    }

    return queue;
}


static void
td_flow_lane_free(td_link_t *link, void *data)
{
    td_flow_item_t   *item;
    td_flow_lane_t   *lane;
    td_flow_queue_t  *queue = data;

    lane = td_link_data(link, td_flow_lane_t, link);

    while ((item = STAILQ_FIRST(&lane->items)) != NULL) {
        STAILQ_REMOVE_HEAD(&lane->items, link);
        free(item);
    }

    td_table_remove(&queue->lanes, link);
    free(lane);
}


void
td_flow_queue_destroy(td_flow_queue_t *queue)
{
    if (queue != NULL) {
        td_table_each(&queue->lanes, td_flow_lane_free, queue);
        td_table_free(&queue->lanes);
        free(queue);
    }
}


static td_flow_lane_t *
td_flow_lane(td_flow_queue_t *queue, td_flow_lane_key_t key)
{
    uint64_t         hash;
    td_link_t       *link;
    td_flow_lane_t  *lane;

    hash = tg_hash_id((uint64_t) key.tenant << 2 | key.class, 0);

    for (link = td_table_chain(&queue->lanes, hash); link != NULL;
         link = link->next)
    {
        lane = td_link_data(link, td_flow_lane_t, link);

        if (link->hash == hash && lane->key.tenant == key.tenant
            && lane->key.class == key.class)
        {
            return lane;
        }
    }

    lane = calloc(1, sizeof(td_flow_lane_t));
    if (lane == NULL) {
        return NULL;
    }

    lane->key = key;
    STAILQ_INIT(&lane->items);

    if (td_table_add(&queue->lanes, &lane->link, hash) != 0) {
        free(lane);
        return NULL;
    }

    return lane;
}


/* Takes the lane's oldest record. */
static td_flow_item_t *
td_flow_lane_shift(td_flow_queue_t *queue, td_flow_lane_t *lane)
{
    td_flow_item_t  *item;

    item = STAILQ_FIRST(&lane->items);
    STAILQ_REMOVE_HEAD(&lane->items, link);
    lane->n--;
    queue->n--;

    if (lane->n == 0) {
        TAILQ_REMOVE(&queue->turns, lane, turn);
    }

    return item;
}


/* Another lane may have become the fullest by growing, which add() sees, or by this
 * one's being taken from, after which it is looked for. */
static td_flow_lane_t *
td_flow_queue_fullest(td_flow_queue_t *queue)
{
    td_flow_lane_t  *lane;

    if (queue->fullest == NULL) {
        TAILQ_FOREACH(lane, &queue->turns, turn) {
            if (queue->fullest == NULL || lane->n > queue->fullest->n) {
                queue->fullest = lane;
            }
        }
    }

    return queue->fullest;
}


static void
td_flow_queue_make_room(td_flow_queue_t *queue)
{
    td_flow_item_t  *item;
    td_flow_lane_t  *lane;

    lane = td_flow_queue_fullest(queue);
    if (lane == NULL) {
        return;
    }

    item = td_flow_lane_shift(queue, lane);
    lane->lost += item->lost + 1;
    queue->lost++;
    free(item);
}


void
td_flow_queue_add(td_flow_queue_t *queue, td_flow_lane_key_t key,
    const char *text, size_t len, uint64_t lost)
{
    td_flow_item_t  *item;
    td_flow_lane_t  *lane;

    lane = td_flow_lane(queue, key);
    if (lane == NULL) {
        queue->lost++;
        return;
    }

    item = malloc(sizeof(td_flow_item_t) + len);
    if (item == NULL) {
        lane->lost += lost + 1;
        queue->lost++;
        return;
    }

    item->lost = lost;
    item->len = len;
    memcpy(item->text, text, len);

    if (lane->n == 0) {
        TAILQ_INSERT_TAIL(&queue->turns, lane, turn);
    }

    STAILQ_INSERT_TAIL(&lane->items, item, link);
    lane->n++;
    queue->n++;

    if (queue->fullest != NULL && lane->n > queue->fullest->n) {
        queue->fullest = lane;
    }

    if (queue->n > queue->most) {
        td_flow_queue_make_room(queue);

        /* it was as full as others are */
        if (queue->fullest != NULL && queue->fullest != lane
            && queue->fullest->n < lane->n)
        {
            queue->fullest = lane;
        }
    }
}


size_t
td_flow_queue_take(td_flow_queue_t *queue, size_t most, tg_text_t *text,
    td_flow_lane_key_t *keys, uint64_t *counts)
{
    size_t           n;
    uint64_t         lost;
    td_flow_item_t  *item;
    td_flow_lane_t  *lane;

    for (n = 0; n < most && (lane = TAILQ_FIRST(&queue->turns)) != NULL; n++) {
        item = td_flow_lane_shift(queue, lane);

        if (lane->n > 0) {
            TAILQ_REMOVE(&queue->turns, lane, turn);
            TAILQ_INSERT_TAIL(&queue->turns, lane, turn);
        }

        lost = item->lost + lane->lost;
        lane->lost = 0;
        keys[n] = lane->key;
        counts[n] = lost + 1;

        tg_text_str(text, n > 0 ? "," : "");
        tg_text_add(text, item->text, item->len);
        tg_text_u64(text, lost);
        tg_text_str(text, "]");
        free(item);
    }

    queue->fullest = NULL;

    return n;
}


void
td_flow_queue_lose(td_flow_queue_t *queue, td_flow_lane_key_t key,
    uint64_t count)
{
    td_flow_lane_t  *lane;

    queue->lost++;
    lane = td_flow_lane(queue, key);

    if (lane != NULL) {
        lane->lost += count;
    }
}


size_t
td_flow_queue_length(const td_flow_queue_t *queue)
{
    return queue->n;
}


uint64_t
td_flow_queue_lost(const td_flow_queue_t *queue)
{
    return queue->lost;
}
