/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Reports that have been announced and are to be read: payloads of notifications,
 * "FIRST LAST NODE".
 */

#ifndef TD_FLOW_REPORT_H
#define TD_FLOW_REPORT_H

#include <stddef.h>
#include <stdint.h>

#define TD_FLOW_REPORTS       256   /* that wait; the oldest go first */
#define TD_FLOW_REPORTS_READ  16    /* at once */

typedef struct {
    int64_t   first;
    int64_t   last;
    char      node[64];
} td_flow_report_t;

typedef struct {
    td_flow_report_t  report[TD_FLOW_REPORTS];
    size_t            n;
    uint64_t          dropped;      /* records, at most, of reports that went */
} td_flow_reports_t;

/* As PostgreSQL arrays. */
typedef struct {
    char  first[TD_FLOW_REPORTS_READ * 21 + 2];
    char  last[TD_FLOW_REPORTS_READ * 21 + 2];
    char  nodes[TD_FLOW_REPORTS_READ * 66 + 2];
} td_flow_report_text_t;

/* Returns -1: it is no such payload, and is passed over. */
int td_flow_reports_add(td_flow_reports_t *reports, const char *payload);

/* Takes the oldest, up to TD_FLOW_REPORTS_READ. */
void td_flow_reports_take(td_flow_reports_t *reports,
    td_flow_report_text_t *text);

#endif /* TD_FLOW_REPORT_H */
