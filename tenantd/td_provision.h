/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * The provisioner: brings the dedicated gateways of this machine to where the
 * registry wants them.  It has database connections of its own: one that listens
 * and reads what is wanted, and two on which the instances tell what they are, so
 * that neither waits for requests of the REST API, nor the other way round.
 */

#ifndef TD_PROVISION_H
#define TD_PROVISION_H

#include "td_daemon.h"
#include "tg_error.h"
#include "tg_text.h"

typedef struct td_provision_s  td_provision_t;

/*
 * Takes over what runs, and starts to read the registry.  Returns NULL with err
 * set.  Only for a driver other than none.
 */
td_provision_t *td_provision_create(td_daemon_t *daemon, tg_error_t *err);

/* Forgets the instances: they run on. */
void td_provision_destroy(td_provision_t *provision);

/* Ends the backoff of connections that are down. */
void td_provision_hurry(td_provision_t *provision);

/* Adds its metrics. */
void td_provision_write_metrics(const td_provision_t *provision,
    tg_text_t *text);

#endif /* TD_PROVISION_H */
