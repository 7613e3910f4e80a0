/* SPDX-License-Identifier: BSD-2-Clause */

/* Requests to the registry that [agent] tenantd names, with its credentials. */

#ifndef TD_AGENT_CLIENT_H
#define TD_AGENT_CLIENT_H

#include <curl/curl.h>

#include "td_agent.h"

typedef struct td_agent_client_s  td_agent_client_t;

/* NULL: no memory. */
td_agent_client_t *td_client_create(td_agent_t *agent);

/* Ends what is under way; done of td_agent_post() is not called. */
void td_client_destroy(td_agent_client_t *client);

/*
 * A transfer for a path of the registry, that is the caller's, as are the headers
 * (curl_slist_free_all).  NULL: no memory.
 */
CURL *td_client_easy(td_agent_t *agent, const char *path,
    struct curl_slist **headers);

#endif /* TD_AGENT_CLIENT_H */
