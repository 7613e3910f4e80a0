/* SPDX-License-Identifier: BSD-2-Clause */

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "td_agent_kernel.h"
#include "td_agent_place.h"
#include "td_agent_policy.h"
#include "tg_hash.h"


/* A row and who brought it.  A cgroup's id stands in place of an address then. */
typedef struct {
    td_link_t        link;
    struct tg_addr   addr;
    uint32_t         prefix;
    const void      *owner;
} td_owned_t;

#define TD_OWNED_CGROUP  1000       /* as prefix */

struct td_agent_kernel_s {
    td_agent_t  *agent;
    td_table_t   owned;
};


td_agent_kernel_t *
td_kernel_create(td_agent_t *agent)
{
    td_agent_kernel_t  *kernel;

    kernel = calloc(1, sizeof(td_agent_kernel_t));

    if (kernel != NULL) {
        kernel->agent = agent;
    }

    return kernel;
}


static void
td_kernel_free_owned(td_link_t *link, void *data)
{
    (void) data;

    free(td_link_data(link, td_owned_t, link));
}


void
td_kernel_destroy(td_agent_kernel_t *kernel)
{
    if (kernel != NULL) {
        td_table_each(&kernel->owned, td_kernel_free_owned, NULL);
        td_table_free(&kernel->owned);
        free(kernel);
    }
}


static uint64_t
td_kernel_hash(const struct tg_addr *addr, uint32_t prefix)
{
    return tg_hash(addr, sizeof(*addr), prefix);
}


static td_owned_t *
td_kernel_find(td_agent_kernel_t *kernel, const struct tg_addr *addr, uint32_t prefix)
{
    td_link_t   *link;
    td_owned_t  *owned;

    for (link = td_table_chain(&kernel->owned, td_kernel_hash(addr, prefix));
         link != NULL;
         link = link->next)
    {
        owned = td_link_data(link, td_owned_t, link);

        if (owned->prefix == prefix && memcmp(&owned->addr, addr, sizeof(*addr)) == 0) {
            return owned;
        }
    }

    return NULL;
}


static int
td_kernel_own(td_agent_kernel_t *kernel, const struct tg_addr *addr, uint32_t prefix,
    const void *owner)
{
    td_owned_t  *owned;

    owned = td_kernel_find(kernel, addr, prefix);

    if (owned == NULL) {
        owned = calloc(1, sizeof(td_owned_t));
        if (owned == NULL) {
            return -ENOMEM;
        }

        owned->addr = *addr;
        owned->prefix = prefix;

        if (td_table_add(&kernel->owned, &owned->link, td_kernel_hash(addr, prefix))) {
            free(owned);
            return -ENOMEM;
        }
    }

    owned->owner = owner;

    return 0;
}


/* Whether it was the owner's, and is nobody's now. */
static int
td_kernel_disown(td_agent_kernel_t *kernel, const struct tg_addr *addr,
    uint32_t prefix, const void *owner)
{
    td_owned_t  *owned;

    owned = td_kernel_find(kernel, addr, prefix);

    if (owned == NULL || owned->owner != owner) {
        return 0;
    }

    td_table_remove(&kernel->owned, &owned->link);
    free(owned);

    return 1;
}


int
td_kernel_put_address(td_agent_kernel_t *kernel, const td_mesh_address_t *address,
    const void *owner)
{
    int  err;

    err = td_mesh_put_address(kernel->agent->mesh, address);

    return err != 0 ? err
           : td_kernel_own(kernel, &address->addr, address->prefix, owner);
}


void
td_kernel_delete_address(td_agent_kernel_t *kernel, const struct tg_addr *addr,
    uint32_t prefix, const void *owner)
{
    if (td_kernel_disown(kernel, addr, prefix, owner)) {
        td_mesh_delete_address(kernel->agent->mesh, addr, prefix);
    }
}


int
td_kernel_taken(td_agent_kernel_t *kernel, const struct tg_addr *addr)
{
    return td_kernel_find(kernel, addr, 128) != NULL;
}


static struct tg_addr
td_kernel_cgroup(uint64_t cgroup)
{
    struct tg_addr  addr;

    memset(&addr, 0, sizeof(addr));
    memcpy(&addr, &cgroup, sizeof(cgroup));

    return addr;
}


int
td_kernel_put_workload(td_agent_kernel_t *kernel, const td_mesh_workload_t *workload,
    const void *owner)
{
    int              err;
    struct tg_addr   key;

    key = td_kernel_cgroup(workload->cgroup);
    err = td_mesh_put_workload(kernel->agent->mesh, workload);

    return err != 0 ? err : td_kernel_own(kernel, &key, TD_OWNED_CGROUP, owner);
}


void
td_kernel_delete_workload(td_agent_kernel_t *kernel, uint64_t cgroup,
    const void *owner)
{
    struct tg_addr  key;

    key = td_kernel_cgroup(cgroup);

    if (td_kernel_disown(kernel, &key, TD_OWNED_CGROUP, owner)) {
        td_mesh_delete_workload(kernel->agent->mesh, cgroup);
    }
}


/* Rules that were replaced hold room until a settle. */
static int
td_kernel_put_tenant(td_agent_t *agent, const td_doc_tenant_t *tenant)
{
    int                err;
    size_t             n;
    tg_rule_policy_t  *rules;
    td_mesh_tenant_t   row;

    rules = td_agent_policy_rules(tenant, &n);
    if (rules == NULL) {
        return -ENOMEM;
    }

    row.tenant = tenant->number;
    row.defaults = tenant->defaults;
    row.policies = rules;
    row.n_policies = n;

    err = td_mesh_put_tenant(agent->mesh, &row);

    if (err == -E2BIG) {
        td_mesh_settle(agent->mesh);
        err = td_mesh_put_tenant(agent->mesh, &row);
    }

    free(rules);

    return err;
}


static int
td_kernel_put_nets(td_agent_t *agent, const td_doc_nets_t *nets,
    const struct tg_who *who, uint32_t flags, const void *owner)
{
    int                err;
    size_t             i;
    td_mesh_address_t  address;

    for (i = 0, err = 0; i < nets->n && err == 0; i++) {
        address.addr = nets->item[i].addr;
        address.prefix = nets->item[i].prefix;
        address.who = *who;
        address.flags = flags;
        err = td_kernel_put_address(agent->kernel, &address, owner);
    }

    return err;
}


/* Those of the family of its address, that serve this port. */
static size_t
td_kernel_endpoints(const td_doc_service_t *service, const struct tg_addr *virtual,
    uint16_t port, td_mesh_endpoint_t *endpoints)
{
    size_t                    i, n;
    const td_doc_endpoint_t  *endpoint;

    n = 0;

    for (i = 0; i < service->n_endpoints; i++) {
        endpoint = &service->endpoints[i];

        if (endpoint->service_port == port
            && td_doc_is_ipv4(&endpoint->addr) == td_doc_is_ipv4(virtual))
        {
            endpoints[n].addr = endpoint->addr;
            endpoints[n].port = endpoint->port;
            endpoints[n].weight = endpoint->weight;
            endpoints[n].healthy = endpoint->healthy;
            n++;
        }
    }

    return n;
}


static void
td_kernel_target(const struct tg_addr *addr, const td_doc_port_t *port,
    struct tg_target *target)
{
    memset(target, 0, sizeof(*target));
    target->addr = *addr;
    target->port = port->port;
    target->proto = port->proto;
}


static int
td_kernel_put_service(td_agent_t *agent, const td_doc_service_t *service)
{
    int                  err;
    size_t               i, k;
    td_mesh_service_t    row;
    td_mesh_endpoint_t  *endpoints;

    endpoints = calloc(service->n_endpoints + 1, sizeof(td_mesh_endpoint_t));
    if (endpoints == NULL) {
        return -ENOMEM;
    }

    memset(&row, 0, sizeof(row));
    row.who = service->who;
    row.limit = service->limit;
    row.endpoints = endpoints;
    err = 0;

    for (i = 0; i < service->addresses.n; i++) {
        for (k = 0; k < service->n_ports && err == 0; k++) {
            td_kernel_target(&service->addresses.item[i].addr, &service->ports[k],
                             &row.target);
            row.n_endpoints = td_kernel_endpoints(service, &row.target.addr,
                                                  row.target.port, endpoints);
            err = td_mesh_put_service(agent->mesh, &row);
        }
    }

    free(endpoints);

    return err;
}


/* A workload's addresses are its own on every node, its cgroup is of one. */
static int
td_kernel_put_workload_doc(td_agent_t *agent, const td_doc_t *doc)
{
    int                        err;
    const td_doc_workload_t   *workload;

    workload = &doc->workload;
    err = td_kernel_put_nets(agent, &workload->addresses, &workload->who, 0, doc);

    if (err != 0) {
        return err;
    }

    if (strcmp(workload->node, agent->node) != 0
        || (workload->cgroup == NULL && workload->pod == NULL))
    {
        td_place_remove(agent->place, doc->name);
        return 0;
    }

    return td_place_put(agent->place, doc);
}


int
td_kernel_put(td_agent_t *agent, const td_doc_t *doc)
{
    struct tg_who  nobody = { 0, 0 };

    switch (doc->kind) {

    case TD_DOC_TENANT:
        return td_kernel_put_tenant(agent, &doc->tenant);

    case TD_DOC_NODE:
        return td_kernel_put_nets(agent, &doc->node.addresses, &nobody, TG_HOST, doc);

    case TD_DOC_WORKLOAD:
        return td_kernel_put_workload_doc(agent, doc);

    case TD_DOC_SERVICE:
        return td_kernel_put_service(agent, &doc->service);

    default:
        return 0;
    }
}


static int
td_kernel_has_net(const td_doc_nets_t *nets, const td_doc_net_t *net)
{
    size_t  i;

    for (i = 0; nets != NULL && i < nets->n; i++) {
        if (memcmp(&nets->item[i], net, sizeof(*net)) == 0) {
            return 1;
        }
    }

    return 0;
}


static void
td_kernel_delete_nets(td_agent_t *agent, const td_doc_nets_t *nets,
    const td_doc_nets_t *keep, const void *owner)
{
    size_t  i;

    for (i = 0; i < nets->n; i++) {
        if (!td_kernel_has_net(keep, &nets->item[i])) {
            td_kernel_delete_address(agent->kernel, &nets->item[i].addr,
                                     nets->item[i].prefix, owner);
        }
    }
}


static int
td_kernel_has_target(const td_doc_service_t *service, const struct tg_target *target)
{
    size_t            i, k;
    struct tg_target  other;

    for (i = 0; service != NULL && i < service->addresses.n; i++) {
        for (k = 0; k < service->n_ports; k++) {
            td_kernel_target(&service->addresses.item[i].addr, &service->ports[k],
                             &other);

            if (memcmp(&other, target, sizeof(other)) == 0) {
                return 1;
            }
        }
    }

    return 0;
}


static void
td_kernel_delete_service(td_agent_t *agent, const td_doc_service_t *service,
    const td_doc_service_t *keep)
{
    size_t            i, k;
    struct tg_target  target;

    for (i = 0; i < service->addresses.n; i++) {
        for (k = 0; k < service->n_ports; k++) {
            td_kernel_target(&service->addresses.item[i].addr, &service->ports[k],
                             &target);

            if (!td_kernel_has_target(keep, &target)) {
                td_mesh_delete_service(agent->mesh, &target);
            }
        }
    }
}


void
td_kernel_delete(td_agent_t *agent, const td_doc_t *doc, const td_doc_t *keep)
{
    switch (doc->kind) {

    case TD_DOC_TENANT:
        if (keep == NULL || keep->tenant.number != doc->tenant.number) {
            td_mesh_delete_tenant(agent->mesh, doc->tenant.number);
        }
        break;

    case TD_DOC_NODE:
        td_kernel_delete_nets(agent, &doc->node.addresses,
                              keep ? &keep->node.addresses : NULL, doc);
        break;

    case TD_DOC_WORKLOAD:
        if (keep == NULL) {
            td_place_remove(agent->place, doc->name);
        }
        td_kernel_delete_nets(agent, &doc->workload.addresses,
                              keep ? &keep->workload.addresses : NULL, doc);
        break;

    case TD_DOC_SERVICE:
        td_kernel_delete_service(agent, &doc->service, keep ? &keep->service : NULL);
        break;

    default:
        break;
    }
}
