/* SPDX-License-Identifier: BSD-2-Clause */

/* A line of the watch stream as an agent takes it, and its policies as rules. */

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "td_agent_policy.h"


int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);


int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    size_t              n;
    tg_error_t          err;
    td_event_t          event;
    td_event_status_e   status;
    tg_rule_policy_t   *rules;

    status = td_event_parse((const char *) data, size, &event, &err);

    if ((status == TD_EVENT_OK) != (err.message[0] == '\0')
        || (status != TD_EVENT_OK && event.doc != NULL)
        || memchr(event.name, '\0', sizeof(event.name)) == NULL)
    {
        abort();
    }

    if (event.doc != NULL && event.doc->kind == TD_DOC_TENANT) {
        rules = td_agent_policy_rules(&event.doc->tenant, &n);

        if (n > 2 * TD_DOC_POLICIES * TD_DOC_PORTS) {
            abort();
        }

        tg_rules_destroy(tg_rules_create(rules, n));
        free(rules);
    }

    td_doc_free(event.doc);

    return 0;
}
