/* SPDX-License-Identifier: BSD-2-Clause */

#include "tg_alias.h"

#include <stdlib.h>


static uint64_t
weight_of(uint32_t weight)
{
    return weight > TG_ALIAS_WEIGHT_MAX ? TG_ALIAS_WEIGHT_MAX : weight;
}


/* The share of a slot that is the item's own, in 1/2^32. */
static uint32_t
share(uint64_t part, uint64_t whole)
{
    double  threshold;

    threshold = (double) part / (double) whole * 4294967296.0;

    return threshold >= 4294967295.0 ? UINT32_MAX : (uint32_t) threshold;
}


/*
 * Each item has weight * n to spread and each slot holds the sum of the weights.
 * What an item with too little leaves free is filled by one with too much.
 */
int
tg_alias_build(const uint32_t *weights, size_t n, tg_alias_t *table)
{
    size_t     i, small, large, *queue;
    uint64_t   total, *left;

    queue = malloc(n * sizeof(size_t));
    left = malloc(n * sizeof(uint64_t));
    if (queue == NULL || left == NULL) {
        free(queue);
        free(left);
        return n == 0 ? 0 : -1;
    }

    total = 0;
    for (i = 0; i < n; i++) {
        total += weight_of(weights[i]);
    }

    /* The small ones from the front, the large ones from the back. */
    small = 0;
    large = n;

    for (i = 0; i < n; i++) {
        left[i] = weight_of(weights[i]) * n;
        queue[left[i] < total ? small++ : --large] = i;
    }

    while (small > 0 && large < n) {
        size_t  lesser, greater;

        lesser = queue[--small];
        greater = queue[large];

        table[lesser].own = share(left[lesser], total);
        table[lesser].other = (uint32_t) greater;

        left[greater] -= total - left[lesser];

        if (left[greater] < total) {
            large++;
            queue[small++] = greater;
        }
    }

    while (small > 0) {
        i = queue[--small];
        table[i] = (tg_alias_t) { UINT32_MAX, (uint32_t) i };
    }

    while (large < n) {
        i = queue[large++];
        table[i] = (tg_alias_t) { UINT32_MAX, (uint32_t) i };
    }

    free(queue);
    free(left);

    return 0;
}
