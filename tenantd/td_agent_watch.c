/* SPDX-License-Identifier: BSD-2-Clause */

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "td_agent_ack.h"
#include "td_agent_apply.h"
#include "td_agent_client.h"
#include "td_agent_document.h"
#include "td_agent_report.h"
#include "td_agent_watch.h"
#include "td_log.h"
#include "td_multi.h"
#include "tg_stream.h"
#include "tg_text.h"


#define TD_WATCH_SILENCE    5000        /* ms without a line: dead */
#define TD_WATCH_BACKOFF    50          /* ms, doubled up to the next */
#define TD_WATCH_BACKOFF_MAX  2000
#define TD_WATCH_PROBLEM    1024        /* bytes of a refusal that are kept */

struct td_agent_watch_s {
    td_agent_t         *agent;
    CURL               *easy;           /* NULL: not connected */
    struct curl_slist  *headers;
    struct event       *timer;          /* connect, or silence */
    tg_lines_t          lines;
    tg_text_t           problem;        /* of an answer that is no stream */
    char                error[CURL_ERROR_SIZE];
    char                reason[256];    /* why we have ended it */
    char                said[512];      /* what was logged last, while not live */
    char                registry[37];   /* of what is in force */
    char                answering[37];  /* of this stream */
    uint64_t            since;
    long                status;
    int                 listing;        /* it was begun with since=0 */
    int                 live;
    int                 relist;
    long                backoff;
};


static void td_agent_watch_on_timer(evutil_socket_t fd, short what, void *data);
static void td_agent_watch_say(td_agent_watch_t *watch, td_log_level_e level,
    const char *fmt, ...) __attribute__((format(printf, 3, 4)));


static void
td_agent_watch_arm(td_agent_watch_t *watch, long ms)
{
    struct timeval  tv = { ms / 1000, ms % 1000 * 1000 };

    evtimer_add(watch->timer, &tv);
}


static void
td_agent_watch_close(td_agent_watch_t *watch)
{
    if (watch->easy != NULL) {
        curl_easy_cleanup(watch->easy);
        watch->easy = NULL;
    }

    curl_slist_free_all(watch->headers);
    watch->headers = NULL;
    watch->live = 0;
    tg_lines_reset(&watch->lines);
    tg_text_reset(&watch->problem);
    td_apply_drop(watch->agent->apply);
}


/* Begins again later; how late depends on how often it has failed. */
static void
td_agent_watch_again(td_agent_watch_t *watch)
{
    td_agent_watch_close(watch);
    td_agent_watch_arm(watch, watch->backoff / 2 + random() % (watch->backoff / 2 + 1));

    watch->backoff *= 2;
    if (watch->backoff > TD_WATCH_BACKOFF_MAX) {
        watch->backoff = TD_WATCH_BACKOFF_MAX;
    }

    td_agent_ack_hurry(watch->agent->ack);
}


/* Logs why there is no stream, once for each reason. */
static void
td_agent_watch_say(td_agent_watch_t *watch, td_log_level_e level, const char *fmt, ...)
{
    char     text[sizeof(watch->said)];
    va_list  args;

    va_start(args, fmt);
    vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);

    if (strcmp(text, watch->said) != 0) {
        memcpy(watch->said, text, sizeof(text));
        td_log(level, "watch", "%s", text);
    }
}


static void
td_agent_watch_refused(td_agent_watch_t *watch)
{
    if (watch->status == 410) {
        td_log(TD_LOG_NOTICE, "watch", "the registry does not have revision %llu "
               "any more, or is another one: everything is listed anew",
               (unsigned long long) watch->since);
        watch->since = 0;
        watch->registry[0] = '\0';
        return;
    }

    td_agent_watch_say(watch, TD_LOG_ERR, "the registry refuses the stream of %s with "
           "status %ld: %.*s", watch->agent->gateway, watch->status,
           (int) watch->problem.len, watch->problem.data ? watch->problem.data : "");
}


static const char *
td_agent_watch_why(const td_agent_watch_t *watch, CURLcode code)
{
    return watch->error[0] != '\0' ? watch->error : curl_easy_strerror(code);
}


static void
td_agent_watch_ended(CURL *easy, CURLcode code, void *data)
{
    td_agent_watch_t  *watch = data;

    curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &watch->status);

    if (watch->relist) {
        watch->relist = 0;
        watch->since = 0;
        watch->backoff = TD_WATCH_BACKOFF;

    } else if (watch->reason[0] != '\0') {
        td_agent_watch_say(watch, TD_LOG_ERR, "%s", watch->reason);

    } else if (code == CURLE_OK && watch->status != 200) {
        td_agent_watch_refused(watch);

    } else if (code != CURLE_OK && watch->status == 0) {
        td_agent_watch_say(watch, TD_LOG_WARN, "%s is not reached: %s",
                           watch->agent->config->agent.tenantd,
                           td_agent_watch_why(watch, code));

    } else {
        td_agent_watch_say(watch, watch->live ? TD_LOG_WARN : TD_LOG_NOTICE,
               "the stream has ended: %s", code == CURLE_OK ? "closed by tenantd"
               : td_agent_watch_why(watch, code));
    }

    td_agent_watch_again(watch);
}


static size_t
td_agent_watch_on_header(char *data, size_t size, size_t n, void *arg)
{
    char              *value;
    size_t             len;
    td_agent_watch_t  *watch = arg;
    static const char  name[] = "tiergate-registry:";

    n *= size;
    len = sizeof(name) - 1;

    if (n > len && strncasecmp(data, name, len) == 0) {
        value = data + len;

        while (value < data + n && *value == ' ') {
            value++;
        }

        len = (size_t) (data + n - value);
        tg_uuid_copy(watch->answering, value, len < 36 ? len : 36);
    }

    return n;
}


/* Returns -1 when the stream must end. */
static int
td_agent_watch_bookmark(td_agent_watch_t *watch, const td_event_t *event)
{
    int  changed, was_live;

    if (watch->listing && !event->complete) {
        return 0;
    }

    changed = td_apply_commit(watch->agent->apply, event->revision,
                              watch->listing && event->complete, watch->answering);
    watch->since = event->revision;
    memcpy(watch->registry, watch->answering, sizeof(watch->registry));
    watch->listing = 0;
    was_live = watch->live;
    watch->live = 1;
    watch->said[0] = '\0';
    watch->backoff = TD_WATCH_BACKOFF;

    if (!was_live) {
        td_log(TD_LOG_NOTICE, "watch", "live at revision %llu",
               (unsigned long long) event->revision);
        td_agent_ack_hurry(watch->agent->ack);
        td_agent_report_all(watch->agent->report);
    }

    if (changed) {
        td_log(TD_LOG_NOTICE, "watch", "the tenants of this node have changed: "
               "everything is listed anew");
        watch->relist = 1;
        return -1;
    }

    return 0;
}


/* Returns -1 when the stream must end. */
static int
td_agent_watch_line(td_agent_watch_t *watch, const char *line, size_t len)
{
    td_event_t         event;
    tg_error_t         err;
    td_event_status_e  status;

    status = td_event_parse(line, len, &event, &err);

    if (status == TD_EVENT_BAD_LINE) {
        snprintf(watch->reason, sizeof(watch->reason), "a line of the stream is "
                 "refused, and its batch: %.180s", err.message);
        return -1;
    }

    if (status == TD_EVENT_BAD_OBJECT) {
        td_apply_refuse(watch->agent->apply, &event, err.message);
        return 0;
    }

    switch (event.type) {

    case TD_EVENT_PUT:
        if (event.doc != NULL) {
            td_apply_put(watch->agent->apply, event.doc);
        }
        return 0;

    case TD_EVENT_DELETE:
        if (event.kind != TD_DOC_NONE) {
            td_apply_delete(watch->agent->apply, event.kind, event.name, event.id);
        }
        return 0;

    default:
        return td_agent_watch_bookmark(watch, &event);
    }
}


static size_t
td_agent_watch_on_data(char *data, size_t size, size_t n, void *arg)
{
    int                rc;
    long               status;
    size_t             len;
    const char        *pos, *line;
    tg_lines_event_e   got;
    td_agent_watch_t  *watch = arg;

    n *= size;
    status = 0;
    curl_easy_getinfo(watch->easy, CURLINFO_RESPONSE_CODE, &status);

    if (status != 200) {
        tg_text_add(&watch->problem, data, watch->problem.len + n < TD_WATCH_PROBLEM
                    ? n : TD_WATCH_PROBLEM - watch->problem.len);
        return n;
    }

    td_agent_watch_arm(watch, TD_WATCH_SILENCE);
    pos = data;
    rc = 0;

    while (rc == 0
           && (got = tg_lines_next(&watch->lines, &pos, data + n, &line, &len))
              != TG_LINES_MORE)
    {
        if (got == TG_LINES_LINE) {
            rc = len > 0 ? td_agent_watch_line(watch, line, len) : 0;
            continue;
        }

        snprintf(watch->reason, sizeof(watch->reason), "%s", got == TG_LINES_NOMEM
                 ? "out of memory" : "a line of the stream is too long");
        rc = -1;
    }

    return rc == 0 ? n : CURL_WRITEFUNC_ERROR;
}


static int
td_agent_watch_connect(td_agent_watch_t *watch)
{
    char  path[512];

    snprintf(path, sizeof(path), "/v1/watch?since=%llu&for=%s%s%s",
             (unsigned long long) watch->since, watch->agent->gateway,
             watch->registry[0] && watch->since ? "&registry=" : "",
             watch->since ? watch->registry : "");

    watch->listing = watch->since == 0;
    watch->reason[0] = '\0';
    watch->error[0] = '\0';
    watch->answering[0] = '\0';
    watch->easy = td_client_easy(watch->agent, path, &watch->headers);

    if (watch->easy == NULL) {
        return -1;
    }

    curl_easy_setopt(watch->easy, CURLOPT_HTTPHEADER, watch->headers);
    curl_easy_setopt(watch->easy, CURLOPT_FRESH_CONNECT, 1L);
    curl_easy_setopt(watch->easy, CURLOPT_FORBID_REUSE, 1L);
    curl_easy_setopt(watch->easy, CURLOPT_BUFFERSIZE, 262144L);
    curl_easy_setopt(watch->easy, CURLOPT_ERRORBUFFER, watch->error);
    curl_easy_setopt(watch->easy, CURLOPT_HEADERFUNCTION, td_agent_watch_on_header);
    curl_easy_setopt(watch->easy, CURLOPT_HEADERDATA, watch);
    curl_easy_setopt(watch->easy, CURLOPT_WRITEFUNCTION, td_agent_watch_on_data);
    curl_easy_setopt(watch->easy, CURLOPT_WRITEDATA, watch);

    return td_multi_add(watch->agent->multi, watch->easy, td_agent_watch_ended, watch);
}


/* Time to connect, or nothing has come for too long. */
static void
td_agent_watch_on_timer(evutil_socket_t fd, short what, void *data)
{
    td_agent_watch_t  *watch = data;

    (void) fd;
    (void) what;

    if (watch->easy != NULL) {
        td_log(TD_LOG_WARN, "watch", "no line for %d s: the stream is begun anew",
               TD_WATCH_SILENCE / 1000);
        td_multi_remove(watch->agent->multi, watch->easy);
        td_agent_watch_again(watch);
        return;
    }

    td_agent_watch_arm(watch, TD_WATCH_SILENCE);

    if (td_agent_watch_connect(watch) != 0) {
        td_agent_watch_again(watch);
    }
}


td_agent_watch_t *
td_agent_watch_start(td_agent_t *agent)
{
    td_agent_watch_t  *watch;

    watch = calloc(1, sizeof(td_agent_watch_t));
    if (watch == NULL) {
        return NULL;
    }

    watch->agent = agent;
    watch->backoff = TD_WATCH_BACKOFF;
    watch->timer = evtimer_new(agent->base, td_agent_watch_on_timer, watch);
    tg_lines_init(&watch->lines, TG_LINE_MAX);

    if (watch->timer == NULL) {
        free(watch);
        return NULL;
    }

    td_agent_watch_arm(watch, 0);

    return watch;
}


void
td_agent_watch_stop(td_agent_watch_t *watch)
{
    if (watch == NULL) {
        return;
    }

    if (watch->easy != NULL) {
        td_multi_remove(watch->agent->multi, watch->easy);
    }

    td_agent_watch_close(watch);
    event_free(watch->timer);
    tg_lines_free(&watch->lines);
    tg_text_free(&watch->problem);
    free(watch);
}


void
td_agent_watch_resume(td_agent_watch_t *watch, const char *registry, uint64_t revision)
{
    snprintf(watch->registry, sizeof(watch->registry), "%s", registry);
    watch->since = revision;
}


int
td_agent_watch_live(const td_agent_watch_t *watch)
{
    return watch != NULL && watch->live;
}


const char *
td_agent_watch_registry(const td_agent_watch_t *watch)
{
    return watch->registry;
}
