/* SPDX-License-Identifier: BSD-2-Clause */

#include <stdlib.h>
#include <string.h>

#include "td_agent_store.h"
#include "tg_hash.h"


struct td_agent_store_s {
    td_table_t  names[TD_DOC_KINDS];    /* by name */
    td_table_t  tenants;                /* by number, as the following */
    td_table_t  services;
    td_table_t  policies;
};

typedef struct {
    void  (*visit)(td_doc_t *doc, void *data);
    void   *data;
} td_agent_store_visit_t;


td_agent_store_t *
td_agent_store_create(void)
{
    return calloc(1, sizeof(td_agent_store_t));
}


static void
td_agent_store_free_one(td_link_t *link, void *data)
{
    (void) data;

    td_doc_free(td_link_data(link, td_doc_t, link));
}


void
td_agent_store_destroy(td_agent_store_t *store)
{
    int  kind;

    if (store == NULL) {
        return;
    }

    for (kind = 0; kind < TD_DOC_KINDS; kind++) {
        td_table_each(&store->names[kind], td_agent_store_free_one, NULL);
        td_table_free(&store->names[kind]);
    }

    td_table_free(&store->tenants);
    td_table_free(&store->services);
    td_table_free(&store->policies);
    free(store);
}


/* Names and numbers come from the registry, which only admins fill. */
static uint64_t
td_agent_store_hash(const char *name)
{
    return tg_hash(name, strlen(name), 0);
}


td_doc_t *
td_agent_store_find(const td_agent_store_t *store, td_doc_kind_e kind, const char *name)
{
    uint64_t    hash;
    td_doc_t   *doc;
    td_link_t  *link;

    hash = td_agent_store_hash(name);

    for (link = td_table_chain(&store->names[kind], hash);
         link != NULL;
         link = link->next)
    {
        doc = td_link_data(link, td_doc_t, link);

        if (link->hash == hash && strcmp(doc->name, name) == 0) {
            return doc;
        }
    }

    return NULL;
}


td_doc_t *
td_agent_store_tenant(const td_agent_store_t *store, uint32_t number)
{
    td_doc_t   *doc;
    td_link_t  *link;

    for (link = td_table_chain(&store->tenants, tg_hash_id(number, 0));
         link != NULL;
         link = link->next)
    {
        doc = td_link_data(link, td_doc_t, number_link);

        if (doc->tenant.number == number) {
            return doc;
        }
    }

    return NULL;
}


td_doc_t *
td_agent_store_service(const td_agent_store_t *store, uint32_t number)
{
    td_doc_t   *doc;
    td_link_t  *link;

    for (link = td_table_chain(&store->services, tg_hash_id(number, 0));
         link != NULL;
         link = link->next)
    {
        doc = td_link_data(link, td_doc_t, number_link);

        if (doc->service.who.service == number) {
            return doc;
        }
    }

    return NULL;
}


const td_doc_policy_t *
td_agent_store_policy(const td_agent_store_t *store, uint32_t number)
{
    td_link_t        *link;
    td_doc_policy_t  *policy;

    for (link = td_table_chain(&store->policies, tg_hash_id(number, 0));
         link != NULL;
         link = link->next)
    {
        policy = td_link_data(link, td_doc_policy_t, link);

        if (policy->number == number) {
            return policy;
        }
    }

    return NULL;
}


static void
td_agent_store_remove_policies(td_agent_store_t *store, td_doc_t *doc, size_t n)
{
    while (n > 0) {
        td_table_remove(&store->policies, &doc->tenant.policies[--n].link);
    }
}


static int
td_agent_store_add_numbers(td_agent_store_t *store, td_doc_t *doc)
{
    size_t            i;
    td_doc_policy_t  *policy;

    if (doc->kind == TD_DOC_SERVICE) {
        return td_table_add(&store->services, &doc->number_link,
                            tg_hash_id(doc->service.who.service, 0));
    }

    if (doc->kind != TD_DOC_TENANT) {
        return 0;
    }

    for (i = 0; i < doc->tenant.n_policies; i++) {
        policy = &doc->tenant.policies[i];

        if (td_table_add(&store->policies, &policy->link,
                         tg_hash_id(policy->number, 0)) != 0)
        {
            td_agent_store_remove_policies(store, doc, i);
            return -1;
        }
    }

    if (td_table_add(&store->tenants, &doc->number_link,
                     tg_hash_id(doc->tenant.number, 0)) != 0)
    {
        td_agent_store_remove_policies(store, doc, i);
        return -1;
    }

    return 0;
}


void
td_agent_store_remove(td_agent_store_t *store, td_doc_t *doc)
{
    td_table_remove(&store->names[doc->kind], &doc->link);

    if (doc->kind == TD_DOC_TENANT) {
        td_agent_store_remove_policies(store, doc, doc->tenant.n_policies);
        td_table_remove(&store->tenants, &doc->number_link);

    } else if (doc->kind == TD_DOC_SERVICE) {
        td_table_remove(&store->services, &doc->number_link);
    }
}


int
td_agent_store_put(td_agent_store_t *store, td_doc_t *doc, td_doc_t **replaced)
{
    td_doc_t  *old;

    old = td_agent_store_find(store, doc->kind, doc->name);

    if (td_table_add(&store->names[doc->kind], &doc->link, td_agent_store_hash(doc->name))) {
        return -1;
    }

    if (td_agent_store_add_numbers(store, doc) != 0) {
        td_table_remove(&store->names[doc->kind], &doc->link);
        return -1;
    }

    if (old != NULL) {
        td_agent_store_remove(store, old);
    }

    *replaced = old;

    return 0;
}


size_t
td_agent_store_count(const td_agent_store_t *store, td_doc_kind_e kind)
{
    return store->names[kind].n;
}


static void
td_agent_store_visit(td_link_t *link, void *data)
{
    td_agent_store_visit_t  *visit = data;

    visit->visit(td_link_data(link, td_doc_t, link), visit->data);
}


void
td_agent_store_each(td_agent_store_t *store, td_doc_kind_e kind,
    void (*visit)(td_doc_t *doc, void *data), void *data)
{
    td_agent_store_visit_t  v = { visit, data };

    td_table_each(&store->names[kind], td_agent_store_visit, &v);
}
