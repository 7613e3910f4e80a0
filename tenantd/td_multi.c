/* SPDX-License-Identifier: BSD-2-Clause */

#include <stdlib.h>
#include <sys/queue.h>

#include "td_multi.h"


/* Of one socket that libcurl wants watched. */
typedef struct td_multi_socket_s {
    TAILQ_ENTRY(td_multi_socket_s)   link;
    struct event                    *event;
} td_multi_socket_t;

/* Of one transfer: its private pointer. */
typedef struct {
    td_multi_done_pt   done;
    void              *data;
} td_transfer_t;

struct td_multi_s {
    struct event_base                              *base;
    CURLM                                          *multi;
    struct event                                   *timer;
    TAILQ_HEAD(td_multi_sockets_s, td_multi_socket_s)    sockets;
};


static void
td_multi_take_messages(td_multi_t *multi)
{
    int             left;
    CURL           *easy;
    CURLMsg        *message;
    CURLcode        code;
    td_transfer_t  *transfer, kept;

    while ((message = curl_multi_info_read(multi->multi, &left)) != NULL) {
        if (message->msg != CURLMSG_DONE) {
            continue;
        }

        easy = message->easy_handle;
        code = message->data.result;
        curl_easy_getinfo(easy, CURLINFO_PRIVATE, (char **) &transfer);
        kept = *transfer;

        td_multi_remove(multi, easy);
        kept.done(easy, code, kept.data);
    }
}


static void
td_multi_on_socket(evutil_socket_t fd, short what, void *data)
{
    int          running;
    td_multi_t  *multi = data;

    curl_multi_socket_action(multi->multi, fd,
                             (what & EV_READ ? CURL_CSELECT_IN : 0)
                             | (what & EV_WRITE ? CURL_CSELECT_OUT : 0),
                             &running);
    td_multi_take_messages(multi);
}


static void
td_multi_on_timer(evutil_socket_t fd, short what, void *data)
{
    int          running;
    td_multi_t  *multi = data;

    (void) fd;
    (void) what;

    curl_multi_socket_action(multi->multi, CURL_SOCKET_TIMEOUT, 0, &running);
    td_multi_take_messages(multi);
}


static int
td_multi_want_timer(CURLM *curlm, long ms, void *data)
{
    td_multi_t      *multi = data;
    struct timeval   tv = { ms / 1000, ms % 1000 * 1000 };

    (void) curlm;

    if (ms < 0) {
        evtimer_del(multi->timer);
    } else {
        evtimer_add(multi->timer, &tv);
    }

    return 0;
}


static void
td_multi_unwatch(td_multi_t *multi, td_multi_socket_t *watched)
{
    TAILQ_REMOVE(&multi->sockets, watched, link);

    if (watched->event != NULL) {
        event_free(watched->event);
    }

    free(watched);
}


static int
td_multi_want_socket(CURL *easy, curl_socket_t fd, int what, void *data,
    void *socket_data)
{
    td_multi_t         *multi = data;
    td_multi_socket_t  *watched = socket_data;

    (void) easy;

    if (what == CURL_POLL_REMOVE) {
        if (watched != NULL) {
            td_multi_unwatch(multi, watched);
        }
        return 0;
    }

    if (watched == NULL) {
        watched = calloc(1, sizeof(td_multi_socket_t));
        if (watched == NULL) {
            return -1;
        }

        TAILQ_INSERT_TAIL(&multi->sockets, watched, link);
        curl_multi_assign(multi->multi, fd, watched);
    }

    if (watched->event != NULL) {
        event_free(watched->event);
    }

    watched->event = event_new(multi->base, fd, EV_PERSIST
                               | (what & CURL_POLL_IN ? EV_READ : 0)
                               | (what & CURL_POLL_OUT ? EV_WRITE : 0),
                               td_multi_on_socket, multi);

    return watched->event != NULL && event_add(watched->event, NULL) == 0
           ? 0 : -1;
}


td_multi_t *
td_multi_create(struct event_base *base)
{
    td_multi_t  *multi;

    multi = calloc(1, sizeof(td_multi_t));
    if (multi == NULL) {
        return NULL;
    }

    multi->base = base;
    TAILQ_INIT(&multi->sockets);
    multi->multi = curl_multi_init();
    multi->timer = evtimer_new(base, td_multi_on_timer, multi);

    if (multi->multi == NULL || multi->timer == NULL) {
        td_multi_destroy(multi);
        return NULL;
    }

    curl_multi_setopt(multi->multi, CURLMOPT_SOCKETFUNCTION, td_multi_want_socket);
    curl_multi_setopt(multi->multi, CURLMOPT_SOCKETDATA, multi);
    curl_multi_setopt(multi->multi, CURLMOPT_TIMERFUNCTION, td_multi_want_timer);
    curl_multi_setopt(multi->multi, CURLMOPT_TIMERDATA, multi);

    return multi;
}


void
td_multi_destroy(td_multi_t *multi)
{
    td_multi_socket_t  *watched;

    if (multi == NULL) {
        return;
    }

    if (multi->multi != NULL) {
        curl_multi_cleanup(multi->multi);
    }

    while ((watched = TAILQ_FIRST(&multi->sockets)) != NULL) {
        td_multi_unwatch(multi, watched);
    }

    if (multi->timer != NULL) {
        event_free(multi->timer);
    }

    free(multi);
}


int
td_multi_add(td_multi_t *multi, CURL *easy, td_multi_done_pt done, void *data)
{
    td_transfer_t  *transfer;

    transfer = calloc(1, sizeof(td_transfer_t));
    if (transfer == NULL) {
        return -1;
    }

    transfer->done = done;
    transfer->data = data;
    curl_easy_setopt(easy, CURLOPT_PRIVATE, transfer);

    if (curl_multi_add_handle(multi->multi, easy) != CURLM_OK) {
        curl_easy_setopt(easy, CURLOPT_PRIVATE, NULL);
        free(transfer);
        return -1;
    }

    return 0;
}


void
td_multi_remove(td_multi_t *multi, CURL *easy)
{
    td_transfer_t  *transfer;

    transfer = NULL;
    curl_easy_getinfo(easy, CURLINFO_PRIVATE, (char **) &transfer);
    curl_multi_remove_handle(multi->multi, easy);
    curl_easy_setopt(easy, CURLOPT_PRIVATE, NULL);
    free(transfer);
}
