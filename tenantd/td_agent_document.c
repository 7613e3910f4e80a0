/* SPDX-License-Identifier: BSD-2-Clause */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "td_agent_document.h"
#include "td_agent_read.h"


static int td_doc_read_agent(td_doc_t *doc, json_t *object, tg_error_t *err);
static int td_doc_read_tenant(td_doc_t *doc, json_t *object, tg_error_t *err);
static int td_doc_read_node(td_doc_t *doc, json_t *object, tg_error_t *err);
static int td_doc_read_workload(td_doc_t *doc, json_t *object, tg_error_t *err);


static const struct {
    const char  *name;
    int        (*read)(td_doc_t *doc, json_t *object, tg_error_t *err);
} td_doc_kinds[TD_DOC_KINDS] = {
    [TD_DOC_NONE]     = { "",              NULL },
    [TD_DOC_AGENT]    = { "mesh_agent",    td_doc_read_agent },
    [TD_DOC_TENANT]   = { "mesh_tenant",   td_doc_read_tenant },
    [TD_DOC_NODE]     = { "mesh_node",     td_doc_read_node },
    [TD_DOC_WORKLOAD] = { "mesh_workload", td_doc_read_workload },
    [TD_DOC_SERVICE]  = { "mesh_service",  td_doc_read_service },
};

/* Bits of enum tg_default by name. */
static const char *const  td_doc_defaults[] = {
    "from_same", "from_other", "from_outside", "from_node", "to_same", "to_other",
    "to_outside",
};


const char *
td_doc_kind_name(td_doc_kind_e kind)
{
    return td_doc_kinds[kind].name;
}


static td_doc_kind_e
td_doc_kind(const char *name)
{
    int  kind;

    for (kind = TD_DOC_AGENT; kind < TD_DOC_KINDS; kind++) {
        if (strcmp(name, td_doc_kinds[kind].name) == 0) {
            return (td_doc_kind_e) kind;
        }
    }

    return TD_DOC_NONE;
}


static int
td_doc_read_agent(td_doc_t *doc, json_t *object, tg_error_t *err)
{
    size_t           i;
    json_t          *tenants;
    td_doc_agent_t  *agent;

    agent = &doc->agent;
    agent->node = td_read_name(doc, object, "node", err);
    if (agent->node == NULL) {
        return -1;
    }

    tenants = json_object_get(object, "tenants");

    if (json_is_string(tenants) && strcmp(json_string_value(tenants), "*") == 0) {
        agent->all = 1;
        return 0;
    }

    if (!json_is_array(tenants)) {
        return td_read_fail(err, "tenants", "must be \"*\" or numbers");
    }

    agent->n_tenants = json_array_size(tenants);
    agent->tenants = td_read_alloc(doc, agent->n_tenants, sizeof(uint32_t), err);
    if (agent->tenants == NULL) {
        return -1;
    }

    for (i = 0; i < agent->n_tenants; i++) {
        if (td_read_number_value(json_array_get(tenants, i), "tenants",
                                 &agent->tenants[i], err) != 0)
        {
            return -1;
        }
    }

    return 0;
}


static int
td_doc_read_side(json_t *object, const char *key, td_side_t *side, tg_error_t *err)
{
    json_t      *from, *cidr;
    const char  *what;

    from = json_object_get(object, key);
    side->kind = TD_SIDE_ANY;

    if (!json_is_object(from)) {
        return td_read_fail(err, key, "must be an object");
    }

    if (json_object_size(from) == 0) {
        return 0;
    }

    cidr = json_object_get(from, "cidr");

    if (json_object_size(from) != 1) {
        return td_read_fail(err, key, "must have one member or none");
    }

    if (cidr != NULL) {
        side->kind = TD_SIDE_NET;
        return td_read_net_value(cidr, key, &side->net, err);
    }

    side->kind = json_object_get(from, "service") != NULL ? TD_SIDE_SERVICE
                                                          : TD_SIDE_TENANT;
    what = side->kind == TD_SIDE_SERVICE ? "service" : "tenant";

    return td_read_number_value(json_object_get(from, what), key, &side->number, err);
}


static int
td_doc_read_ports(td_doc_policy_t *policy, json_t *object, tg_error_t *err)
{
    size_t   i;
    json_t  *ports;

    ports = json_object_get(object, "ports");
    policy->n_ports = json_array_size(ports);

    if (ports != NULL && (!json_is_array(ports) || policy->n_ports > TD_DOC_PORTS)) {
        return td_read_fail(err, "ports", "must be at most 16 ports");
    }

    for (i = 0; i < policy->n_ports; i++) {
        if (td_read_port_value(json_array_get(ports, i), "ports", &policy->ports[i],
                               err) != 0)
        {
            return -1;
        }
    }

    return 0;
}


static int
td_doc_read_policy(td_doc_t *doc, td_doc_policy_t *policy, json_t *object,
    tg_error_t *err)
{
    json_int_t   precedence;
    const char  *action;

    policy->name = td_read_name(doc, object, "name", err);
    action = json_string_value(json_object_get(object, "action"));
    precedence = 1000;

    if (policy->name == NULL
        || td_read_number(object, "number", &policy->number, err) != 0
        || td_read_int(object, "precedence", 0, 0x3fffffff, &precedence, err) != 0
        || td_doc_read_side(object, "from", &policy->from, err) != 0
        || td_doc_read_side(object, "to", &policy->to, err) != 0
        || td_read_flag(object, "own_from", &policy->own_from, err) != 0
        || td_read_flag(object, "own_to", &policy->own_to, err) != 0
        || td_read_protocol(object, 0, &policy->proto, err) != 0
        || td_doc_read_ports(policy, object, err) != 0)
    {
        return -1;
    }

    policy->precedence = (uint32_t) precedence;
    policy->deny = action != NULL && strcmp(action, "deny") == 0;

    if (action == NULL || (!policy->deny && strcmp(action, "allow") != 0)) {
        return td_read_fail(err, "action", "must be allow or deny");
    }

    if ((policy->own_from && policy->from.kind == TD_SIDE_NET)
        || (policy->own_to && policy->to.kind == TD_SIDE_NET))
    {
        return td_read_fail(err, "own_from", "a net is nobody's own");
    }

    return 0;
}


static int
td_doc_read_defaults(td_doc_tenant_t *tenant, json_t *object, tg_error_t *err)
{
    int      on;
    size_t   i;
    json_t  *defaults;

    defaults = json_object_get(object, "defaults");
    tenant->defaults = 0;

    if (!json_is_object(defaults)) {
        return td_read_fail(err, "defaults", "must be an object");
    }

    for (i = 0; i < sizeof(td_doc_defaults) / sizeof(td_doc_defaults[0]); i++) {
        on = (TG_DEFAULTS & (1 << i)) != 0;

        if (td_read_flag(defaults, td_doc_defaults[i], &on, err) != 0) {
            tg_error_prefix(err, "/defaults");
            return -1;
        }

        tenant->defaults |= on ? 1U << i : 0;
    }

    return 0;
}


static int
td_doc_read_tenant(td_doc_t *doc, json_t *object, tg_error_t *err)
{
    size_t            i;
    json_t           *policies;
    td_doc_tenant_t  *tenant;

    tenant = &doc->tenant;
    policies = json_object_get(object, "policies");
    tenant->n_policies = json_array_size(policies);

    if (td_read_number(object, "number", &tenant->number, err) != 0
        || td_doc_read_defaults(tenant, object, err) != 0)
    {
        return -1;
    }

    if (!json_is_array(policies) || tenant->n_policies > TD_DOC_POLICIES) {
        return td_read_fail(err, "policies", "must be at most 1000 policies");
    }

    tenant->policies = td_read_alloc(doc, tenant->n_policies, sizeof(td_doc_policy_t),
                                     err);
    if (tenant->policies == NULL) {
        return -1;
    }

    for (i = 0; i < tenant->n_policies; i++) {
        if (td_doc_read_policy(doc, &tenant->policies[i],
                               json_array_get(policies, i), err) != 0)
        {
            tg_error_prefix(err, "/policies/%zu", i);
            return -1;
        }
    }

    return 0;
}


static int
td_doc_read_node(td_doc_t *doc, json_t *object, tg_error_t *err)
{
    return td_read_nets(doc, object, "addresses", 1, &doc->node.addresses, err) != 0
           || td_read_nets(doc, object, "workload_nets", 0, &doc->node.nets, err) != 0
           ? -1 : 0;
}


/* Below the mount, and not out of it. */
static int
td_doc_is_cgroup(const char *path)
{
    size_t  len;

    if (strlen(path) > TD_DOC_CGROUP) {
        return 0;
    }

    for ( ; *path != '\0'; path += len) {
        path += strspn(path, "/");
        len = strcspn(path, "/");

        if (len > 255 || (len == 1 && path[0] == '.')
            || (len == 2 && path[0] == '.' && path[1] == '.'))
        {
            return 0;
        }
    }

    return 1;
}


static int
td_doc_is_uuid(const char *text)
{
    return strlen(text) == 36 && strspn(text, "0123456789abcdef-") == 36;
}


static int
td_doc_read_workload(td_doc_t *doc, json_t *object, tg_error_t *err)
{
    td_doc_workload_t  *workload;

    workload = &doc->workload;
    workload->tenant = td_read_name(doc, object, "tenant", err);
    workload->node = workload->tenant ? td_read_name(doc, object, "node", err) : NULL;

    if (workload->node == NULL
        || td_read_who(object, "service_number", &workload->who, err) != 0
        || td_read_nets(doc, object, "addresses", 0, &workload->addresses, err) != 0
        || td_read_flag(object, "any_source", &workload->any_source, err) != 0
        || td_read_text(doc, object, "cgroup", TD_DOC_CGROUP, &workload->cgroup, err)
        || td_read_text(doc, object, "pod_uid", 36, &workload->pod, err) != 0)
    {
        return -1;
    }

    workload->workload = strchr(doc->name, '/');
    workload->workload = workload->workload ? workload->workload + 1 : doc->name;

    if (workload->cgroup != NULL && (!td_doc_is_cgroup(workload->cgroup)
        || workload->cgroup[strspn(workload->cgroup, "/")] == '\0'))
    {
        return td_read_fail(err, "cgroup", "must be a path below the cgroup2 mount");
    }

    if (workload->pod != NULL && !td_doc_is_uuid(workload->pod)) {
        return td_read_fail(err, "pod_uid", "must be a UUID");
    }

    return 0;
}


void
td_doc_free(td_doc_t *doc)
{
    if (doc != NULL) {
        td_read_free(doc);
        free(doc->line);
        free(doc);
    }
}


/* Kind, name, id and revision of the line itself. */
static int
td_event_read_head(json_t *line, td_event_t *event, tg_error_t *err)
{
    size_t       i;
    json_int_t   revision;
    const char  *type;
    static const char *const  types[] = { "PUT", "DELETE", "BOOKMARK" };

    type = json_string_value(json_object_get(line, "type"));

    for (i = 0; type != NULL && i < 3; i++) {
        if (strcmp(type, types[i]) == 0) {
            event->type = (td_event_type_e) i;
            break;
        }
    }

    if (type == NULL || i == 3) {
        return td_read_fail(err, "type", "must be PUT, DELETE or BOOKMARK");
    }

    if (json_object_get(line, "revision") == NULL
        || td_read_int(line, "revision", 0, INT64_MAX, &revision, err) != 0)
    {
        return td_read_fail(err, "revision", "must be a revision");
    }

    event->revision = (uint64_t) revision;

    return 0;
}


static int
td_event_read_object_head(json_t *line, td_event_t *event, tg_error_t *err)
{
    json_int_t   id;
    const char  *kind, *name;

    id = 0;
    kind = json_string_value(json_object_get(line, "kind"));
    name = json_string_value(json_object_get(line, "name"));

    if (kind == NULL || name == NULL || name[0] == '\0'
        || strlen(name) > TD_DOC_KEY)
    {
        return td_read_fail(err, "kind", "a PUT or DELETE names its object");
    }

    if (td_read_int(line, "id", 1, INT64_MAX, &id, err) != 0 || id == 0) {
        return td_read_fail(err, "id", "must be an id");
    }

    event->kind = td_doc_kind(kind);
    event->id = id;
    snprintf(event->name, sizeof(event->name), "%s", name);

    return 0;
}


/* NULL with err: the object cannot be used. */
static td_doc_t *
td_event_read_object(json_t *line, const char *text, size_t len,
    const td_event_t *event, tg_error_t *err)
{
    json_t      *object;
    td_doc_t    *doc;
    json_int_t   id, revision;

    object = json_object_get(line, "object");
    id = 0;
    revision = (json_int_t) event->revision;

    if (!json_is_object(object)) {
        td_read_fail(err, "object", "is missing");
        return NULL;
    }

    if (td_read_int(object, "id", 1, INT64_MAX, &id, err) != 0 || id != event->id
        || td_read_int(object, "revision", 0, INT64_MAX, &revision, err) != 0)
    {
        td_read_fail(err, "object", "is not the one that its line names");
        return NULL;
    }

    doc = calloc(1, sizeof(td_doc_t));
    if (doc == NULL) {
        tg_error_set(err, "", "out of memory");
        return NULL;
    }

    doc->kind = event->kind;
    doc->id = id;
    doc->revision = (uint64_t) revision;
    doc->line = malloc(len + 1);
    doc->len = len;
    memcpy(doc->name, event->name, sizeof(doc->name));

    if (doc->line == NULL || td_doc_kinds[doc->kind].read(doc, object, err) != 0) {
        td_doc_free(doc);
        return NULL;
    }

    memcpy(doc->line, text, len);
    doc->line[len] = '\0';

    return doc;
}


td_event_status_e
td_event_parse(const char *line, size_t len, td_event_t *event, tg_error_t *err)
{
    json_t             *json;
    json_error_t        error;
    td_event_status_e   status;

    memset(event, 0, sizeof(td_event_t));
    err->message[0] = '\0';
    err->pointer[0] = '\0';

    json = json_loadb(line, len, JSON_REJECT_DUPLICATES, &error);
    if (!json_is_object(json)) {
        tg_error_set(err, "", "a line of the stream is no JSON object: %.120s",
                     json == NULL ? error.text : "another type");
        json_decref(json);
        return TD_EVENT_BAD_LINE;
    }

    status = TD_EVENT_OK;

    if (td_event_read_head(json, event, err) != 0
        || (event->type != TD_EVENT_BOOKMARK
            && td_event_read_object_head(json, event, err) != 0))
    {
        status = TD_EVENT_BAD_LINE;

    } else if (event->type == TD_EVENT_BOOKMARK) {
        event->complete = json_is_true(json_object_get(json, "complete"));

    } else if (event->type == TD_EVENT_PUT && event->kind != TD_DOC_NONE) {
        event->doc = td_event_read_object(json, line, len, event, err);
        status = event->doc != NULL ? TD_EVENT_OK : TD_EVENT_BAD_OBJECT;
    }

    json_decref(json);

    return status;
}
