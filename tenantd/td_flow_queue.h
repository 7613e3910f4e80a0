/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Records that wait for the registry, in bounded room that is shared fairly.
 *
 *  1. Lanes are as the buckets of the kernel (bpf/tg_event.h): what flowed of a
 *     tenant, what it was denied, what outsiders were denied at it.  They take
 *     turns: whoever has one record has it sent with the next batch.
 *  2. When there is no more room the fullest lane loses its oldest record: whoever
 *     floods pays for it, with records of the same kind.
 *  3. What a lane has lost is in the next record that it gives.
 */

#ifndef TD_FLOW_QUEUE_H
#define TD_FLOW_QUEUE_H

#include <stddef.h>
#include <stdint.h>

#include "tg_mesh.h"
#include "tg_text.h"

typedef struct td_flow_queue_s  td_flow_queue_t;

typedef struct {
    uint32_t  tenant;
    uint32_t  class;        /* enum tg_bucket_class */
} td_flow_lane_key_t;

/* NULL: no memory. */
td_flow_queue_t *td_flow_queue_create(size_t most);
void td_flow_queue_destroy(td_flow_queue_t *queue);

/* Adds a record, whose text is copied; lost: records left out before it. */
void td_flow_queue_add(td_flow_queue_t *queue, td_flow_lane_key_t key,
    const char *text, size_t len, uint64_t lost);

/*
 * Takes up to most records: "TEXTLOST]" each, with commas between; writes which
 * lane each was of into keys, and how many records it stands for (itself and those
 * lost) into counts.  Returns how many there are.
 */
size_t td_flow_queue_take(td_flow_queue_t *queue, size_t most, tg_text_t *text,
    td_flow_lane_key_t *keys, uint64_t *counts);

/* Records that were taken and did not arrive after all. */
void td_flow_queue_lose(td_flow_queue_t *queue, td_flow_lane_key_t key,
    uint64_t count);

size_t td_flow_queue_length(const td_flow_queue_t *queue);

/* Records that did not get out of the queue, or were given back as lost. */
uint64_t td_flow_queue_lost(const td_flow_queue_t *queue);

#endif /* TD_FLOW_QUEUE_H */
