/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * The watch stream of this node: docs/reference/watch.md.  Events are collected
 * until a BOOKMARK, and then given to td_agent_apply.c as one batch.
 *
 *  1. A line that is no event makes the batch void: the stream is begun anew after
 *     the last BOOKMARK that was applied.
 *  2. An object that cannot be used is refused by itself; the batch goes on.
 */

#ifndef TD_AGENT_WATCH_H
#define TD_AGENT_WATCH_H

#include "td_agent.h"

typedef struct td_agent_watch_s  td_agent_watch_t;

/* Connects in the next turn of the loop.  NULL: no memory. */
td_agent_watch_t *td_agent_watch_start(td_agent_t *agent);
void td_agent_watch_stop(td_agent_watch_t *watch);

/* From where to resume: what a snapshot says.  registry "": nowhere. */
void td_agent_watch_resume(td_agent_watch_t *watch, const char *registry,
    uint64_t revision);

/* Whether the stream is there and has been applied up to a BOOKMARK. */
int td_agent_watch_live(const td_agent_watch_t *watch);

/* "" before the first answer. */
const char *td_agent_watch_registry(const td_agent_watch_t *watch);

#endif /* TD_AGENT_WATCH_H */
