/* SPDX-License-Identifier: BSD-2-Clause */

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <time.h>
#include <unistd.h>

#include "td_log.h"


#define TD_LOG_LINE  2000


static const char *const  td_log_names[] = {
    "alert", "crit", "error", "warn", "notice", "info", "debug"
};

static td_log_level_e  td_log_level = TD_LOG_NOTICE;


int
td_log_parse_level(const char *name)
{
    size_t  i;

    for (i = 0; i < sizeof(td_log_names) / sizeof(td_log_names[0]); i++) {
        if (strcmp(name, td_log_names[i]) == 0) {
            return (int) i;
        }
    }

    return -1;
}


void
td_log_set_level(td_log_level_e level)
{
    td_log_level = level;
}


static size_t
td_log_head(char *line, size_t size, td_log_level_e level, const char *object)
{
    int              n;
    struct tm        tm;
    struct timespec  now;

    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &tm);

    n = snprintf(line, size, "%04d-%02d-%02dT%02d:%02d:%02d.%03ldZ [%s] %s%s",
                 tm.tm_year + 1900, tm.tm_mon + 1, tm.tm_mday, tm.tm_hour,
                 tm.tm_min, tm.tm_sec, now.tv_nsec / 1000000,
                 td_log_names[level], object ? object : "", object ? ": " : "");

    return (size_t) n < size ? (size_t) n : size - 1;
}


/* Copies text with control characters escaped; returns the new length. */
static size_t
td_log_escape(char *line, size_t used, size_t size, const char *text)
{
    unsigned char  c;

    for ( ; (c = (unsigned char) *text) != '\0' && used + 5 < size; text++) {
        if (c >= 0x20 && c != 0x7f) {
            line[used++] = (char) c;
            continue;
        }

        used += (size_t) snprintf(line + used, 5, "\\x%02x", c);
    }

    return used;
}


void
td_log(td_log_level_e level, const char *object, const char *fmt, ...)
{
    char     text[TD_LOG_LINE], line[TD_LOG_LINE];
    size_t   n;
    va_list  args;

    if (level > td_log_level) {
        return;
    }

    va_start(args, fmt);
    vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);

    /* libpq ends its messages with a newline */
    n = strlen(text);
    while (n > 0 && text[n - 1] == '\n') {
        text[--n] = '\0';
    }

    n = td_log_head(line, sizeof(line) / 2, level, object);
    n = td_log_escape(line, n, sizeof(line) - 1, text);
    line[n++] = '\n';

    if (write(STDERR_FILENO, line, n) < 0) {
        return;     /* there is nobody to tell */
    }
}
