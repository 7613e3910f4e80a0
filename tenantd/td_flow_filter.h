/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Which records a follower wants.  SQL checks the query parameters and gives what
 * they mean as an object, tiergate_api.flow_filter(); a page is filtered by it
 * there, a stream here, and both by the same rules.
 */

#ifndef TD_FLOW_FILTER_H
#define TD_FLOW_FILTER_H

#include <stddef.h>

#define TD_FLOW_NAME  64

typedef struct {
    int   has_source_tenant;        /* "" is who is outside the mesh */
    int   has_destination_tenant;
    char  source_tenant[TD_FLOW_NAME];
    char  source_service[TD_FLOW_NAME];         /* "": any */
    char  destination_tenant[TD_FLOW_NAME];
    char  destination_service[TD_FLOW_NAME];
    char  type[16];                 /* "": any */
    int   denied;                   /* 1: only these, 0: only others, -1: both */
    int   reason;                   /* -1: any */
    int   port;                     /* 0: any */
} td_flow_filter_t;

/* What of a record a filter looks at; "" for nobody. */
typedef struct {
    const char  *source_tenant;
    const char  *source_service;
    const char  *destination_tenant;
    const char  *destination_service;
    const char  *type;
    int          reason;
    int          port;
    int          virtual_port;
} td_flow_key_t;

/* Takes the object as text.  Returns -1 if it is none. */
int td_flow_filter_parse(td_flow_filter_t *filter, const char *json, size_t len);

int td_flow_filter_passes(const td_flow_filter_t *filter,
    const td_flow_key_t *key);

#endif /* TD_FLOW_FILTER_H */
