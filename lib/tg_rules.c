/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * The kernel finds only the longest net that holds an address.  So a net's class
 * stands for the net and all around it: the rules of a net are repeated for the
 * classes of the nets inside it.
 *
 * Rows with the same key are folded: the greatest rank stays.  Of two policies with
 * the same rank the one with the lower number does, so that the order in which they
 * come changes nothing.
 */

#include "tg_rules.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#define PROTO_TCP  6
#define PROTO_UDP  17


/* Whether the first bits of two addresses are equal. */
static int
same_prefix(const struct tg_addr *a, const struct tg_addr *b, uint32_t bits)
{
    uint8_t         mask;
    const uint8_t  *x, *y;

    x = (const uint8_t *) a;
    y = (const uint8_t *) b;

    if (memcmp(x, y, bits / 8) != 0) {
        return 0;
    }

    if (bits % 8 == 0) {
        return 1;
    }

    mask = (uint8_t) (0xff << (8 - bits % 8));

    return ((x[bits / 8] ^ y[bits / 8]) & mask) == 0;
}


static void
mask_address(struct tg_addr *addr, uint32_t bits)
{
    uint8_t  *byte;
    uint32_t  i;

    byte = (uint8_t *) addr;

    for (i = 0; i < sizeof(*addr); i++) {
        if (bits >= (i + 1) * 8) {
            continue;
        }
        byte[i] &= bits <= i * 8 ? 0 : (uint8_t) (0xff << (8 - bits % 8));
    }
}


static int
valid(const tg_rule_policy_t *policy)
{
    if (policy->precedence > TG_PRECEDENCE_MAX
        || (policy->direction != TG_IN && policy->direction != TG_OUT)
        || policy->peer < 0 || policy->peer >= TG_PEER_KINDS)
    {
        return 0;
    }

    if (policy->port != 0 && policy->proto != 0
        && policy->proto != PROTO_TCP && policy->proto != PROTO_UDP)
    {
        return 0;
    }

    if (policy->peer == TG_PEER_NET) {
        return policy->peer_prefix <= 128;
    }

    return policy->peer == TG_PEER_ANY || policy->peer_number != 0;
}


/* Gives each distinct net a class, the place in the table and one. */
static void
add_net(tg_rules_t *rules, const tg_rule_policy_t *policy)
{
    size_t          i;
    struct tg_cidr  key;

    key = (struct tg_cidr) { .prefix = 32 + policy->peer_prefix,
                             .addr = policy->peer_net };
    mask_address(&key.addr, policy->peer_prefix);

    for (i = 0; i < rules->n_nets; i++) {
        if (memcmp(&rules->nets[i].key, &key, sizeof(key)) == 0) {
            return;
        }
    }

    rules->nets[rules->n_nets].key = key;
    rules->nets[rules->n_nets].class = (uint32_t) rules->n_nets + 1;
    rules->n_nets++;
}


static int
compare_nets(const void *a, const void *b)
{
    return memcmp(&((const tg_rules_net_t *) a)->key,
                  &((const tg_rules_net_t *) b)->key, sizeof(struct tg_cidr));
}


static int
compare_rows(const void *a, const void *b)
{
    int                    order;
    const tg_rules_row_t  *x, *y;

    x = a;
    y = b;

    order = memcmp(&x->key, &y->key, sizeof(x->key));
    if (order != 0) {
        return order;
    }

    if (x->value.rank != y->value.rank) {
        return x->value.rank > y->value.rank ? -1 : 1;
    }

    return x->value.number < y->value.number ? -1 : x->value.number > y->value.number;
}


static int
add_row(tg_rules_t *rules, size_t *room, const tg_rule_policy_t *policy,
    uint32_t peer, uint8_t proto)
{
    tg_rules_row_t  *row;

    if (rules->n_rows == *room) {
        *room = *room ? *room * 2 : 16;
        row = realloc(rules->rows, *room * sizeof(*row));
        if (row == NULL) {
            return -1;
        }
        rules->rows = row;
    }

    row = &rules->rows[rules->n_rows++];
    memset(row, 0, sizeof(*row));
    row->key.subject = policy->service;
    row->key.peer = peer;
    row->key.port = policy->port;
    row->key.proto = proto;
    row->key.kind = (uint8_t) (policy->direction << 4 | policy->peer);
    row->value.rank = policy->precedence << 1 | (policy->deny != 0);
    row->value.number = policy->number;

    return 0;
}


/* The rows of one policy for one peer. */
static int
add_peer(tg_rules_t *rules, size_t *room, const tg_rule_policy_t *policy, uint32_t peer)
{
    if (policy->port == 0 || policy->proto != 0) {
        return add_row(rules, room, policy, peer, policy->proto);
    }

    return add_row(rules, room, policy, peer, PROTO_TCP)
           || add_row(rules, room, policy, peer, PROTO_UDP) ? -1 : 0;
}


static int
add_policy(tg_rules_t *rules, size_t *room, const tg_rule_policy_t *policy)
{
    size_t  i;

    if (policy->peer == TG_PEER_ANY) {
        return add_peer(rules, room, policy, 0);
    }

    if (policy->peer != TG_PEER_NET) {
        return add_peer(rules, room, policy, policy->peer_number);
    }

    for (i = 0; i < rules->n_nets; i++) {
        if (rules->nets[i].key.prefix - 32 >= policy->peer_prefix
            && same_prefix(&rules->nets[i].key.addr, &policy->peer_net,
                           policy->peer_prefix)
            && add_peer(rules, room, policy, rules->nets[i].class) != 0)
        {
            return -1;
        }
    }

    return 0;
}


static uint32_t
shape_of(const struct tg_rule_key *key)
{
    int  l4;

    l4 = key->port ? TG_L4_PORT : key->proto ? TG_L4_PROTO : TG_L4_ANY;

    return 1U << TG_SHAPE(key->subject == 0, key->kind & 0xf, l4);
}


/* Sorts, folds, and sums up. */
static void
finish(tg_rules_t *rules)
{
    size_t  i, n;

    n = 0;

    if (rules->n_rows > 0) {
        qsort(rules->rows, rules->n_rows, sizeof(*rules->rows), compare_rows);
    }

    for (i = 0; i < rules->n_rows; i++) {
        if (n > 0 && memcmp(&rules->rows[i].key, &rules->rows[n - 1].key,
                            sizeof(struct tg_rule_key)) == 0)
        {
            continue;
        }

        rules->rows[n++] = rules->rows[i];
        rules->shapes[rules->rows[n - 1].key.kind >> 4]
            |= shape_of(&rules->rows[n - 1].key);
    }

    rules->n_rows = n;
    rules->digest = XXH3_64bits(rules->rows, n * sizeof(*rules->rows))
                    ^ (XXH3_64bits(rules->nets, rules->n_nets * sizeof(*rules->nets)) << 1);
}


tg_rules_t *
tg_rules_create(const tg_rule_policy_t *policies, size_t n)
{
    size_t       i, room;
    tg_rules_t  *rules;

    for (i = 0; i < n; i++) {
        if (!valid(&policies[i])) {
            errno = EINVAL;
            return NULL;
        }
    }

    rules = calloc(1, sizeof(*rules));
    if (rules == NULL) {
        return NULL;
    }

    rules->nets = calloc(n ? n : 1, sizeof(*rules->nets));
    if (rules->nets == NULL) {
        goto failed;
    }

    for (i = 0; i < n; i++) {
        if (policies[i].peer == TG_PEER_NET) {
            add_net(rules, &policies[i]);
        }
    }

    /* Classes by the nets' own order: the same whatever order policies came in. */
    qsort(rules->nets, rules->n_nets, sizeof(*rules->nets), compare_nets);
    for (i = 0; i < rules->n_nets; i++) {
        rules->nets[i].class = (uint32_t) i + 1;
    }

    room = 0;
    for (i = 0; i < n; i++) {
        if (add_policy(rules, &room, &policies[i]) != 0) {
            goto failed;
        }
    }

    finish(rules);

    return rules;

failed:

    tg_rules_destroy(rules);
    errno = ENOMEM;

    return NULL;
}


void
tg_rules_destroy(tg_rules_t *rules)
{
    if (rules == NULL) {
        return;
    }

    free(rules->rows);
    free(rules->nets);
    free(rules);
}


void
tg_rules_number(tg_rules_t *rules, uint32_t set)
{
    size_t  i;

    for (i = 0; i < rules->n_rows; i++) {
        rules->rows[i].key.set = set;
    }

    for (i = 0; i < rules->n_nets; i++) {
        rules->nets[i].key.set = set;
    }
}
