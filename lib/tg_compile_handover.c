/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Members that a tenant's document has for one gateway only: what to do with the
 * requests while the tenant moves from one gateway to another, and the quota
 * state that comes along.
 */

#include <stdlib.h>
#include <string.h>

#include "tg_compile_internal.h"

/* Bytes of a consumer's name that a bucket keeps. */
#define TGC_CARRY_NAME  (sizeof(((tg_quota_bucket_t *) 0)->name) - 1)


/* 1 to 16 hexadecimal digits. */
static int
tgc_hex64(tg_compiler_t *c, const json_t *object, const char *name, int flags,
    uint64_t *out)
{
    size_t         len;
    const char    *s;
    const json_t  *value;

    value = tgc_member(object, name);

    if (value == NULL && (flags & TGC_OPTIONAL)) {
        return 0;
    }

    s = json_string_value(value);
    len = json_string_length(value);

    if (s == NULL || len == 0 || len > 16
        || strspn(s, "0123456789abcdefABCDEF") != len)
    {
        (void) tgc_fail(c, "", "must be a string of 1 to 16 hexadecimal digits");
        return tgc_in(c, name);
    }

    *out = strtoull(s, NULL, 16);

    return 0;
}


/* Either a level and when it was that, or a calendar word. */
static int
tgc_carry_value(tg_compiler_t *c, const json_t *object, tg_carry_t *carry)
{
    if (tgc_member(object, "word") == NULL) {
        if (tgc_hex64(c, object, "level", 0, &carry->value) != 0) {
            return -1;
        }

        return tgc_id(c, object, "at", &carry->at);
    }

    if (tgc_member(object, "level") != NULL) {
        (void) tgc_fail(c, "", "cannot be beside \"word\"");
        return tgc_in(c, "level");
    }

    carry->calendar = 1;

    return tgc_hex64(c, object, "word", 0, &carry->value);
}


static int
tgc_carry_word(tg_compiler_t *c, const json_t *object, tg_carry_t *carry)
{
    memset(carry, 0, sizeof(*carry));

    if (tgc_is_object(c, object) != 0
        || tgc_id(c, object, "quota", &carry->quota) != 0
        || tgc_hex64(c, object, "key", TGC_OPTIONAL, &carry->key) != 0
        || tgc_carry_value(c, object, carry) != 0)
    {
        return -1;
    }

    return tgc_string(c, object, "name", TGC_TEXT, 0, TGC_CARRY_NAME,
                      TGC_OPTIONAL, &carry->name);
}


static int
tgc_carry(tg_compiler_t *c, const json_t *array, tg_vec_t vec)
{
    tg_carry_t  carry;

    for (size_t i = 0; i < vec.n; i++) {
        if (tgc_carry_word(c, json_array_get(array, i), &carry) != 0) {
            (void) tgc_in_index(c, i);
            return tgc_in(c, "carry");
        }

        tgc_store(c, vec, i, &carry, sizeof(carry));
    }

    return 0;
}


static int
tgc_forward(tg_compiler_t *c, const json_t *document, const tg_block_t *head,
    tg_handover_t *handover)
{
    tg_ref_t           name;
    const tg_route_t  *route;

    memset(&name, 0, sizeof(name));

    if (tgc_string(c, document, "forward", TGC_VISIBLE, 1, TG_MAX_NAME,
                   TGC_OPTIONAL, &name) != 0)
    {
        return -1;
    }

    if (name.off == 0) {
        return 0;
    }

    route = tgc_at(c, head->routes, 0, sizeof(tg_route_t));

    for (uint32_t i = 0; i < head->routes.n; i++) {
        if (route[i].name.off == name.off) {
            handover->forward = i;
            return 1;
        }
    }

    (void) tgc_fail(c, "", "names no route of the tenant");
    return tgc_in(c, "forward");
}


static int
tgc_flags(tg_compiler_t *c, const json_t *document, tg_block_t *head,
    tg_handover_t *handover)
{
    int      forward;
    uint8_t  hold, misdirected;

    hold = 0;
    misdirected = 0;

    if (tgc_bool(c, document, "hold", &hold) != 0
        || tgc_bool(c, document, "misdirected", &misdirected) != 0)
    {
        return -1;
    }

    forward = tgc_forward(c, document, head, handover);

    if (forward < 0) {
        return -1;
    }

    if (forward && misdirected) {
        (void) tgc_fail(c, "", "cannot be beside \"forward\"");
        return tgc_in(c, "misdirected");
    }

    head->flags = (hold ? TG_BLOCK_HOLD : 0u)
                  | (misdirected ? TG_BLOCK_MISDIRECTED : 0u)
                  | (forward ? TG_BLOCK_FORWARD : 0u);

    return 0;
}


/* The id of the hand-over to report, and the carry with its id. */
static int
tgc_ids(tg_compiler_t *c, const json_t *document, tg_handover_t *handover,
    const json_t **carry)
{
    const json_t  *report;

    report = tgc_member(document, "handover");

    if (report != NULL
        && (tgc_is_object(c, report) != 0
            || tgc_number32(c, report, "id", 1, UINT32_MAX, 0, &handover->id)
               != 0))
    {
        return tgc_in(c, "handover");
    }

    if (tgc_array(c, document, "carry", 0, TG_MAX_CARRY, TGC_OPTIONAL, carry)
        != 0)
    {
        return -1;
    }

    return json_array_size(*carry) == 0
               && tgc_member(document, "carry_id") == NULL
           ? 0 : tgc_number32(c, document, "carry_id", 1, UINT32_MAX, 0,
                              &handover->carry_id);
}


int
tgc_handover(tg_compiler_t *c, const json_t *document, tg_block_t *head)
{
    const json_t   *array;
    tg_vec_t        vec;
    tg_handover_t   handover;

    memset(&handover, 0, sizeof(handover));

    if (tgc_flags(c, document, head, &handover) != 0
        || tgc_ids(c, document, &handover, &array) != 0)
    {
        return -1;
    }

    if (handover.id == 0 && handover.carry_id == 0
        && !(head->flags & TG_BLOCK_FORWARD))
    {
        return 0;
    }

    if (tgc_reserve(c, 1, sizeof(handover), 8, &vec) != 0
        || tgc_reserve(c, json_array_size(array), sizeof(tg_carry_t), 8,
                       &handover.carry) != 0)
    {
        return -1;
    }

    tgc_store(c, vec, 0, &handover, sizeof(handover));
    head->handover = vec.off;

    return tgc_carry(c, array, handover.carry);
}
