/* SPDX-License-Identifier: BSD-2-Clause */

#include <stdio.h>
#include <stdlib.h>

#include "td_agent_exec.h"
#include "td_agent_health.h"
#include "td_agent_report.h"
#include "td_agent_watch.h"
#include "td_log.h"
#include "tg_text.h"


#define TD_REPORT_RETRY  500        /* ms */

struct td_agent_report_s {
    td_agent_t    *agent;
    struct event  *timer;
    int            sending;
    int            dirty;
    long           refused;         /* status that was logged last, or -1 */
};


static void
td_agent_report_arm(td_agent_report_t *report, long ms)
{
    struct timeval  tv = { ms / 1000, ms % 1000 * 1000 };

    evtimer_add(report->timer, &tv);
}


static void
td_agent_report_done(void *data, long status, const char *body, size_t len,
    const char *error)
{
    td_agent_report_t  *report = data;

    report->sending = 0;

    td_agent_health_told(report->agent->health, status / 100 == 2);

    if (status / 100 != 2) {
        if (status != report->refused) {
            td_log(TD_LOG_WARN, "report", "not taken: %s %.*s", error ? error : "",
                   (int) (len < 300 ? len : 300), body);
            report->refused = status;
        }

        /* What the registry cannot take now it may take later, but not at once. */
        report->dirty = 1;
        td_agent_report_arm(report, TD_REPORT_RETRY * (status == 0 ? 1 : 10));
        return;
    }

    report->refused = -1;

    if (report->dirty) {
        td_agent_report_arm(report, 0);
    }
}


static void
td_agent_report_on_timer(evutil_socket_t fd, short what, void *data)
{
    char                path[128];
    tg_text_t           out;
    td_agent_t         *agent;
    td_agent_report_t  *report = data;

    (void) fd;
    (void) what;

    agent = report->agent;

    /* a stream that comes back makes it again */
    if (report->sending || !td_agent_watch_live(agent->watch)) {
        return;
    }

    report->dirty = 0;
    tg_text_init(&out);
    tg_text_printf(&out, "{\"boot\":\"%s\",\"workloads\":", agent->boot);
    td_agent_exec_list(agent->exec, &out);
    tg_text_str(&out, ",\"health\":");
    td_agent_health_list(agent->health, &out);
    tg_text_str(&out, "}");

    snprintf(path, sizeof(path), "/v1/gateways/%s/mesh", agent->gateway);
    report->sending = !out.failed
                      && td_agent_post(agent, path, out.data, out.len,
                                       td_agent_report_done, report) == 0;
    tg_text_free(&out);

    if (!report->sending) {
        td_agent_report_arm(report, TD_REPORT_RETRY);
    }
}


td_agent_report_t *
td_agent_report_create(td_agent_t *agent)
{
    td_agent_report_t  *report;

    report = calloc(1, sizeof(td_agent_report_t));
    if (report == NULL) {
        return NULL;
    }

    report->agent = agent;
    report->refused = -1;
    report->timer = evtimer_new(agent->base, td_agent_report_on_timer, report);

    if (report->timer == NULL) {
        free(report);
        return NULL;
    }

    return report;
}


void
td_agent_report_destroy(td_agent_report_t *report)
{
    if (report != NULL) {
        event_free(report->timer);
        free(report);
    }
}


void
td_agent_report_changed(td_agent_report_t *report)
{
    report->dirty = 1;

    if (!report->sending) {
        td_agent_report_arm(report, 0);
    }
}


void
td_agent_report_all(td_agent_report_t *report)
{
    td_agent_health_untold(report->agent->health);
    td_agent_report_changed(report);
}
