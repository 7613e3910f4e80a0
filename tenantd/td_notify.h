/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * sd_notify(3) without libsystemd: the protocol is one datagram.
 */

#ifndef TD_NOTIFY_H
#define TD_NOTIFY_H

/* Tells the service manager, if there is one: "READY=1", "STOPPING=1". */
void td_notify(const char *state);

#endif /* TD_NOTIFY_H */
