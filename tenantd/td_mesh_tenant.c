/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Tenants and their rules.  The rules of a set are all in the maps before the
 * tenant's row names the set, and go after a settle.
 */

#include "td_mesh_internal.h"

#include <errno.h>
#include <string.h>


static int
greatest_set(td_mesh_row_t *row, void *data)
{
    uint32_t  *next;

    next = data;

    /* The key of rules begins with it. */
    if (((const struct tg_rule_key *) td_mesh_row_key(row))->set >= *next) {
        *next = ((const struct tg_rule_key *) td_mesh_row_key(row))->set + 1;
    }

    return 0;
}


static int
set_in_force(td_mesh_row_t *row, void *data)
{
    td_mesh_t         *mesh;
    struct tg_tenant  *tenant;

    mesh = data;
    tenant = td_mesh_row_value(mesh->maps[TD_MESH_TENANTS], row);

    if (tenant->set >= mesh->next_rules) {
        mesh->next_rules = tenant->set + 1;
    }

    return 0;
}


void
td_mesh_load_tenants(td_mesh_t *mesh)
{
    mesh->next_rules = 1;
    td_mesh_map_filter(mesh->maps[TD_MESH_RULES], greatest_set, &mesh->next_rules);
    td_mesh_map_filter(mesh->maps[TD_MESH_TENANTS], set_in_force, mesh);
}


/* `uses` of a rule or net is the tenant that put it; 0 of those that an agent before
 * us left and nobody put again. */
static int
rule_is_old(td_mesh_row_t *row, void *data)
{
    td_mesh_t                 *mesh;
    struct tg_tenant          *tenant;
    const struct tg_rule_key  *key;

    mesh = data;
    key = td_mesh_row_key(row);
    tenant = td_mesh_map_get(mesh->maps[TD_MESH_TENANTS], &row->uses);

    return tenant == NULL || tenant->set != key->set;
}


static int
net_is_old(td_mesh_row_t *row, void *data)
{
    td_mesh_t             *mesh;
    struct tg_tenant      *tenant;
    const struct tg_cidr  *key;

    mesh = data;
    key = td_mesh_row_key(row);
    tenant = td_mesh_map_get(mesh->maps[TD_MESH_TENANTS], &row->uses);

    return tenant == NULL || tenant->set != key->set;
}


void
td_mesh_settle_rules(td_mesh_t *mesh)
{
    td_mesh_map_filter(mesh->maps[TD_MESH_RULES], rule_is_old, mesh);
    td_mesh_map_filter(mesh->maps[TD_MESH_CIDRS], net_is_old, mesh);
}


static int
put_rules(td_mesh_t *mesh, const tg_rules_t *rules, uint32_t tenant)
{
    int             err;
    size_t          i;
    td_mesh_row_t  *row;

    for (i = 0; i < rules->n_nets; i++) {
        err = td_mesh_map_put(mesh->maps[TD_MESH_CIDRS], &rules->nets[i].key,
                              &rules->nets[i].class);
        if (err != 0) {
            return err;
        }
        row = td_mesh_map_row(mesh->maps[TD_MESH_CIDRS], &rules->nets[i].key);
        row->uses = tenant;
    }

    for (i = 0; i < rules->n_rows; i++) {
        err = td_mesh_map_put(mesh->maps[TD_MESH_RULES], &rules->rows[i].key,
                              &rules->rows[i].value);
        if (err != 0) {
            return err;
        }
        row = td_mesh_map_row(mesh->maps[TD_MESH_RULES], &rules->rows[i].key);
        row->uses = tenant;
    }

    return 0;
}


int
td_mesh_put_tenant(td_mesh_t *mesh, const td_mesh_tenant_t *tenant)
{
    int                err, changed;
    tg_rules_t        *rules;
    struct tg_tenant   row, *old;

    rules = tg_rules_create(tenant->policies, tenant->n_policies);
    if (rules == NULL || tenant->tenant == 0) {
        tg_rules_destroy(rules);
        return td_mesh_fail(mesh, rules == NULL ? -errno : -EINVAL, "tenant");
    }

    memset(&row, 0, sizeof(row));
    row.tenant = tenant->tenant;
    row.defaults = tenant->defaults;
    row.shapes[TG_IN] = rules->shapes[TG_IN];
    row.shapes[TG_OUT] = rules->shapes[TG_OUT];
    row.digest = rules->digest;

    old = td_mesh_map_get(mesh->maps[TD_MESH_TENANTS], &row.tenant);
    row.set = old != NULL && old->digest == row.digest ? old->set : mesh->next_rules++;

    /* Also of a set that is there: a restart must learn whose its rows are. */
    tg_rules_number(rules, row.set);
    err = put_rules(mesh, rules, row.tenant);
    tg_rules_destroy(rules);

    changed = old == NULL || memcmp(old, &row, sizeof(row)) != 0;
    if (err == 0) {
        err = td_mesh_map_put(mesh->maps[TD_MESH_TENANTS], &row.tenant, &row);
    }

    /* What was in force stays so. */
    if (err != 0) {
        td_mesh_map_keep(mesh->maps[TD_MESH_TENANTS], &row.tenant);
        return td_mesh_fail(mesh, err, "tenant");
    }

    if (changed) {
        td_mesh_changed(mesh);
    }

    return 0;
}


int
td_mesh_delete_tenant(td_mesh_t *mesh, uint32_t tenant)
{
    int  err;

    err = td_mesh_map_delete(mesh->maps[TD_MESH_TENANTS], &tenant);
    td_mesh_changed(mesh);

    return err ? td_mesh_fail(mesh, err, "tenant") : 0;
}
