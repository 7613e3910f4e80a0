/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * A tenant's mesh policies, made into what the kernel looks up: rows of tg_rules
 * and tg_cidrs for one set.  bpf/tg_policy.h says in which order they decide.
 */

#ifndef TG_RULES_H
#define TG_RULES_H

#include <stddef.h>
#include <stdint.h>

#include "tg_mesh.h"

#define TG_PRECEDENCE_MAX  0x3fffffff

typedef struct {
    uint32_t         number;        /* of the policy, for records */
    uint32_t         precedence;    /* the higher decides */
    int              deny;
    int              direction;     /* TG_IN, TG_OUT */
    uint32_t         service;       /* the tenant's own; 0: any */
    int              peer;          /* TG_PEER_* */
    uint32_t         peer_number;   /* service or tenant */
    struct tg_addr   peer_net;      /* TG_PEER_NET, IPv4 mapped */
    uint32_t         peer_prefix;   /* of 128 */
    uint8_t          proto;         /* 0: any */
    uint16_t         port;          /* of the endpoint; 0: any */
} tg_rule_policy_t;

typedef struct {
    struct tg_rule_key  key;
    struct tg_rule      value;
} tg_rules_row_t;

typedef struct {
    struct tg_cidr  key;
    uint32_t        class;
} tg_rules_net_t;

typedef struct {
    tg_rules_row_t  *rows;
    size_t           n_rows;
    tg_rules_net_t  *nets;
    size_t           n_nets;
    uint32_t         shapes[2];
    uint64_t         digest;        /* of all of it but the set's number */
} tg_rules_t;

/* NULL: no memory, or errno EINVAL for a policy that says nothing valid: a port
 * without protocol stands for TCP and UDP, everything else must be in range. */
tg_rules_t *tg_rules_create(const tg_rule_policy_t *policies, size_t n);
void tg_rules_destroy(tg_rules_t *rules);

/* Writes the set's number into every key. */
void tg_rules_number(tg_rules_t *rules, uint32_t set);

#endif /* TG_RULES_H */
