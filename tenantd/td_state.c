/* SPDX-License-Identifier: BSD-2-Clause */

#include "td_state.h"


#define TO(state)  (1u << TD_STATE_##state)

static const struct {
    const char  *name;
    td_phase_e   phase;
    unsigned     next;
} td_states[TD_STATE_N] = {
    [TD_STATE_NEW] = { "new", TD_PHASE_PENDING,
        TO(LEASED) | TO(ADOPTED) | TO(TOKEN) | TO(PORT) | TO(STARTING)
        | TO(BACKOFF) | TO(DRAINING) | TO(REMOVING) | TO(GONE) },
    [TD_STATE_LEASED] = { "leased", TD_PHASE_PENDING, TO(NEW) | TO(GONE) },
    [TD_STATE_TOKEN] = { "token", TD_PHASE_PENDING,
        TO(PORT) | TO(STARTING) | TO(BACKOFF) | TO(REMOVING) },
    [TD_STATE_PORT] = { "port", TD_PHASE_PENDING,
        TO(TOKEN) | TO(PORT) | TO(STARTING) | TO(BACKOFF) | TO(REMOVING) },
    [TD_STATE_ADOPTED] = { "adopted", TD_PHASE_STARTING,
        TO(READY) | TO(BACKOFF) | TO(DRAINING) },
    [TD_STATE_STARTING] = { "starting", TD_PHASE_STARTING,
        TO(READY) | TO(PORT) | TO(BACKOFF) | TO(DRAINING) },
    [TD_STATE_READY] = { "ready", TD_PHASE_READY,
        TO(CHECKING) | TO(BACKOFF) | TO(DRAINING) },
    [TD_STATE_CHECKING] = { "checking", TD_PHASE_ROLLING,
        TO(READY) | TO(RELOADING) | TO(BACKOFF) | TO(DRAINING) },
    [TD_STATE_RELOADING] = { "reloading", TD_PHASE_ROLLING,
        TO(READY) | TO(BACKOFF) | TO(DRAINING) },
    [TD_STATE_BACKOFF] = { "backoff", TD_PHASE_FAILED,
        TO(NEW) | TO(TOKEN) | TO(PORT) | TO(STARTING) | TO(BACKOFF)
        | TO(REMOVING) },
    [TD_STATE_DRAINING] = { "draining", TD_PHASE_DRAINING,
        TO(KILLING) | TO(REMOVING) },
    [TD_STATE_KILLING] = { "killing", TD_PHASE_DRAINING, TO(REMOVING) },
    /* NEW: the tenant has come back meanwhile */
    [TD_STATE_REMOVING] = { "removing", TD_PHASE_STOPPED,
        TO(NEW) | TO(GONE) },
    [TD_STATE_GONE] = { "gone", TD_PHASE_STOPPED, 0 },
};

static const char *const  td_phases[TD_PHASE_N] = {
    [TD_PHASE_PENDING] = "pending",
    [TD_PHASE_STARTING] = "starting",
    [TD_PHASE_READY] = "ready",
    [TD_PHASE_ROLLING] = "rolling",
    [TD_PHASE_FAILED] = "failed",
    [TD_PHASE_DRAINING] = "draining",
    [TD_PHASE_STOPPED] = "stopped",
};


const char *
td_state_name(td_state_e state)
{
    return td_states[state].name;
}


td_phase_e
td_state_phase(td_state_e state)
{
    return td_states[state].phase;
}


const char *
td_phase_name(td_phase_e phase)
{
    return td_phases[phase];
}


int
td_state_may_follow(td_state_e from, td_state_e to)
{
    return (td_states[from].next & (1u << to)) != 0;
}


long
td_state_backoff(int attempts, long min, long max, uint32_t random)
{
    int   i;
    long  ms;

    ms = min < max ? min : max;

    for (i = 1; i < attempts && ms < max; i++) {
        ms = ms * 2 < max ? ms * 2 : max;
    }

    return ms / 2 + (long) (random % ((unsigned long) (ms - ms / 2) + 1));
}


int
td_deaths_add(td_deaths_t *deaths, long now)
{
    deaths->at[deaths->next] = now;
    deaths->next = (deaths->next + 1) % TD_STATE_LOOP_DEATHS;

    if (deaths->n < TD_STATE_LOOP_DEATHS) {
        deaths->n++;
    }

    return td_deaths_loop(deaths, now);
}


int
td_deaths_loop(const td_deaths_t *deaths, long now)
{
    /* next is where the oldest of a full ring is */
    return deaths->n == TD_STATE_LOOP_DEATHS
           && now - deaths->at[deaths->next] <= TD_STATE_LOOP_TIME;
}
