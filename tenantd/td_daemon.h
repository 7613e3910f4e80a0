/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * What the parts of "tenantd serve" share.  td_serve.c makes it; every pointer
 * is set before the first request and stays until the loop has ended.
 */

#ifndef TD_DAEMON_H
#define TD_DAEMON_H

#include <stdint.h>

#include <event2/event.h>

#include "td_config.h"
#include "tg_secret.h"

typedef struct td_daemon_s {
    struct event_base   *base;
    td_config_t         *config;
    struct td_http_s    *http;
    struct td_pool_s    *pool;          /* requests */
    struct td_pool_s    *list_pool;     /* streams that list or catch up */
    struct td_feed_s    *feed;
    struct td_watch_s   *watch;
    struct td_ack_s     *ack;
    struct td_batches_s *batches;
    struct td_flows_s   *flows;         /* those who follow */
    struct td_jwks_s    *jwks;
    struct td_provision_s *provision;   /* NULL: this tenantd runs no gateways */
    struct td_handover_s *handover;     /* NULL: the provisioner has its own */

    uint8_t              secret_key[TG_SECRET_KEY_SIZE];
    int                  has_secret_key;
    int                  draining;
} td_daemon_t;

#endif /* TD_DAEMON_H */
