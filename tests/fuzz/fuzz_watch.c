/* SPDX-License-Identifier: BSD-2-Clause */

/* A line of the watch stream. */

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "tg_watch.h"


int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);


int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    tg_error_t         err;
    tg_watch_event_t   event;
    tg_watch_status_e  status;

    memset(&err, 0, sizeof(err));
    status = tg_watch_parse((const char *) data, size, &event, &err);

    if ((status == TG_WATCH_OK) != (err.message[0] == '\0')
        || event.kind < 0 || event.kind > 2
        || memchr(event.name, '\0', sizeof(event.name)) == NULL)
    {
        abort();
    }

    if (status == TG_WATCH_OK && event.type == TG_WATCH_PUT && event.kind
        && (!json_is_object(event.object) || event.id == 0
            || event.revision == 0 || event.name[0] == '\0'))
    {
        abort();
    }

    tg_watch_release(&event);

    return 0;
}
