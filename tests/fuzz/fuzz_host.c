/* SPDX-License-Identifier: BSD-2-Clause */

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "tg_host.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);


int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char     out[TG_HOST_SIZE], again[TG_HOST_SIZE], *exact;
    ssize_t  n;

    (void) tg_host_check((const char *) data, size);
    n = tg_host_normalize((const char *) data, size, out, sizeof(out));

    if (n < 0) {
        return 0;
    }

    if (n == 0 || n > TG_HOST_MAX || out[n] != '\0'
        || strlen(out) != (size_t) n)
    {
        abort();
    }

    for (ssize_t i = 0; i < n; i++) {
        if (strchr("abcdefghijklmnopqrstuvwxyz0123456789-_.:[]", out[i]) == NULL)
        {
            abort();
        }
    }

    if (tg_host_normalize(out, (size_t) n, again, sizeof(again)) != n
        || memcmp(out, again, (size_t) n + 1) != 0)
    {
        abort();
    }

    /* Room for one byte less must be refused, and not be written past. */
    exact = malloc((size_t) n);

    if (exact == NULL
        || tg_host_normalize((const char *) data, size, exact, (size_t) n) != -1)
    {
        abort();
    }

    free(exact);

    return 0;
}
