/* SPDX-License-Identifier: BSD-2-Clause */

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "tg_error.h"


void
tg_error_set(tg_error_t *err, const char *pointer, const char *fmt, ...)
{
    va_list  args;

    if (err == NULL) {
        return;
    }

    snprintf(err->pointer, sizeof(err->pointer), "%s", pointer);

    va_start(args, fmt);
    vsnprintf(err->message, sizeof(err->message), fmt, args);
    va_end(args);
}


void
tg_error_prefix(tg_error_t *err, const char *fmt, ...)
{
    int      n;
    char     tail[sizeof(err->pointer)];
    va_list  args;

    if (err == NULL) {
        return;
    }

    memcpy(tail, err->pointer, sizeof(tail));

    va_start(args, fmt);
    n = vsnprintf(err->pointer, sizeof(err->pointer), fmt, args);
    va_end(args);

    if (n >= 0 && (size_t) n < sizeof(err->pointer)) {
        snprintf(err->pointer + n, sizeof(err->pointer) - n, "%s", tail);
    }
}
