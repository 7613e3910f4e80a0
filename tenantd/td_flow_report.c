/* SPDX-License-Identifier: BSD-2-Clause */

#include <stdio.h>
#include <string.h>

#include "td_flow_report.h"


/* Anybody who may notify can write a payload: nothing of it goes on unseen. */
int
td_flow_reports_add(td_flow_reports_t *reports, const char *payload)
{
    int                end;
    long long          first, last;
    td_flow_report_t  *report, given;

    end = 0;

    if (sscanf(payload, "%18lld %18lld %63[-a-z0-9._]%n", &first, &last,
               given.node, &end) != 3
        || payload[end] != '\0' || first < 0 || last < first)
    {
        return -1;
    }

    given.first = first;
    given.last = last;

    if (reports->n == TD_FLOW_REPORTS) {
        report = &reports->report[0];
        reports->dropped += (uint64_t) (report->last - report->first);
        reports->n--;
        memmove(report, report + 1, reports->n * sizeof(td_flow_report_t));
    }

    reports->report[reports->n++] = given;

    return 0;
}


static size_t
td_flow_report_end(char *array, size_t len)
{
    memcpy(array + len, "}", 2);

    return len + 1;
}


void
td_flow_reports_take(td_flow_reports_t *reports, td_flow_report_text_t *text)
{
    size_t                   i, n, first, last, nodes;
    const char              *comma;
    const td_flow_report_t  *report;

    n = reports->n < TD_FLOW_REPORTS_READ ? reports->n : TD_FLOW_REPORTS_READ;
    first = last = nodes = 0;

    for (i = 0; i < n; i++) {
        report = &reports->report[i];
        comma = i == 0 ? "{" : ",";
        first += (size_t) sprintf(text->first + first, "%s%lld", comma,
                                  (long long) report->first);
        last += (size_t) sprintf(text->last + last, "%s%lld", comma,
                                 (long long) report->last);
        nodes += (size_t) sprintf(text->nodes + nodes, "%s%s", comma,
                                  report->node);
    }

    if (n == 0) {
        text->first[first++] = '{';
        text->last[last++] = '{';
        text->nodes[nodes++] = '{';
    }

    td_flow_report_end(text->first, first);
    td_flow_report_end(text->last, last);
    td_flow_report_end(text->nodes, nodes);

    reports->n -= n;
    memmove(reports->report, reports->report + n,
            reports->n * sizeof(td_flow_report_t));
}
