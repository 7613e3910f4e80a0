/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * What the registry wants of a dedicated gateway, and the nginx.conf that makes it
 * so.
 */

#ifndef TD_GATEWAY_H
#define TD_GATEWAY_H

#include <stdint.h>

#include <jansson.h>

#include "td_cgroup.h"
#include "td_config.h"
#include "tg_error.h"
#include "tg_text.h"

/* Of an instance: a row of tiergate.instances_of(). */
typedef struct {
    char      name[64];
    char      tenant[64];
    int       running;              /* or it shall be gone */
    int64_t   generation;
    int64_t   observed_generation;
    int       attempts;
    int64_t   retry_at;             /* unix ms */
    int       port;
    long      read_at;              /* when reading it began, by td_now() */
    json_t   *spec;                 /* owned; NULL: none, as of one to be gone */
} td_work_t;

/* Rises when nginx shall be started anew, rather than reloaded. */
int64_t td_gateway_restart(const json_t *spec);

/* Resource limits that the spec asks for. */
void td_gateway_limits(const json_t *spec, td_cgroup_limits_t *limits,
    long *nofile);

/*
 * Adds nginx.conf for the prefix to out.  template: NULL for the one built in;
 * user, group: of the workers, or NULL.  own: master and workers have the same user,
 * and its things are where td_prefix.h says.  Returns 0, or -1 with err.
 */
int td_gateway_render(tg_text_t *out, const td_config_t *config,
    const char *template, const char *user, const char *group, int own,
    const char *prefix, const td_work_t *work, tg_error_t *err);

#endif /* TD_GATEWAY_H */
