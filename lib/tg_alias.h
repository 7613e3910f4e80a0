/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * The alias method (Walker 1974, Vose 1991): a choice among n by weight with one
 * look at a table of n.
 */

#ifndef TG_ALIAS_H
#define TG_ALIAS_H

#include <stddef.h>
#include <stdint.h>

#define TG_ALIAS_WEIGHT_MAX  65535

typedef struct {
    uint32_t  own;      /* below it of 2^32 the slot's own item, else the other */
    uint32_t  other;
} tg_alias_t;

/* Weights above TG_ALIAS_WEIGHT_MAX count as that; the weights must not all be 0.
 * table has room for n.  0, or -1 without memory. */
int tg_alias_build(const uint32_t *weights, size_t n, tg_alias_t *table);

#endif /* TG_ALIAS_H */
