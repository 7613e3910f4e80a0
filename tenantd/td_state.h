/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * The states of a dedicated instance, which of them may follow which, and how long
 * is waited after failures.  Pure: no clock, no I/O.
 */

#ifndef TD_STATE_H
#define TD_STATE_H

#include <stdint.h>

/*
 *                  what it waits for
 *   LEASED         another tenantd's lock on the prefix to go
 *   TOKEN          the registry, for the credential of its watch stream
 *   PORT           the registry, for another port
 *   ADOPTED        an nginx that was found running to answer, or to die
 *   STARTING       nginx to answer with its tenant loaded, or to die
 *   READY          a change, or nginx to die
 *   CHECKING       nginx -t of the next configuration; the old one serves
 *   RELOADING      the next configuration to answer; the old one serves until then
 *   BACKOFF        the time of the next attempt; nothing runs
 *   DRAINING       nginx to end by itself after SIGQUIT
 *   KILLING        the processes to be gone after SIGKILL
 *   REMOVING       files and cgroup to be gone, then the registry to hear of it
 *   GONE           nothing
 */
typedef enum {
    TD_STATE_NEW,           /* nothing: it is about to be looked at */
    TD_STATE_LEASED,
    TD_STATE_TOKEN,
    TD_STATE_PORT,
    TD_STATE_ADOPTED,
    TD_STATE_STARTING,
    TD_STATE_READY,
    TD_STATE_CHECKING,
    TD_STATE_RELOADING,
    TD_STATE_BACKOFF,
    TD_STATE_DRAINING,
    TD_STATE_KILLING,
    TD_STATE_REMOVING,
    TD_STATE_GONE,
    TD_STATE_N
} td_state_e;

/* The phases that the registry knows. */
typedef enum {
    TD_PHASE_PENDING,
    TD_PHASE_STARTING,
    TD_PHASE_READY,
    TD_PHASE_ROLLING,
    TD_PHASE_FAILED,
    TD_PHASE_DRAINING,
    TD_PHASE_STOPPED,
    TD_PHASE_N
} td_phase_e;

/* A crash loop is this many deaths within the time. */
#define TD_STATE_LOOP_DEATHS  5
#define TD_STATE_LOOP_TIME    60000     /* ms */

/* The times of the last deaths; all zero is none. */
typedef struct {
    long  at[TD_STATE_LOOP_DEATHS];
    int   next;
    int   n;
} td_deaths_t;

const char *td_state_name(td_state_e state);
td_phase_e td_state_phase(td_state_e state);
const char *td_phase_name(td_phase_e phase);

/* Whether state to may follow from. */
int td_state_may_follow(td_state_e from, td_state_e to);

/*
 * Milliseconds to wait before the next attempt, when attempts (from 1) have
 * failed: doubled with each up to max, then at random between a half of that and
 * all of it.
 */
long td_state_backoff(int attempts, long min, long max, uint32_t random);

/* Notes a death, now by a monotonic clock in ms; returns 1 in a crash loop. */
int td_deaths_add(td_deaths_t *deaths, long now);

/* Whether, at now, the last deaths are still a crash loop. */
int td_deaths_loop(const td_deaths_t *deaths, long now);

#endif /* TD_STATE_H */
