/* SPDX-License-Identifier: BSD-2-Clause */

#include <stdio.h>
#include <string.h>

#include <jansson.h>

#include "td_flow_filter.h"


/* Returns whether the member is there. */
static int
td_flow_filter_text(const json_t *json, const char *name, char *text,
    size_t size)
{
    const char  *value;

    value = json_string_value(json_object_get(json, name));
    snprintf(text, size, "%s", value != NULL ? value : "");

    return value != NULL;
}


static int
td_flow_filter_number(const json_t *json, const char *name, int fallback)
{
    const json_t  *value;

    value = json_object_get(json, name);

    return json_is_integer(value) ? (int) json_integer_value(value) : fallback;
}


int
td_flow_filter_parse(td_flow_filter_t *filter, const char *text, size_t len)
{
    char    verdict[16];
    json_t  *json;

    memset(filter, 0, sizeof(td_flow_filter_t));

    json = json_loadb(text, len, 0, NULL);
    if (!json_is_object(json)) {
        json_decref(json);
        return -1;
    }

    filter->has_source_tenant =
        td_flow_filter_text(json, "source_tenant", filter->source_tenant,
                            sizeof(filter->source_tenant));
    filter->has_destination_tenant =
        td_flow_filter_text(json, "destination_tenant",
                            filter->destination_tenant,
                            sizeof(filter->destination_tenant));
    td_flow_filter_text(json, "source_service", filter->source_service,
                        sizeof(filter->source_service));
    td_flow_filter_text(json, "destination_service",
                        filter->destination_service,
                        sizeof(filter->destination_service));
    td_flow_filter_text(json, "type", filter->type, sizeof(filter->type));

    filter->denied = td_flow_filter_text(json, "verdict", verdict,
                                         sizeof(verdict))
                     ? strcmp(verdict, "denied") == 0 : -1;
    filter->reason = td_flow_filter_number(json, "reason", -1);
    filter->port = td_flow_filter_number(json, "port", 0);
    json_decref(json);

    return 0;
}


static int
td_flow_filter_side(int has_tenant, const char *tenant, const char *service,
    const char *record_tenant, const char *record_service)
{
    return (!has_tenant || strcmp(tenant, record_tenant) == 0)
           && (service[0] == '\0' || strcmp(service, record_service) == 0);
}


int
td_flow_filter_passes(const td_flow_filter_t *filter, const td_flow_key_t *key)
{
    return td_flow_filter_side(filter->has_source_tenant, filter->source_tenant,
                               filter->source_service, key->source_tenant,
                               key->source_service)
           && td_flow_filter_side(filter->has_destination_tenant,
                                  filter->destination_tenant,
                                  filter->destination_service,
                                  key->destination_tenant,
                                  key->destination_service)
           && (filter->type[0] == '\0' || strcmp(filter->type, key->type) == 0)
           && (filter->denied < 0
               || filter->denied == (strcmp(key->type, "denied") == 0))
           && (filter->reason < 0 || filter->reason == key->reason)
           && (filter->port == 0 || filter->port == key->port
               || filter->port == key->virtual_port);
}
