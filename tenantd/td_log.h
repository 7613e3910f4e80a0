/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * The log: standard error, one line an event, each line one write(2).
 *
 *     2026-01-31T12:00:00.123Z [warn] database: connection lost
 *
 * Levels as nginx uses them; "alert" means a bug in tenantd.
 */

#ifndef TD_LOG_H
#define TD_LOG_H

#include <stddef.h>

typedef enum {
    TD_LOG_ALERT = 0,
    TD_LOG_CRIT,
    TD_LOG_ERR,
    TD_LOG_WARN,
    TD_LOG_NOTICE,
    TD_LOG_INFO,
    TD_LOG_DEBUG
} td_log_level_e;

/* The level of that name, or -1. */
int td_log_parse_level(const char *name);

/* Lines above this level are dropped.  Before the first call: notice. */
void td_log_set_level(td_log_level_e level);

/*
 * Logs; object (may be NULL) says what it is about: "database", "watch".
 * Control characters are written as \xNN, so nothing can fake a line; what is
 * longer than 2000 bytes is cut.
 */
void td_log(td_log_level_e level, const char *object, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

#endif /* TD_LOG_H */
