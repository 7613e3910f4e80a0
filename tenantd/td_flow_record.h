/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * A record of the kernel with names, and as a row of a report.
 */

#ifndef TD_FLOW_RECORD_H
#define TD_FLOW_RECORD_H

#include "tg_mesh.h"
#include "tg_text.h"

/* NULL: nobody, or not known. */
typedef struct {
    const char  *tenant;
    const char  *service;
} td_flow_who_t;

typedef struct {
    const struct tg_event  *event;
    td_flow_who_t           source;
    td_flow_who_t           destination;
    const char             *policy_tenant;
    const char             *policy;
    int64_t                 time_ms;    /* since 1970 */
} td_flow_record_t;

/* Whether the record was made where the call began. */
int td_flow_at_source(const struct tg_event *event);

/* Whether it is the one of its connection that sums count: where the call began, or
 * where it arrived from outside the mesh. */
int td_flow_counts(const struct tg_event *event);

/* The number of the tenant on whose side it was made, or of the other's. */
uint32_t td_flow_tenant(const struct tg_event *event);

/* "open"; NULL for a type that is none. */
const char *td_flow_type(const struct tg_event *event);

/* Adds the columns of docs/reference/flows.md, but for "lost]" at the end. */
void td_flow_row(tg_text_t *text, const td_flow_record_t *record);

#endif /* TD_FLOW_RECORD_H */
