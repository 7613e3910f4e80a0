/* SPDX-License-Identifier: BSD-2-Clause */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "td_agent_ack.h"
#include "td_agent_apply.h"
#include "td_agent_place.h"
#include "td_agent_watch.h"
#include "td_log.h"
#include "tg_text.h"


#define TD_ACK_INTERVAL  10         /* s */
#define TD_ACK_MAPS      32

struct td_agent_ack_s {
    td_agent_t    *agent;
    struct event  *timer;
    int            sending;
    int            dirty;
    long           refused;         /* status that was logged last */
};


static void
td_agent_ack_arm(td_agent_ack_t *ack, long seconds)
{
    struct timeval  tv = { seconds, 0 };

    evtimer_add(ack->timer, &tv);
}


/* {"DENY_RULE":3,...}: those that are not 0. */
static void
td_agent_ack_counters(const td_agent_t *agent, tg_text_t *out)
{
    size_t        n;
    uint64_t      counters[TG_COUNTERS];
    const char   *name;
    unsigned int  i;

    tg_text_str(out, "{");

    if (td_mesh_counters(agent->mesh, counters) == 0) {
        for (i = 0, n = 0; i < TG_COUNTERS; i++) {
            name = td_mesh_counter_name(i);

            if (counters[i] != 0 && name != NULL) {
                tg_text_printf(out, "%s\"%s\":%llu", n++ > 0 ? "," : "", name,
                               (unsigned long long) counters[i]);
            }
        }
    }

    tg_text_str(out, "}");
}


static void
td_agent_ack_fill(const td_agent_t *agent, tg_text_t *out)
{
    size_t          i, n;
    td_mesh_fill_t  fill[TD_ACK_MAPS];

    n = td_mesh_fill(agent->mesh, fill, TD_ACK_MAPS);
    tg_text_str(out, "[");

    for (i = 0; i < n && i < TD_ACK_MAPS; i++) {
        tg_text_printf(out, "%s{\"map\":\"%s\",\"used\":%zu,\"size\":%zu,\"refused\":%llu}",
                       i > 0 ? "," : "", fill[i].name, fill[i].used, fill[i].size,
                       (unsigned long long) fill[i].refused);
    }

    tg_text_str(out, "]");
}


static void
td_agent_ack_done(void *data, long status, const char *body, size_t len,
    const char *error)
{
    td_agent_ack_t  *ack = data;

    ack->sending = 0;

    if (status / 100 != 2 && status != ack->refused) {
        td_log(TD_LOG_WARN, "ack", "revision not acknowledged: %s %.*s",
               error ? error : "", (int) (len < 300 ? len : 300), body);
    }

    ack->refused = status / 100 == 2 ? -1 : status;

    /* a stream that comes back hurries us */
    td_agent_ack_arm(ack, ack->dirty && status / 100 == 2 ? 0 : TD_ACK_INTERVAL);
}


static void
td_agent_ack_send(td_agent_ack_t *ack)
{
    char         path[128];
    tg_text_t    out;
    td_agent_t  *agent;

    agent = ack->agent;
    ack->dirty = 0;
    tg_text_init(&out);

    tg_text_printf(&out, "{\"boot\":\"%s\",\"revision\":%llu", agent->boot,
                   (unsigned long long) td_agent_revision(agent));

    if (td_agent_watch_registry(agent->watch)[0] != '\0') {
        tg_text_printf(&out, ",\"registry\":\"%s\"",
                       td_agent_watch_registry(agent->watch));
    }

    tg_text_printf(&out, ",\"state\":\"%s\",\"tenants\":%zu,\"rejected\":",
                   td_agent_state(agent), td_agent_tenants(agent));
    td_apply_rejected(agent->apply, &out);
    tg_text_str(&out, ",\"mesh\":{\"counters\":");
    td_agent_ack_counters(agent, &out);
    tg_text_str(&out, ",\"fill\":");
    td_agent_ack_fill(agent, &out);
    tg_text_printf(&out, ",\"workloads\":%zu}}", td_place_present(agent->place));

    snprintf(path, sizeof(path), "/v1/gateways/%s/ack", agent->gateway);
    ack->sending = !out.failed
                   && td_agent_post(agent, path, out.data, out.len, td_agent_ack_done,
                                    ack) == 0;
    tg_text_free(&out);

    if (!ack->sending) {
        td_agent_ack_arm(ack, TD_ACK_INTERVAL);
    }
}


static void
td_agent_ack_on_timer(evutil_socket_t fd, short what, void *data)
{
    td_agent_ack_t  *ack = data;

    (void) fd;
    (void) what;

    if (!ack->sending) {
        td_agent_ack_send(ack);
    }
}


td_agent_ack_t *
td_agent_ack_create(td_agent_t *agent)
{
    td_agent_ack_t  *ack;

    ack = calloc(1, sizeof(td_agent_ack_t));
    if (ack == NULL) {
        return NULL;
    }

    ack->agent = agent;
    ack->refused = -1;
    ack->timer = evtimer_new(agent->base, td_agent_ack_on_timer, ack);

    if (ack->timer == NULL) {
        free(ack);
        return NULL;
    }

    td_agent_ack_arm(ack, TD_ACK_INTERVAL);

    return ack;
}


void
td_agent_ack_destroy(td_agent_ack_t *ack)
{
    if (ack != NULL) {
        event_free(ack->timer);
        free(ack);
    }
}


void
td_agent_ack_hurry(td_agent_ack_t *ack)
{
    ack->dirty = 1;

    if (!ack->sending) {
        td_agent_ack_arm(ack, 0);
    }
}
